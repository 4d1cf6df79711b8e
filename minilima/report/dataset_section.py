"""The data set's part of the report: what its pictures show, and the rows to be read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minilima.config.schema import Config
from minilima.formats.files import read_jsonl
from minilima.report import svg_charts
from minilima.report.verbs import verb_and_noun
from minilima.store.entries import Artifact

EXAMPLES_SHOWN = 12
REJECTIONS_SHOWN = 40


def dataset_section(artifacts: Mapping[str, Artifact], config: Config) -> dict[str, Any] | None:
    """What the template needs; None where no data set was built."""
    if "dataset" not in artifacts:
        return None
    artifact, pool = artifacts["dataset"], artifacts["pool"]
    rows = read_jsonl(artifact.path / "dataset.jsonl")
    unfit = _rows(pool.path / "rejected.jsonl")
    rejected = [*unfit, *read_jsonl(artifact.path / "rejected.jsonl")]
    machine = [row for row in rows if row["source"] == "machine"]
    shown = [*machine[: EXAMPLES_SHOWN // 2], *(row for row in rows if row["source"] != "machine")][:EXAMPLES_SHOWN]
    pairs = Counter(pair for row in rows if (pair := verb_and_noun(row["instruction"])) is not None)
    labels = artifact.metrics.get("labels", {})
    return {
        "metrics": artifact.metrics,
        "instructions": svg_charts.histogram([len(f"{row['instruction']} {row['input']}".split()) for row in rows], "words"),
        "answers": svg_charts.histogram([len(row["output"].split()) for row in rows], "words"),
        "likeness": _likeness(_rows(pool.path / "instructions.jsonl"), unfit, config.data.max_similarity),
        "rounds": svg_charts.yields(rounds) if (rounds := pool.metrics.get("rounds")) else None,
        "labels": svg_charts.bars(labels),
        "label_share": artifact.metrics.get("most_common_label_share"),
        "sunburst": svg_charts.sunburst(pairs),
        "with_verb": sum(pairs.values()),
        "reasons": svg_charts.bars(Counter(row["reason"].replace("_", " ") for row in rejected)),
        "examples": shown,
        "rejected": rejected[:REJECTIONS_SHOWN],
        "rejected_total": len(rejected),
    }


def _rows(file: Path) -> list[dict[str, Any]]:
    return read_jsonl(file) if file.is_file() else []


def _likeness(written: Sequence[Mapping[str, Any]], unfit: Sequence[Mapping[str, Any]], limit: float) -> dict[str, Any] | None:
    """ROUGE-L of each machine-written candidate with its nearest earlier instruction; None where none was measured."""
    accepted, rejected = (
        [row["nearest_rouge"] for row in rows if row.get("nearest_rouge") is not None] for rows in (written, unfit)
    )
    return svg_charts.likeness(accepted, rejected, limit) if accepted or rejected else None
