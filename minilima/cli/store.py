"""The verb `store`: what the store holds and who uses it, whether it is whole, and how to free space."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minilima import console
from minilima.cli.options import Parser, add_overrides, add_yes
from minilima.errors import MinilimaError

if TYPE_CHECKING:
    import argparse

    from minilima.store.gc import Garbage

_ACTIONS = ("ls", "gc", "verify")
_ROWS = 20
"""Leftovers that are shown one by one."""
_WIDE = 130
"""Columns of a terminal that has room for what an entry was made from."""


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "store",
        summary="what is kept: ls shows sizes and users, verify checks hashes, gc frees space",
        description="ls shows the entries of the store, their sizes and which runs use them; verify compares every file with its "
        "hash; gc lists what no run uses and what killed processes left, and removes it with --yes. Settings name another "
        "store: paths.outputs=FOLDER.",
        examples=("store ls", "store gc --yes"),
    )
    parser.add_argument("action", choices=_ACTIONS, metavar="|".join(_ACTIONS), help="ls, verify or gc")
    add_overrides(parser)
    add_yes(parser, "with gc: remove what is listed")
    parser.add_argument("--unfinished", action="store_true", help="with gc: interrupted builds too, not only those of a week ago")
    parser.set_defaults(handler=handle)


def handle(*, action: str, overrides: list[str], config_dir: str | None, confirmed: bool, unfinished: bool) -> int:
    """Looks at the store or frees space; returns the exit status: 1 where an entry is damaged."""
    from minilima.config.compose import load_config

    if (confirmed or unfinished) and action != "gc":
        raise MinilimaError(
            f"This store command cannot be read: {'--yes' if confirmed else '--unfinished'} belongs to gc, not to {action}.",
            f"{action} removes nothing.",
            f"Write: minilima store {action}",
        )
    outputs = Path(load_config(overrides, config_dir=config_dir).paths.outputs)
    if action == "gc":
        return _collect(outputs, confirmed, unfinished)
    return _list(outputs) if action == "ls" else _verify(outputs)


def _list(outputs: Path) -> int:
    from minilima.formats.files import size_text
    from minilima.store.gc import list_entries

    entries = list_entries(outputs)
    wide = console.width() >= _WIDE
    rows = []
    for entry in entries:
        row = (entry.directory, size_text(entry.size_bytes), _age(entry.age_seconds), "\n".join(entry.users) or "none")
        rows.append((*row, "\n".join(entry.inputs)) if wide else row)
    console.show_table(("entry", "size", "age", "used by", *(["made from"] if wide else [])), rows)
    console.say(f"{_count(entries)}, {size_text(sum(entry.size_bytes for entry in entries))}.")
    return 0


def _count(entries: Sequence[object]) -> str:
    return "1 entry" if len(entries) == 1 else f"{len(entries):,} entries"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _collect(outputs: Path, confirmed: bool, unfinished: bool) -> int:
    from minilima.formats.files import size_text
    from minilima.store.entries import removing
    from minilima.store.gc import collect, find_garbage

    with removing(outputs / "store"):
        garbage = find_garbage(outputs, all_builds=unfinished)
        _show_garbage(outputs / "store", garbage)
        if not (garbage.entries or garbage.leftovers):
            console.say("Every entry is used: there is nothing to free.")
            return 0
        leftovers = {0: "", 1: "1 leftover"}.get(len(garbage.leftovers), f"{len(garbage.leftovers):,} leftovers")
        count = " and ".join(filter(None, [_count(garbage.entries) if garbage.entries else "", leftovers]))
        if not confirmed:
            total = size_text(garbage.size_bytes)
            console.say(f"{count}, {total}, could be freed; nothing was removed. Add --yes to remove what is listed.")
            return 0
        kept = collect(outputs, garbage)
    for name in kept:
        console.say(f"{name} is in use and was kept.")
    console.say(f"Removed the others of {count}." if kept else f"Removed {count}.")
    return 0


def _show_garbage(root: Path, garbage: "Garbage") -> None:
    from minilima.formats.files import size_text

    if garbage.entries:
        rows = [(entry.directory, size_text(entry.size_bytes)) for entry in garbage.entries]
        console.show_table(("entry that no run uses", "size"), rows)
    for title, items in (("left by killed processes", garbage.leftovers), ("kept without --unfinished", garbage.kept)):
        shown = [
            (str(item.path.relative_to(root)), item.holds, size_text(item.size_bytes), _age(item.age_seconds)) for item in items
        ]
        if shown:
            more = [(f"… {len(shown) - _ROWS:,} more", "", "", "")] if len(shown) > _ROWS else []
            console.show_table((title, "holds", "size", "untouched for"), [*shown[:_ROWS], *more])


def _verify(outputs: Path) -> int:
    from minilima.store.entries import checked_manifest
    from minilima.store.gc import directories

    damaged = 0
    paths = directories(outputs / "store")
    for path in paths:
        try:
            checked_manifest(path, math.inf)
        except MinilimaError as error:
            if path.is_dir():  # else it was removed meanwhile
                damaged += 1
                console.complain(error)
    console.say(f"{_count(paths)} hashed, {damaged:,} damaged.")
    return 1 if damaged else 0
