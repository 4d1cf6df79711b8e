"""The verb `store`: what the store holds and who uses it, whether it is whole, and how to free space."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minilima import console
from minilima.cli.options import Parser, add_overrides, add_yes
from minilima.errors import MinilimaError

if TYPE_CHECKING:
    import argparse

    from minilima.store.gc import Entry

_WIDE = 130
"""Columns of a terminal that has room for what an entry was made from."""


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "store",
        summary="what is kept: ls shows sizes and users, verify checks hashes, gc frees space",
        description="ls shows the entries of the store, their sizes and which runs use them; verify compares every file with its "
        "hash; gc lists what no run uses, and removes it with --yes. Settings name another store: paths.outputs=FOLDER.",
        examples=("store ls", "store gc --yes"),
    )
    parser.add_argument("action", choices=tuple(ACTIONS), metavar="|".join(ACTIONS), help="ls, verify or gc")
    add_overrides(parser)
    add_yes(parser, "with gc: remove what is listed")
    parser.set_defaults(handler=handle)


def handle(*, action: str, overrides: list[str], config_dir: str | None, confirmed: bool) -> int:
    """Looks at the store or frees space; returns the exit status: 1 where an entry is damaged."""
    from minilima.config.compose import load_config

    if confirmed and action != "gc":
        raise MinilimaError(
            f"This store command cannot be read: --yes belongs to gc, not to {action}.",
            f"{action} changes nothing, so there is nothing to confirm.",
            f"Write: minilima store {action}",
        )
    outputs = Path(load_config(overrides, config_dir=config_dir).paths.outputs)
    return ACTIONS[action](outputs, confirmed)


def _list(outputs: Path, _: bool) -> int:
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


def _collect(outputs: Path, confirmed: bool) -> int:
    from minilima.store.entries import removing
    from minilima.store.gc import list_entries

    with removing(outputs / "store"):
        _free(outputs / "store", [entry for entry in list_entries(outputs) if not entry.users], confirmed)
    return 0


def _free(root: Path, unused: Sequence["Entry"], confirmed: bool) -> None:
    from minilima.formats.files import size_text
    from minilima.store.gc import remove

    if not unused:
        console.say("Every entry is used: there is nothing to free.")
        return
    console.show_table(("entry that no run uses", "size"), [(entry.directory, size_text(entry.size_bytes)) for entry in unused])
    total = size_text(sum(entry.size_bytes for entry in unused))
    if not confirmed:
        console.say(f"{_count(unused)}, {total}, could be freed; nothing was removed. Add --yes to remove what is listed.")
        return
    kept = [entry.directory for entry in unused if not remove(root, root / entry.directory)]
    for directory in kept:
        console.say(f"{directory} is in use and was kept.")
    console.say(f"Removed {_count(unused[len(kept) :])}.")


def _verify(outputs: Path, _: bool) -> int:
    from minilima.store.entries import checked_manifest
    from minilima.store.gc import directories

    damaged = 0
    paths = directories(outputs / "store")
    for path in paths:
        try:
            checked_manifest(path, math.inf)
        except MinilimaError as error:
            damaged += 1
            console.complain(error)
    console.say(f"{_count(paths)} hashed, {damaged:,} damaged.")
    return 1 if damaged else 0


ACTIONS: dict[str, Callable[[Path, bool], int]] = {"ls": _list, "gc": _collect, "verify": _verify}
