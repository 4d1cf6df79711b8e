"""What the store holds, who uses it, and how to free space: `python -m minilima store ls|gc|verify`.

    runs/*/run.json, .work/*/scratch/job.json, .reserved/*.json ─> directories in use ─> with their inputs ─> the rest is free
An interrupted build counts as a run: what it has finished so far is kept for the command that goes on. A run that goes on
has reserved its stages, so gc may run beside it.
"""

import json
import math
import re
import shlex
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minilima import console
from minilima.errors import MinilimaError
from minilima.formats.files import remove_unheld, size_text
from minilima.store.debris import (
    ABANDONED_SECONDS,
    Leftover,
    find_debris,
    folders,
    interrupted,
    remove_leftover,
    size_of,
    unfinished,
)
from minilima.store.entries import checked_manifest, claimed, removing, reservations
from minilima.store.job import SCRATCH, needs_of

ACTIONS = ("ls", "gc", "verify")
_GC_OPTIONS = ("--yes", "--unfinished")

_ROWS = 20
"""Leftovers that are shown one by one."""
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
    strange = [item for item in rest if item.startswith("-") and not (action == "gc" and item in _GC_OPTIONS)]
    if action not in ACTIONS or strange:
        raise MinilimaError(
            f"This store command cannot be read: {' '.join(arguments) or 'nothing was given'}.",
            f"The commands are {', '.join(ACTIONS)}; gc has the options {' and '.join(_GC_OPTIONS)}.",
            "Write: python -m minilima store ls",
        )
    config = load_config([item for item in rest if item not in _GC_OPTIONS], config_dir=config_dir)
    outputs = Path(config.paths.outputs)
    if action == "verify":
        return _verify(outputs / "store")
    if action == "ls":
        _show(list_entries(outputs))
        return 0
    with removing(outputs / "store"):
        _collect(outputs, really="--yes" in rest, all_builds="--unfinished" in rest)
    return 0


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
                    age_seconds=time.time() - changed,
                    inputs=inputs[path.name],
                    users=tuple(sorted(users[path.name])),
                )
            )
    return sorted(entries, key=lambda entry: (-entry.size_bytes, entry.directory))


def directories(root: Path) -> list[Path]:
    """The entries of the store `root`; what somebody else has put beside them is nobody's to remove."""
    return [path for path in folders(root) if _ENTRY.fullmatch(path.name)]


def _inputs(path: Path) -> tuple[str, ...]:
    """A damaged entry names no inputs; `verify` tells."""
    try:
        return tuple(json.loads((path / "manifest.json").read_text(encoding="utf-8"))["inputs"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return ()


def _users(outputs: Path, without: Collection[str]) -> dict[str, set[str]]:
    """Directories that each run names, and those that each running experiment and each unfinished build needs."""
    # Reservations first: an experiment writes its run.json before it gives them up.
    users = {f"running {name}": directories for name, directories in reservations(outputs / "store").items()}
    for file in sorted((outputs / "runs").glob("*/run.json")):
        users[file.parent.name] = _read(file, lambda text: {stage["directory"] for stage in json.loads(text)["stages"]})
    for file in sorted((outputs / "judges").glob("*.json")):
        users[f"judge {file.stem}"] = _read(file, lambda text: {item["entry"] for item in json.loads(text)["measured"]})
    for work in unfinished(outputs / "store"):
        job = work / SCRATCH / "job.json"
        if work.name not in without and job.is_file():
            users[f"unfinished {work.name}"] = _read(job, needs_of)
    return users


def _read(file: Path, parse: Callable[[str], set[str]]) -> set[str]:
    try:
        return parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:  # a build that was published, or a run that was removed, since the look at the folder
        return set()
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


def _collect(outputs: Path, *, really: bool, all_builds: bool) -> None:
    """Frees what no run uses, what killed processes left, and builds that were interrupted a week ago, or all of them."""
    root = outputs / "store"
    builds = interrupted(root)
    freed = [build for build in builds if all_builds or build.age_seconds >= ABANDONED_SECONDS]
    leftovers = [*find_debris(root), *freed]
    free = [entry for entry in list_entries(outputs, {build.path.name for build in freed}) if not entry.users]
    _show_free(root, free, leftovers, [build for build in builds if build not in freed])
    if not (free or leftovers):
        console.say("Every entry is used: there is nothing to free.")
        return
    total = size_text(sum(entry.size_bytes for entry in free) + sum(item.size_bytes for item in leftovers))
    count = " and ".join(filter(None, [_count(free) if free else "", _leftovers(len(leftovers))]))
    if not really:
        console.say(f"{count}, {total}, could be freed; nothing was removed. With --yes it is.")
        return
    kept = [item.path.name for item in leftovers if not remove_leftover(root, item.path)]
    # Looked at again: what a build needs is free only if the build could be removed.
    kept += [entry.directory for entry in list_entries(outputs) if not entry.users and not remove(root, root / entry.directory)]
    for directory in kept:
        console.say(f"{directory} is in use and was kept.")
    console.say(f"Removed the others of {count}." if kept else f"Removed {count}.")


def _show_free(root: Path, free: Sequence[Entry], leftovers: Sequence[Leftover], kept: Sequence[Leftover]) -> None:
    if free:
        rows = [(entry.directory, size_text(entry.size_bytes)) for entry in free]
        console.show_table(("entry that no run uses", "size"), rows)
    # Large ones first: among many, the locks of nobody are the least.
    leftovers = sorted(leftovers, key=lambda item: -item.size_bytes)
    for title, items in (("left by killed processes", leftovers), ("can go on and is kept without --unfinished", kept)):
        shown = [
            (str(item.path.relative_to(root)), item.holds, size_text(item.size_bytes), _age(item.age_seconds)) for item in items
        ]
        if shown:
            more = [(f"… {len(shown) - _ROWS:,} more", "", "", "")] if len(shown) > _ROWS else []
            console.show_table((title, "holds", "size", "untouched for"), [*shown[:_ROWS], *more])


def _leftovers(count: int) -> str:
    return {0: "", 1: "1 leftover"}.get(count, f"{count:,} leftovers")


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


def _verify(root: Path) -> int:
    damaged = 0
    paths = directories(root)
    for path in paths:
        try:
            checked_manifest(path, math.inf)
        except MinilimaError as error:
            if path.is_dir():  # else it was removed meanwhile
                damaged += 1
                console.complain(error)
    console.say(f"{_count(paths)} hashed, {damaged:,} damaged.")
    return 1 if damaged else 0
