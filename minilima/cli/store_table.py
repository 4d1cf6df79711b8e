"""The store on the terminal: its entries, what could be freed and was, and what is damaged."""

import math
from collections.abc import Sequence
from pathlib import Path

from minilima import console
from minilima.errors import MinilimaError
from minilima.formats.files import size_text
from minilima.store.debris import ABANDONED_SECONDS, Leftover, find_debris, interrupted, remove_leftover
from minilima.store.entries import UnreadableError, checked_manifest, removing
from minilima.store.gc import Entry, directories, list_entries, remove

_ROWS = 20
"""Leftovers that are shown one by one."""
_WIDE = 130
"""Columns of a terminal that has room for what an entry was made from."""


def show_entries(outputs: Path) -> None:
    """The entries of the store, largest first."""
    entries = list_entries(outputs)
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


def free_space(outputs: Path, *, really: bool, all_builds: bool) -> None:
    """Frees what no run uses, what killed processes left, and builds that were interrupted a week ago, or all of them."""
    with removing(outputs / "store"):
        _free(outputs, really=really, all_builds=all_builds)


def _free(outputs: Path, *, really: bool, all_builds: bool) -> None:
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
        console.say(f"{count}, {total}, could be freed; nothing was removed. Add --yes to remove what is listed.")
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
    for title, items in (("left by killed processes", leftovers), ("can be resumed and is kept without --unfinished", kept)):
        shown = [
            (str(item.path.relative_to(root)), item.holds, size_text(item.size_bytes), _age(item.age_seconds)) for item in items
        ]
        if shown:
            more = [(f"… {len(shown) - _ROWS:,} more", "", "", "")] if len(shown) > _ROWS else []
            console.show_table((title, "holds", "size", "untouched for"), [*shown[:_ROWS], *more])


def _leftovers(count: int) -> str:
    return {0: "", 1: "1 leftover"}.get(count, f"{count:,} leftovers")


def verify(root: Path) -> int:
    """Hashes every file of the store; returns the exit status: 1 where an entry is damaged or could not be read."""
    damaged, closed = 0, 0
    paths = directories(root)
    for path in paths:
        try:
            checked_manifest(path, math.inf)
        except UnreadableError as error:
            closed += 1
            console.complain(error)
        except MinilimaError as error:
            if path.is_dir():  # else it was removed meanwhile
                damaged += 1
                console.complain(error)
    unread = f", {closed:,} could not be read" if closed else ""
    console.say(f"{_count(paths[closed:])} hashed, {damaged:,} damaged{unread}.")
    return 1 if damaged or closed else 0
