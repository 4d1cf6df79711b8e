"""Finished runs as points to compare: the settings that differ, the figures, and what each point cost.

Reads run.json, and through it the manifests and verdicts in the store; nothing is built and nothing is changed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.evaluate.results import Results, compute_results
from minilima.files import canonical_json, read_jsonl

FIX = "Name folders of finished runs, as in: python -m minilima compare outputs/runs/NAME-KEY outputs/runs"

_NOT_SETTINGS = ("paths.", "compute.", "tracking.", "confirm_above_usd")
"""They change how a run is made or told, never what comes out."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One finished run."""

    name: str
    """The name of the run's folder."""
    settings: Mapping[str, Any]
    """Dotted names and values, without those that cannot change a result."""
    results: Results
    preferences: Mapping[str, float]
    """Id of each prompt with a verdict that could be read: 1 = the reference is better, 2 = the tuned model is."""
    yardstick: Mapping[str, str]
    """What makes verdicts comparable (prompts, baseline, judge): runs can be paired only where all agree."""
    tokens: int
    usd: float | None
    """None where calls were made whose price is not known."""
    seconds: float
    """To build every stage of the point once, also those that other points share."""


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The runs' folders: each named one, the runs directly in it, or the finished ones of a sweep; each once.

    Raises:
        MinilimaError: a folder does not exist or holds no finished run.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        runs = [folder] if (folder / "run.json").is_file() else sorted(file.parent for file in folder.glob("*/run.json"))
        if (sweep := folder / "sweep.json").is_file():
            points = json.loads(sweep.read_text(encoding="utf-8"))["points"]
            runs = [folder / point["run"] for point in points if point["status"] == "done"]
        if not runs:
            why = "It holds no run.json, and neither does a folder in it." if folder.is_dir() else "There is no such folder."
            raise MinilimaError(f"{folder} is not a finished run.", why, FIX)
        found.update(dict.fromkeys(run.resolve() for run in runs))
    return list(found)


def read_point(folder: Path) -> Point:
    """One run.

    Raises:
        MinilimaError: the run stopped before its verdicts, or what it refers to is no longer in the store.
    """
    told = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    paths = {stage["role"]: folder / stage["path"] for stage in told["stages"]}
    if "verdicts" not in paths:
        raise MinilimaError(f"{folder.name} has no verdicts.", "It was run only up to an earlier stage.", "Run it to the end.")
    try:
        manifests = {role: json.loads((path / "manifest.json").read_text(encoding="utf-8")) for role, path in paths.items()}
    except FileNotFoundError as error:
        raise MinilimaError(
            f"{folder.name} cannot be read.", f"{error.filename} is gone.", "Run its command again, or leave it out."
        ) from None
    verdicts = read_jsonl(paths["verdicts"] / "verdicts.jsonl")
    usages = [manifest["usage"] for manifest in manifests.values() if manifest["usage"]["calls"]]
    return Point(
        name=folder.name,
        settings={name: value for name, value in flat(told["config"]).items() if not name.startswith(_NOT_SETTINGS)},
        results=compute_results(
            verdicts=paths["verdicts"],
            answers=paths["answers"],
            reference=paths["reference_answers"],
            min_coverage=told["config"]["judge"].get("min_coverage", 0.9),  # runs from before this setting have none
        ),
        preferences={row["id"]: row["preference"] for row in verdicts if row.get("preference") is not None},
        yardstick=_yardstick(manifests),
        tokens=sum(usage["prompt_tokens"] + usage["completion_tokens"] for usage in usages),
        usd=None if any(usage["usd"] is None for usage in usages) else sum(usage["usd"] for usage in usages),
        seconds=sum(manifest["seconds"] for manifest in manifests.values()),
    )


def _yardstick(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    asked = dict(manifests["reference_answers"]["recipe"])
    # Seeds draw other answers of the same baseline; the prompts are still the same.
    asked.pop("seed", None)
    prompts = [asked.pop(name, None) for name in ("eval_set", "size")]
    judge = [manifests["verdicts"]["recipe"], manifests["verdicts"]["inputs"].get("judge")]
    return {
        "evaluation prompts": canonical_json(prompts),
        "baseline": canonical_json(asked),
        "judge": canonical_json(judge),
    }


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names: `{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    pairs: dict[str, Any] = {}
    for name, value in values.items():
        pairs |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return pairs
