"""What the store holds, who uses it, and how to free space: `python -m minilima store ls|gc|verify`.

    runs/*/run.json, .work/*/scratch/job.json, .reserved/*.json ─> directories in use ─> with their inputs ─> the rest is free
An interrupted build counts as a run: what it has finished so far is kept for the command that goes on. A run that goes on
has reserved its stages, so gc may run beside it.
"""

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minilima import console
from minilima.errors import MinilimaError
from minilima.formats.files import size_text
from minilima.store.entries import checked_manifest, claimed, removing, reservations
from minilima.store.job import SCRATCH, needs_of

ACTIONS = ("ls", "gc", "verify")

_WIDE = 130
"""Columns of a terminal that has room for what an entry was made from."""
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


def run_store(arguments: Sequence[str], config_dir: str | None = None) -> int:
    """`store ls|gc|verify [--yes] overrides…`; returns the exit status: 1 where an entry is damaged."""
    from minilima.config.compose import load_config

    action, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    strange = [item for item in rest if item.startswith("-") and not (action == "gc" and item == "--yes")]
    if action not in ACTIONS or strange:
        raise MinilimaError(
            f"This store command cannot be read: {' '.join(arguments) or 'nothing was given'}.",
            f"The commands are {', '.join(ACTIONS)}; the only option is --yes, of gc.",
            "Write: python -m minilima store ls",
        )
    config = load_config([item for item in rest if item != "--yes"], config_dir=config_dir)
    outputs = Path(config.paths.outputs)
    if action == "verify":
        return _verify(outputs / "store")
    if action == "ls":
        _show(list_entries(outputs))
        return 0
    with removing(outputs / "store"):
        _collect(outputs / "store", [entry for entry in list_entries(outputs) if not entry.users], really="--yes" in rest)
    return 0


def list_entries(outputs: Path) -> list[Entry]:
    """Every finished entry of the store, largest first."""
    root = outputs / "store"
    inputs = {path.name: _inputs(path) for path in directories(root)}
    users: dict[str, list[str]] = {directory: [] for directory in inputs}
    for name, used in _users(outputs).items():
        for directory in _with_inputs(used, inputs) & users.keys():
            users[directory].append(name)
    entries = [
        Entry(
            directory=path.name,
            size_bytes=size_of(path),
            age_seconds=time.time() - path.stat().st_mtime,
            inputs=inputs[path.name],
            users=tuple(sorted(users[path.name])),
        )
        for path in directories(root)
    ]
    return sorted(entries, key=lambda entry: (-entry.size_bytes, entry.directory))


def size_of(path: Path) -> int:
    """Bytes of all files below `path`."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def unfinished(root: Path) -> list[Path]:
    """Directories of the store `root` in which a build goes on or was interrupted."""
    return _folders(root / ".work")


def directories(root: Path) -> list[Path]:
    """The entries of the store `root`; what somebody else has put beside them is nobody's to remove."""
    return [path for path in _folders(root) if _ENTRY.fullmatch(path.name)]


def _folders(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if item.is_dir() and item.name[0] != ".") if folder.is_dir() else []


def _inputs(path: Path) -> tuple[str, ...]:
    """A damaged entry names no inputs; `verify` tells."""
    try:
        return tuple(json.loads((path / "manifest.json").read_text(encoding="utf-8"))["inputs"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return ()


def _users(outputs: Path) -> dict[str, set[str]]:
    """Directories that each run names, and those that each running experiment and each unfinished build needs."""
    # Reservations first: an experiment writes its run.json before it gives them up.
    users = {f"running {name}": directories for name, directories in reservations(outputs / "store").items()}
    for file in sorted((outputs / "runs").glob("*/run.json")):
        users[file.parent.name] = _read(file, lambda text: {stage["directory"] for stage in json.loads(text)["stages"]})
    for file in sorted((outputs / "judges").glob("*.json")):
        users[f"judge {file.stem}"] = _read(file, lambda text: {item["entry"] for item in json.loads(text)["measured"]})
    for work in unfinished(outputs / "store"):
        job = work / SCRATCH / "job.json"
        if job.is_file():
            users[f"unfinished {work.name}"] = _read(job, needs_of)
    return users


def _read(file: Path, parse: Callable[[str], set[str]]) -> set[str]:
    try:
        return parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MinilimaError(
            f"{file} cannot be read, so it is not known what it uses.",
            f"{type(error).__name__}: {error}".splitlines()[0] + ".",
            f"If it is not needed, remove its folder: rm -r {file.parent.parent if file.name == 'job.json' else file.parent}",
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


def _show(entries: Sequence[Entry]) -> None:
    wide = console.width() >= _WIDE
    rows = []
    for entry in entries:
        row = (entry.directory, size_text(entry.size_bytes), _age(entry.age_seconds), "\n".join(entry.users) or "none")
        rows.append((*row, "\n".join(entry.inputs)) if wide else row)
    console.show_table(("entry", "size", "age", "used by", *(["made from"] if wide else [])), rows)
    console.say(f"{_count(entries)}, {size_text(sum(entry.size_bytes for entry in entries))}.")


def _count(entries: Sequence[object]) -> str:
    return "1 entry" if len(entries) == 1 else f"{len(entries):,} entries"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _collect(root: Path, free: Sequence[Entry], *, really: bool) -> None:
    if not free:
        console.say("Every entry is used: there is nothing to free.")
        return
    console.show_table(("entry that no run uses", "size"), [(entry.directory, size_text(entry.size_bytes)) for entry in free])
    total = size_text(sum(entry.size_bytes for entry in free))
    if not really:
        console.say(f"{_count(free)}, {total}, could be freed; nothing was removed. With --yes it is.")
        return
    kept = [entry.directory for entry in free if not remove(root, root / entry.directory)]
    for directory in kept:
        console.say(f"{directory} is in use and was kept.")
    console.say(f"Removed {_count(free[len(kept) :])}.")


def remove(root: Path, path: Path) -> bool:
    """Removes a directory of the store `root`; False where it is being built just now."""
    with claimed(root, path.name) as free:
        if free:
            # By a rename first: an entry is there as a whole or not at all, also when this is interrupted.
            aside = root / f".removed-{path.name}"
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            shutil.rmtree(aside)
        return free


def _verify(root: Path) -> int:
    damaged = 0
    paths = directories(root)
    for path in paths:
        try:
            checked_manifest(path, math.inf)
        except MinilimaError as error:
            damaged += 1
            console.complain(error)
    console.say(f"{_count(paths)} hashed, {damaged:,} damaged.")
    return 1 if damaged else 0
