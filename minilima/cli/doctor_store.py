"""The store's health: damaged entries, interrupted builds, and the debris of killed processes, which `repair` removes.

Debris is what nothing will ever use: builds of entries that are there by now, builds without a job to resume, removals that
were cut short, and locks of processes that have died. An interrupted build that can be resumed is no debris.
"""

from collections.abc import Iterator
from pathlib import Path

from minilima.cli.findings import Finding, Level
from minilima.errors import MinilimaError, explain
from minilima.formats.files import size_text
from minilima.models.salvage import find_damage, salvage
from minilima.store.debris import find_debris, remove_leftover, unfinished
from minilima.store.entries import checked_manifest, removing, reservations
from minilima.store.gc import directories
from minilima.store.job import SCRATCH

_BY_SIZE_ALONE = -1


def store_findings(root: Path, *, repair: bool) -> list[Finding]:
    """What is wrong with the store `root`; with `repair`, what is debris is gone afterwards."""
    try:
        if not root.is_dir():
            return [Finding(name="store", level=Level.ok, says=f"{root} is not there yet")]
        return _store_findings(root, repair=repair)
    except OSError as error:
        return [_refused(error)]


def _refused(error: OSError, before: str = "") -> Finding:
    """What the system does not let this user look at, which is no reason to end without the other checks."""
    if (refused := explain(error)) is None:
        raise error
    return Finding(name="store", level=Level.warn, says=f"{before}{refused.what} {refused.why}", fix=refused.fix)


def _store_findings(root: Path, *, repair: bool) -> list[Finding]:
    findings = list(_damaged(root))
    try:
        with removing(root):
            findings += _debris_finding(root, repair=repair)
    except OSError as error:  # the store of somebody else
        findings.append(_refused(error, "leftovers of killed processes were not looked for. "))
    if resumable := [path for path in unfinished(root) if (path / SCRATCH / "job.json").is_file()]:
        says = f"{len(resumable)} interrupted or running: {', '.join(path.name for path in resumable)}"
        findings.append(Finding(name="builds", level=Level.ok, says=f"{says}; the same command resumes them"))
    if not findings:
        running = len(reservations(root))
        entries = directories(root)
        says = f"{len(entries):,} entries, none damaged by size; {running} running experiment{'' if running == 1 else 's'}"
        findings.append(Finding(name="store", level=Level.ok, says=says))
    return findings


def cache_findings(file: Path, root: Path, *, repair: bool) -> list[Finding]:
    """Whether the reply cache `file` is whole; with `repair`, what can be read of a damaged one is in a new one afterwards."""
    if (damage := find_damage(file)) is None:
        return []
    says = f"{damage.what} {damage.why}"
    if not repair or "doctor --repair" not in damage.fix:
        return [Finding(name="reply cache", level=Level.fail, says=says, fix=damage.fix)]
    with removing(root):
        if running := reservations(root):
            fix = f"wait until these have ended, or stop them: {', '.join(running)}"
            return [Finding(name="reply cache", level=Level.fail, says=f"{says} Running experiments may be using it.", fix=fix)]
        saved = salvage(file)
    says = f"damaged: {saved.replies:,} replies and {saved.bookings:,} bookings of costs were saved; the old file is {saved.kept}"
    return [Finding(name="reply cache", level=Level.ok, says=says)]


def _damaged(root: Path) -> Iterator[Finding]:
    for path in directories(root):
        try:
            checked_manifest(path, _BY_SIZE_ALONE)
        except MinilimaError as error:
            yield Finding(name="store", level=Level.fail, says=f"{error.what} {error.why}", fix=error.fix)


def _debris_finding(root: Path, *, repair: bool) -> list[Finding]:
    debris = find_debris(root)
    if not debris:
        return []
    size = size_text(sum(item.size_bytes for item in debris))
    says = f"{len(debris)} leftovers of killed processes, {size}: {', '.join(item.path.name for item in debris[:4])}"
    says += " …" if len(debris) > 4 else ""
    if not repair:
        return [Finding(name="store", level=Level.warn, says=says, fix="minilima doctor --repair")]
    removed = [item for item in debris if remove_leftover(root, item.path)]
    return [Finding(name="store", level=Level.ok, says=f"removed {len(removed)} of {says}")]
