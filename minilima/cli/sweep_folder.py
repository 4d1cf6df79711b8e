"""The folder of a sweep: which points it has, how each of them stands, and where its run is.

    outputs/sweeps/quickstart-size_lr-1a2b3c4d/sweep.json  points/RUN.json  logs/RUN.txt  report.html
A point writes its own record, wherever it runs; sweep.json is put together from the records when all have ended.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from minilima.config.compose import to_dict
from minilima.config.renames import result_settings_of
from minilima.config.schema import Config
from minilima.formats.files import recorded, remembered, write_atomic


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A point in sweep.json. `status`: done, failed, stopped, unfinished (started, no end known) or missing (never started)."""

    overrides: tuple[str, ...]
    axes: Mapping[str, str] = field(default_factory=dict)
    run: str
    """The run's folder, relative to that of the sweep."""
    status: str
    win_rate: Mapping[str, float] | None = None
    cause: str | None = None
    """Why there is no result."""

    @property
    def name(self) -> str:
        return Path(self.run).name

    @property
    def label(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.axes.items()) or self.name


def is_done(run: Path, config: Config) -> bool:
    """Whether the run's folder has the result of these very settings, and the store what it is made of."""
    try:
        run_json = json.loads((run / "run.json").read_text(encoding="utf-8"))
        there = all((run / stage["path"] / "manifest.json").is_file() for stage in run_json["stages"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    wanted = json.loads(json.dumps(to_dict(config)))
    return there and result_settings_of(run_json["config"]) == result_settings_of(wanted)


def write_record(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    """How the point `name` stands, for whoever started it."""
    write_atomic(folder / "points" / f"{name}.json", json.dumps(record, indent=2, ensure_ascii=False))


def forget(folder: Path, entries: Sequence[Entry]) -> None:
    """Takes away what earlier attempts at these points have recorded."""
    for entry in entries:
        (folder / "points" / f"{entry.name}.json").unlink(missing_ok=True)


def searched(folder: Path, varied: Sequence[str]) -> list[Entry]:
    """The points that a search has chosen so far, in their order, by their records."""
    entries = []
    for file in sorted((folder / "points").glob("*.json"), key=lambda file: file.stat().st_mtime):
        if (record := remembered(file, _record)) is None:
            continue
        pairs = (item.lstrip("+~").partition("=") for item in record["overrides"])
        axes = {key: value for key, _, value in pairs if key in varied}
        run = record.get("run", file.stem)  # a point that was not even composed has no run
        entries.append(Entry(overrides=tuple(record["overrides"]), axes=axes, run=run, status="missing"))
    return entries


def _record(written: dict[str, Any]) -> dict[str, Any]:
    """What a point has recorded of itself; a damaged one counts as none, and the point is run again."""
    return {**written, "status": str(written["status"]), "overrides": [str(item) for item in written["overrides"]]}


def outcome(folder: Path, entry: Entry, *, ended: bool) -> Entry:
    """The point as it stands now; `ended`: whether no process of the launcher can still be at work."""
    record: dict[str, Any] = {"status": entry.status}
    if entry.status != "done":
        record = remembered(folder / "points" / f"{entry.name}.json", _record) or record
    status, cause = record["status"], record.get("cause")
    if status == "unfinished" and ended:
        status = "stopped"
    elif status == "unfinished":
        cause = f"It was started on {record['host']} (process {record['process']}) and has not ended."
    return replace(entry, status=status, cause=cause, win_rate=_win_rate(folder / entry.run) if status == "done" else None)


def _win_rate(run: Path) -> dict[str, float] | None:
    """With its interval; None where the run has no verdicts, or too few of them could be read."""
    results = json.loads((run / "run.json").read_text(encoding="utf-8"))["results"]
    return results["win_rate"]["win_rate"] if results and results["win_rate"] else None


def write_sweep(folder: Path, entries: Sequence[Entry], **details: Any) -> None:
    """sweep.json: the points, and beside them the details of the sweep."""
    content = {"name": folder.name, **details, "points": [asdict(entry) for entry in entries]}
    write_atomic(folder / "sweep.json", json.dumps(content, indent=2, ensure_ascii=False))


def read_entries(folder: Path) -> list[Entry]:
    """The points in sweep.json."""
    fix = "Run the sweep's command again, which writes the file again."
    return recorded(folder / "sweep.json", lambda written: [_entry(point) for point in written["points"]], fix)


def _entry(point: dict[str, Any]) -> Entry:
    return Entry(**{**point, "overrides": tuple(point["overrides"])})
