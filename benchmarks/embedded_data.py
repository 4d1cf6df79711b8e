"""What packaged models write: what passes, what is left out and why, and what a reader made of 50 rows of each.

    python benchmarks/embedded_data.py --json benchmarks/results/embedded_data.json --page docs/explanation/embedded_data.md
    python benchmarks/embedded_data.py --page docs/explanation/embedded_data.md      # from the committed results

The first one runs `minilima +experiment=embedded_200` (ten minutes or more on two cores; what is in the store is reused).
`embedded_data_read.json` holds a person's marks of the rows that were read, by id, for one key of the data set: the first 50
in its order. Made from other settings, the data set has another key, and no marks. The larger writer's rows were made on a GPU
by `minilima +experiment=which_pool`: they are those of the study experiments/which_examples, and `which_pool_read.json` their
marks. The manifest beside them is the store's, without the folders in its command and its own checksum.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.publish import parser, publish
from minilima.config.compose import load_config
from minilima.formats.files import read_jsonl, write_atomic
from minilima.pipeline import stages
from minilima.run.sources import resolve
from minilima.store.entries import Store

MARKS = ("good", "fair", "bad")
READ = 50
SHOWN = {"good": 3, "fair": 5, "bad": 5}
CHARACTERS = 500
_RESULTS = Path(__file__).parent / "results" / "embedded_data.json"
_KINDS_FILE = Path(__file__).parent / "results" / "classification.json"
_LARGER_POOL = Path(__file__).parent.parent / "experiments" / "which_examples"
_LARGER_MARKS_FILE = Path(__file__).parent / "results" / "which_pool_read.json"
_MARKS_FILE = Path(__file__).parent / "results" / "embedded_data_read.json"


def measure(outputs: str) -> dict[str, Any]:
    """Builds the data set where it is not there yet, and tells what its manifests and rows say."""
    overrides = ["+experiment=embedded_200", f"paths.outputs={outputs}", "tracking=none"]
    subprocess.run([sys.executable, "-m", "minilima", *overrides], check=True, cwd=Path(__file__).parent.parent)
    config = load_config(overrides)
    graph, store = stages(config, resolve(config)), Store(Path(outputs) / "store")
    pool, dataset = store.find(graph["pool"]), store.find(graph["dataset"])
    assert pool is not None and dataset is not None
    rows = read_jsonl(dataset.path / "dataset.jsonl")
    recorded = json.loads(_MARKS_FILE.read_text()) if _MARKS_FILE.is_file() else {}
    marks: dict[str, str] = recorded.get("marks", {}) if recorded.get("dataset") == graph["dataset"].key else {}
    made = pool.manifest["metrics"]
    return {
        "dataset": graph["dataset"].key,
        "accepted": made["instructions"],
        "tasks": made["tasks"],
        "examples": len(rows),
        "classification": made["classification"],
        "labelled": sum(bool(row.get("is_classification")) for row in rows),
        "output_words": dataset.manifest["metrics"]["output_words"],
        "rounds": made["rounds"],
        "reasons": dict(Counter(made["reasons"]) + Counter(dataset.manifest["metrics"]["reasons"])),
        "marks": {mark: list(marks.values()).count(mark) for mark in MARKS} if marks else None,
        "shown": [{"mark": marks[row["id"]], **_cut(row)} for row in _chosen(rows, marks)],
    }


def larger() -> dict[str, Any]:
    """What the manifest, the rows and the marks of the larger writer's pool say."""
    manifest = json.loads((_LARGER_POOL / "pool_manifest.json").read_text(encoding="utf-8"))
    marks = json.loads(_LARGER_MARKS_FILE.read_text())["marks"]
    rows = read_jsonl(_LARGER_POOL / "pool.jsonl")
    words = sorted(len(row["output"].split()) for row in rows)
    return {
        **{name: manifest["metrics"][name] for name in ("instructions", "tasks", "rounds", "reasons")},
        "seconds": manifest["seconds"],
        "replies": manifest["usage"]["calls"],
        "kept": manifest["usage"]["cached"],
        "device": manifest["metrics"]["arithmetic"]["device"],
        "median_words": words[len(words) // 2],
        "marks": {mark: list(marks.values()).count(mark) for mark in MARKS},
        "read": len(marks),
        "shown": [{"mark": marks[row["id"]], **_cut(row)} for row in _chosen(rows, marks)],
    }


def _chosen(rows: Sequence[dict[str, Any]], marks: Mapping[str, str]) -> list[dict[str, Any]]:
    """The first rows of each mark."""
    return [row for mark, wanted in SHOWN.items() for row in [row for row in rows if marks.get(row["id"]) == mark][:wanted]]


def _cut(row: Mapping[str, Any]) -> dict[str, str]:
    texts = {name: row.get(name) or "" for name in ("instruction", "input", "output")}
    return {name: text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}…" for name, text in texts.items()}


def page(record: Mapping[str, Any]) -> str:
    """The documentation's page, as Markdown."""
    # Markdown, not HTML: what the model wrote stands in blocks of code.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return (
        environment.get_template("embedded_data.md.j2").render(
            record=record, larger=larger(), read=sum((record["marks"] or {}).values()), kinds=json.loads(_KINDS_FILE.read_text())
        )
        + "\n"
    )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--outputs", default="outputs", help="folder of the store and the reply cache")
    arguments.add_argument("--page", type=Path, help="also write the documentation's page to this file")
    chosen = arguments.parse_args()
    if chosen.json is None and chosen.page is not None:
        write_atomic(chosen.page, page(json.loads(_RESULTS.read_text())))
        return
    measured = measure(chosen.outputs)
    units = {"accepted": "instructions", "tasks": "tasks", "examples": "examples"}
    figures: dict[str, tuple[float | None, str]] = {name: (measured.pop(name), unit) for name, unit in units.items()}
    publish(figures, chosen.json, **measured)
    if chosen.page is not None:
        write_atomic(chosen.page, page({name: value for name, (value, _) in figures.items()} | measured))


if __name__ == "__main__":
    main()
