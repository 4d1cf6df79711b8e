"""The data set's part of a run's page: its charts, and the rows to read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minilima.config.schema import Config
from minilima.formats.files import read_jsonl
from minilima.formats.words import count_words
from minilima.report.run_figures import BASE, TUNED, VERBS_SHOWN, Chart, counts, histogram, rings, similarity, yields
from minilima.report.selection_section import selection_section
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
    asked = [count_words(f"{row['instruction']} {row['input']}") for row in rows]
    reasons = Counter(row["reason"].replace("_", " ") for row in rejected)
    return {
        "metrics": artifact.metrics,
        "instructions": histogram(asked, "words", name="instructions", of="instruction and input"),
        "answers": histogram([count_words(row["output"]) for row in rows], "words", name="answers", of="the answer"),
        "similarity": _similarity(_rows(pool.path / "instructions.jsonl"), unfit, config.data.max_similarity),
        "rounds": yields(rounds) if (rounds := pool.metrics.get("rounds")) else None,
        "labels": counts(labels, name="labels", label="Answers of classification tasks", colour=TUNED) if labels else None,
        "label_share": artifact.metrics.get("most_common_label_share"),
        "verbs": rings(pairs),
        "verbs_shown": min(VERBS_SHOWN, len({verb for verb, _ in pairs})),
        "with_verb": sum(pairs.values()),
        "reasons": counts(reasons, name="reasons", label="Reasons for rejection", colour=BASE) if reasons else None,
        "selection": selection_section(artifact),
        "examples": shown,
        "rejected": rejected[:REJECTIONS_SHOWN],
        "rejected_total": len(rejected),
    }


def _rows(file: Path) -> list[dict[str, Any]]:
    return read_jsonl(file) if file.is_file() else []


def _similarity(written: Sequence[Mapping[str, Any]], unfit: Sequence[Mapping[str, Any]], limit: float) -> Chart | None:
    """ROUGE-L of each machine-written candidate with its nearest earlier instruction; None where none was measured."""
    accepted, rejected = (
        [row["nearest_rouge"] for row in rows if row.get("nearest_rouge") is not None] for rows in (written, unfit)
    )
    return similarity(accepted, rejected, limit) if accepted or rejected else None
