"""The store's health: damaged entries, interrupted builds, and the debris of killed processes, which `repair` removes.

Debris is what nothing will ever use: builds of entries that are there by now, builds without a job to resume, removals that
were cut short, and locks of processes that have died. An interrupted build that can go on is no debris.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from minilima.cli.findings import Finding, Level
from minilima.errors import MinilimaError
from minilima.formats.files import size_text
from minilima.store.entries import checked_manifest, claimed, removing, reservations
from minilima.store.gc import directories, size_of, unfinished
from minilima.store.job import SCRATCH

_BY_SIZE_ALONE = -1


def store_findings(root: Path, *, repair: bool) -> list[Finding]:
    """What is wrong with the store `root`; with `repair`, what is debris is gone afterwards."""
    if not root.is_dir():
        return [Finding(name="store", level=Level.ok, says=f"{root} is not there yet")]
    found = list(_damaged(root))
    with removing(root):
        found += _debris_finding(root, repair=repair)
    if resumable := [path for path in unfinished(root) if _job_can_be_read(path)]:
        says = f"{len(resumable)} interrupted or running: {', '.join(path.name for path in resumable)}"
        found.append(Finding(name="builds", level=Level.ok, says=f"{says}; the same command goes on with them"))
    if not found:
        running = len(reservations(root))
        entries = directories(root)
        says = f"{len(entries):,} entries, none damaged by size; {running} running experiment{'' if running == 1 else 's'}"
        found.append(Finding(name="store", level=Level.ok, says=says))
    return found


def _damaged(root: Path) -> Iterator[Finding]:
    for path in directories(root):
        try:
            checked_manifest(path, _BY_SIZE_ALONE)
        except MinilimaError as error:
            yield Finding(name="store", level=Level.fail, says=f"{error.what} {error.why}", fix=error.fix)


def _debris_finding(root: Path, *, repair: bool) -> list[Finding]:
    debris = list(find_debris(root))
    if not debris:
        return []
    size = size_text(sum(size_of(path) if path.is_dir() else path.stat().st_size for path in debris if path.exists()))
    says = f"{len(debris)} leftovers of killed processes, {size}: {', '.join(path.name for path in debris[:4])}"
    says += " …" if len(debris) > 4 else ""
    if not repair:
        return [Finding(name="store", level=Level.warn, says=says, fix="python -m minilima doctor --repair")]
    removed = [path for path in debris if _remove(root, path)]
    return [Finding(name="store", level=Level.ok, says=f"removed {len(removed)} of {says}")]


def find_debris(root: Path) -> Iterator[Path]:
    """Files and folders that nothing will ever use. What somebody holds just now is left out."""
    for path in unfinished(root):
        if (root / path.name).is_dir() or not _job_can_be_read(path):
            with claimed(root, path.name) as free:
                if free:
                    yield path
    yield from root.glob(".removed-*")
    for holder in sorted((root / ".locks").glob("*.holder")):
        if not (root / ".work" / holder.stem).is_dir():
            with claimed(root, holder.stem) as free:
                if free:
                    yield holder


def _job_can_be_read(work: Path) -> bool:
    try:
        json.loads((work / SCRATCH / "job.json").read_text(encoding="utf-8"))["role"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _remove(root: Path, path: Path) -> bool:
    """Removes a leftover while holding the lock of its entry; False where somebody has begun to use it."""
    directory = path.stem if path.suffix == ".holder" else path.name
    with claimed(root, directory) as free:
        if free and path.is_dir():
            shutil.rmtree(path)
        elif free:
            path.unlink(missing_ok=True)
        return free
