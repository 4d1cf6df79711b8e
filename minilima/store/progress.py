"""What a running stage reports, as lines of JSON in its scratch folder: whoever looks from outside reads them.

on_progress ─> scratch/progress.jsonl, a line a second at most ─> report/view.py
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minilima.formats.records import OnProgress, Progress

FILE = "progress.jsonl"
_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A line of the file."""

    at: float
    """Seconds since 1970."""
    done: int
    total: int | None
    unit: str
    note: str


def written_too(scratch: Path, on_progress: OnProgress, clock: Callable[[], float] = time.time) -> OnProgress:
    """What to call instead of `on_progress`: the same, and the file gets its line; a full disk does not stop the stage."""
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        on_progress(progress)
        now = clock()
        if now - last < _SECONDS and progress.done != progress.total:
            return
        last = now
        row = {"at": now, "done": progress.done, "total": progress.total, "unit": progress.unit, "note": progress.note}
        try:
            with (scratch / FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError:
            return

    return report


def read_progress(scratch: Path) -> list[Reported]:
    """The lines of the file; one that is being written is left out."""
    try:
        lines = (scratch / FILE).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(Reported(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return rows
