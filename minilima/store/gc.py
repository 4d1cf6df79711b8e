"""What the store holds, who uses it, and how an entry is removed; `minilima store` shows it.

    runs/*/run.json, .work/*/scratch/job.json, .reserved/*.json ─> directories in use ─> with their inputs ─> the rest is free
An interrupted build counts as a run: what it has finished so far is kept for the command that resumes it. A run that is active
has reserved its stages, so gc may run beside it.
"""

import json
import re
import shlex
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minilima.errors import MinilimaError, may_look_into, no_permission
from minilima.formats.files import remove_unheld
from minilima.store.debris import folders, size_of, unfinished
from minilima.store.entries import claimed, reservations
from minilima.store.job import SCRATCH, needs_of

_ENTRY = re.compile(r"\w+-[0-9a-f]{16}")
"""Stage and key."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A directory of the store. `users` are names of runs, running processes and unfinished builds; `inputs` are directories."""

    directory: str
    size_bytes: int
    age_seconds: float
    inputs: tuple[str, ...]
    users: tuple[str, ...]


def list_entries(outputs: Path, without: Collection[str] = ()) -> list[Entry]:
    """Every finished entry of the store, largest first; the unfinished builds in `without` count as no users.

    Others may build and remove meanwhile: what vanishes on the way is left out.
    """
    root = outputs / "store"
    # Entries first: one that is published after this look has users that the look at users may not see yet.
    paths = directories(root)
    inputs = {path.name: _inputs(path) for path in paths}
    users: dict[str, list[str]] = {directory: [] for directory in inputs}
    for name, used in _users(outputs, without).items():
        for directory in _with_inputs(used, inputs) & users.keys():
            users[directory].append(name)
    entries = []
    for path in paths:
        with suppress(FileNotFoundError):
            changed = path.stat().st_mtime
            entries.append(
                Entry(
                    directory=path.name,
                    size_bytes=size_of(path),
                    age_seconds=max(0.0, time.time() - changed),
                    inputs=inputs[path.name],
                    users=tuple(sorted(users[path.name])),
                )
            )
    return sorted(entries, key=lambda entry: (-entry.size_bytes, entry.directory))


def directories(root: Path) -> list[Path]:
    """The entries of the store `root`; other files beside them are never removed."""
    return [path for path in folders(root) if _ENTRY.fullmatch(path.name)]


def _inputs(path: Path) -> tuple[str, ...]:
    """A damaged entry names no inputs; `verify` reports it. What one that may not be read needs is not known."""
    try:
        inputs = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["inputs"].values()
        return tuple(directory for directory in inputs if isinstance(directory, str))
    except PermissionError as error:
        raise no_permission(error.filename) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def _users(outputs: Path, without: Collection[str]) -> dict[str, set[str]]:
    """Directories that each run names, and those that each running experiment and each unfinished build needs."""
    # Reservations first: an experiment writes its run.json before it gives them up.
    users = {f"running {name}": directories for name, directories in reservations(outputs / "store").items()}
    for file in found(outputs / "runs", "*/run.json"):
        users[file.parent.name] = _read(file, lambda text: {stage["directory"] for stage in json.loads(text)["stages"]})
    for file in found(outputs / "judges", "*.json"):
        users[f"judge {file.stem}"] = _read(file, lambda text: {item["entry"] for item in json.loads(text)["measured"]})
    for work in unfinished(outputs / "store"):
        job = work / SCRATCH / "job.json"
        if work.name not in without and job.is_file():
            users[f"unfinished {work.name}"] = _read(job, needs_of)
    return users


def found(folder: Path, pattern: str) -> list[Path]:
    """What `glob` finds.

    Raises:
        MinilimaError: this user may not look into the folder, or into one in it, of which `glob` says nothing.
    """
    inner = [item for item in folder.iterdir() if item.is_dir()] if folder.is_dir() and may_look_into(folder) else [folder]
    for closed in (item for item in inner if item.is_dir() and not may_look_into(item)):
        raise no_permission(closed)
    return sorted(folder.glob(pattern))


def _read(file: Path, parse: Callable[[str], set[str]]) -> set[str]:
    try:
        return parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:  # a build that was published, or a run that was removed, since the look at the folder
        return set()
    except PermissionError:
        raise no_permission(file) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        folder = shlex.quote(str(file.parent.parent if file.name == "job.json" else file.parent))
        raise MinilimaError(
            f"{file} cannot be read, so it is not known what it uses.",
            f"{type(error).__name__}: {error}".splitlines()[0] + ".",
            f"Run its command again, which writes the file again; if it is not needed, remove its folder: rm -r {folder}",
        ) from None


def _with_inputs(used: Iterable[str], inputs: Mapping[str, Sequence[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(used)
    while waiting:
        directory = waiting.pop()
        if directory not in reached:
            reached.add(directory)
            waiting.extend(inputs.get(directory, ()))
    return reached


def remove(root: Path, path: Path) -> bool:
    """Removes a directory of the store `root`; False where it is being built just now."""
    with claimed(root, path.name) as free:
        if free:
            # By a rename first: an entry is there as a whole or not at all, also when this is interrupted.
            aside = root / f".removed-{path.name}"
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            shutil.rmtree(aside)
    if free:
        remove_unheld(root / ".locks" / f"{path.name}.lock")
    return free
