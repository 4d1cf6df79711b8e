"""What killed processes left in a store: what nothing will ever use, and interrupted builds, which the same command resumes.

    .work/  .removed-*  .locks/  .reserved/  .NAME.PID ─> not held by anybody ─> leftovers, each with what it holds
An interrupted build is a leftover only after a week in which nobody touched it.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minilima.formats.files import below, is_aside, remove_unheld
from minilima.store.entries import claimed, reservations
from minilima.store.job import SCRATCH

ABANDONED_SECONDS = 7 * 86_400.0
"""An interrupted build that nobody has touched for so long is taken for abandoned."""


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A file or folder. `holds` says for people what is in it; `age_seconds` counts from its last change."""

    path: Path
    holds: str
    size_bytes: int
    age_seconds: float


def find_debris(root: Path) -> list[Leftover]:
    """What nothing will ever use; what somebody holds just now is left out. The caller is `removing` from `root`."""
    candidates = []
    for path in unfinished(root):
        if (root / path.name).is_dir():
            candidates.append((path, "a build whose result is there"))
        elif not (path / SCRATCH / "job.json").is_file():
            candidates.append((path, "a build that was ended before it began"))
    held = {path for path, _ in candidates if not _is_free(root, path.name)}
    debris = [(path, holds) for path, holds in candidates if path not in held]
    debris += [(path, "an entry that was being removed") for path in sorted(root.glob(".removed-*"))]
    debris += [(path, "a lock of nobody") for path in _locks(root)]
    debris += [(path, "half of a file") for path in _asides(root)]
    return [_leftover(path, holds) for path, holds in debris]


def interrupted(root: Path) -> list[Leftover]:
    """Interrupted builds that no process works on and that can be resumed."""
    builds = [path for path in unfinished(root) if not (root / path.name).is_dir() and (path / SCRATCH / "job.json").is_file()]
    return [_leftover(path, _checkpoints(path)) for path in builds if _is_free(root, path.name)]


def remove_leftover(root: Path, path: Path) -> bool:
    """Removes a leftover; False where somebody has begun to use it."""
    if is_aside(path) or path.suffix == ".lock":
        return remove_unheld(path)
    if path.name.startswith(".removed-"):
        shutil.rmtree(path, ignore_errors=True)
        return True
    directory = path.stem if path.suffix == ".holder" else path.name
    with claimed(root, directory) as free:
        if free and path.is_dir():
            shutil.rmtree(path)
        elif free:
            path.unlink(missing_ok=True)
    if free and not (root / directory).is_dir():
        remove_unheld(root / ".locks" / f"{directory}.lock")
    return free


def unfinished(root: Path) -> list[Path]:
    """Directories of the store `root` in which a build runs or was interrupted."""
    return folders(root / ".work")


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, hidden ones left out; none where there is no such folder."""
    return sorted(item for item in folder.iterdir() if item.is_dir() and item.name[0] != ".") if folder.is_dir() else []


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; what vanishes meanwhile counts as nothing."""
    return sum(size for size, _ in _stats(path))


def _stats(path: Path) -> Iterator[tuple[int, float]]:
    """Size and time of the last change of each file below `path`."""
    for file in below(path) if path.is_dir() else [path]:
        try:
            if file.is_file():
                yield file.stat().st_size, file.stat().st_mtime
        except OSError:
            continue


def _leftover(path: Path, holds: str) -> Leftover:
    stats = list(_stats(path))
    changed = max((changed for _, changed in stats), default=time.time())
    size = sum(size for size, _ in stats)
    return Leftover(path=path, holds=holds, size_bytes=size, age_seconds=max(0.0, time.time() - changed))


def _checkpoints(work: Path) -> str:
    count = sum(path.name.startswith("checkpoint-") and path.is_dir() for path in below(work / SCRATCH))
    parts = {0: "no checkpoint", 1: "1 checkpoint"}
    return f"an interrupted build, {parts.get(count, f'{count} checkpoints')}"


def _is_free(root: Path, directory: str) -> bool:
    if not (root / ".locks" / f"{directory}.lock").is_file():
        return True
    with claimed(root, directory) as free:
        return free


def _locks(root: Path) -> Iterator[Path]:
    """Locks and names of their holders, of entries that are neither built nor being built, while no experiment runs."""
    running = reservations(root)
    for holder in sorted((root / ".locks").glob("*.holder")):
        if not (root / ".work" / holder.stem).is_dir() and _is_free(root, holder.stem):
            yield holder
    if running:
        return
    for lock in sorted((root / ".locks").glob("*-*.lock")):
        entry = lock.stem
        if not ((root / ".work" / entry).is_dir() or (root / entry).is_dir()) and _is_free(root, entry):
            yield lock
    yield from (root / ".reserved").glob("*.lock")


def _asides(root: Path) -> Iterator[Path]:
    """What was being written aside in the store's own folders; a build clears its own."""
    for folder in (root, root / ".locks", root / ".reserved"):
        yield from (path for path in folder.glob(".*") if is_aside(path))
