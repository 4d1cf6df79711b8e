"""What `minilima view` shows of a folder of results, as values: finished runs, sweeps, and what is being built now.

outputs/runs/*/run.json, sweeps/*/sweep.json ─> rows        store/.work/*/scratch ─> builds with their loss and last replies
"""

import json
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minilima.console import duration, pace
from minilima.errors import MinilimaError
from minilima.formats.records import Progress
from minilima.models.budget import spent_usd
from minilima.report.compare import label, tabulate, value
from minilima.report.runs import FinishedRun, read_point
from minilima.store.progress import Reported, read_progress

_SILENT_SECONDS = 180.0
"""After so long without a report a build is called silent: interrupted, or busy with one long step."""
_LOSS = re.compile(r"\bloss (\d+(?:\.\d+)?)")
_CURVE_POINTS = 400
_REPLIES = 3
_REPLY_CHARACTERS = 400


@dataclass(kw_only=True)
class Library:
    """The runs of a folder, each read again only after its run.json changed."""

    outputs: Path
    _kept: dict[Path, tuple[float, FinishedRun]] = field(default_factory=dict)

    def points(self) -> tuple[list[FinishedRun], list[str]]:
        """The runs that can be compared, and for each other one why not."""
        points, skipped = [], []
        for file in sorted(self.outputs.glob("runs/*/run.json")):
            item = self._read(file)
            if isinstance(item, str):
                skipped.append(item)
            else:
                points.append(item)
        return points, skipped

    def _read(self, file: Path) -> FinishedRun | str:
        try:
            changed = file.stat().st_mtime
            if (known := self._kept.get(file)) is not None and known[0] == changed:
                return known[1]
            point = read_point(file.parent)
        except MinilimaError as error:
            return f"{error.what} {error.why}"
        except OSError as error:  # no permission, or removed while the page is open
            return f"{file.parent.name} cannot be read. {error.filename}: {error.strerror}."
        self._kept[file] = (changed, point)
        return point

    def state(self) -> dict[str, Any]:
        """All that the page shows."""
        points, skipped = self.points()
        rows: list[dict[str, Any]] = []
        settings: Sequence[str] = ()
        if points:
            table = tabulate(points)
            settings = table.settings
            rows = [_row(row.point, settings, best=row.best and len(points) > 1) for row in table.rows]
        return {
            "settings": list(settings),
            "runs": rows,
            "skipped": skipped,
            "sweeps": _sweeps(self.outputs),
            "builds": builds(self.outputs),
        }

    def compared(self, names: Sequence[str]) -> dict[str, Any]:
        """The named runs, each with the first one, as `minilima compare --against` does.

        Raises:
            MinilimaError: fewer than two of the names are runs.
        """
        by_name = {point.name: point for point in self.points()[0]}
        chosen = [by_name[name] for name in names if name in by_name]
        if len(chosen) < 2:
            raise MinilimaError("There is nothing to compare.", "Two runs are needed.", "Tick two boxes.")
        table = tabulate(chosen, chosen[0])
        return {
            "against": {"name": chosen[0].name, "label": label(chosen[0], table.naming)},
            "comparable": table.comparable,
            "rows": [
                {"name": row.point.name, "label": label(row.point, table.naming), **_paired(row.against)}
                for row in table.rows
                if row.point is not chosen[0]
            ],
        }


def _paired(against: Any) -> dict[str, Any]:
    if against is None or against.paired is None:
        return {"note": against.note if against else ""}
    paired = against.paired
    return {
        "difference": paired.difference.value,
        "bounds": paired.difference.bounds("+.1f"),
        "p": paired.p_holm,
        "mcnemar": paired.p_mcnemar,
        "prompts": paired.prompts,
        "note": against.note,
    }


def _row(point: FinishedRun, settings: Sequence[str], *, best: bool) -> dict[str, Any]:
    rate, loss = point.results.win_rate, point.results.loss_change
    return {
        "name": point.name,
        "settings": [value(point, name) for name in settings],
        "rate": {"value": rate.win_rate.value, "bounds": rate.win_rate.bounds()} if rate else None,
        "loss": loss.change.value if loss else None,
        "judged": point.results.coverage.judged,
        "prompts": point.results.coverage.prompts,
        "examples": point.examples,
        "words": point.words,
        "usd": point.usd,
        "seconds": point.seconds,
        "time": duration(point.seconds),
        "best": best,
        "report": f"runs/{point.folder.name}/report.html" if (point.folder / "report.html").is_file() else None,
    }


def _sweeps(outputs: Path) -> list[dict[str, Any]]:
    rows = []
    for file in sorted(outputs.glob("sweeps/*/sweep.json")):
        try:
            points = json.loads(file.read_text(encoding="utf-8"))["points"]
            done = sum(point["status"] == "done" for point in points)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        name = file.parent.name
        report = f"sweeps/{name}/report.html" if (file.parent / "report.html").is_file() else None
        rows.append({"name": name, "done": done, "points": len(points), "report": report})
    return rows


def builds(outputs: Path, now: float | None = None) -> list[dict[str, Any]]:
    """The stages that are being built, the one that reported last first."""
    stages = []
    for scratch in outputs.glob("store/.work/*/scratch"):
        reports = read_progress(scratch)
        try:
            job = json.loads((scratch / "job.json").read_text(encoding="utf-8"))
            begun = (scratch / "job.json").stat().st_mtime
        except (OSError, ValueError):
            continue
        if not reports and (outputs / "store" / ".locks" / f"{scratch.parent.name}.holder").is_file():
            # Its process is there and loads packages or a model, which can take a minute.
            reports = [Reported(at=begun, done=0, total=None, unit="", note="starting")]
        if reports:
            stages.append(_build(scratch, job, reports, time.time() if now is None else now))
    return sorted(stages, key=lambda build: build["silent_seconds"])


def _build(scratch: Path, job: Mapping[str, Any], reports: Sequence[Reported], now: float) -> dict[str, Any]:
    last = reports[-1]
    # A stage counts one thing after another: the rate is that of what it counts now.
    first = next((item for item in reversed(reports) if item.unit != last.unit or item.done > last.done), None)
    begun = reports[reports.index(first) + 1] if first is not None else reports[0]
    progress = Progress(done=last.done, total=last.total, unit=last.unit)
    cache = Path(job["cache"]) if job.get("cache") else None
    silent = max(0.0, now - last.at)  # a clock may be set back
    return {
        "entry": scratch.parent.name,
        "role": str(job.get("role", "")),
        "name": str(job.get("config", {}).get("name", "")),
        "done": last.done,
        "total": last.total,
        "unit": last.unit,
        "note": last.note,
        "pace": list(pace(progress, last.done - begun.done, max(0.0, last.at - begun.at))),
        "silent_seconds": round(silent, 1),
        "silent": silent > _SILENT_SECONDS,
        "usd": spent_usd(cache, str(job.get("account"))) if cache is not None else None,
        "losses": _losses(reports),
        "replies": last_replies(cache) if cache is not None else [],
    }


def _losses(reports: Sequence[Reported]) -> list[list[float]]:
    """(done, loss) of the reports that name a loss, thinned to what a small chart can show."""
    pairs = [[float(item.done), float(match[1])] for item in reports if (match := _LOSS.search(item.note))]
    step = -(-len(pairs) // _CURVE_POINTS) or 1
    return pairs[::step]


def last_replies(cache: Path) -> list[str]:
    """The replies that came last, of whichever model; empty where there are none or the file is being written."""
    if not cache.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{cache.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as database:
            rows = database.execute("SELECT reply FROM replies ORDER BY rowid DESC LIMIT ?", (_REPLIES,)).fetchall()
        texts = [str(json.loads(row[0])["text"]) for row in rows]
    except (sqlite3.Error, ValueError, KeyError, TypeError):
        return []
    return [text if len(text) <= _REPLY_CHARACTERS else f"{text[:_REPLY_CHARACTERS]} …" for text in texts]
