"""The verb `store`: what the store holds and who uses it, whether it is whole, and how to free space."""

from pathlib import Path
from typing import TYPE_CHECKING

from minilima import console
from minilima.cli.options import Parser, add_overrides, add_yes
from minilima.errors import MinilimaError

if TYPE_CHECKING:
    import argparse


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "store",
        summary="what is kept: ls shows sizes and users, verify checks hashes, gc frees space",
        description="ls shows the entries of the store, their sizes and which runs use them; verify compares every file with its "
        "hash; gc lists what no run uses, what killed processes left, and builds that were interrupted a week ago, and "
        "removes them with --yes. Settings name another store: paths.outputs=FOLDER.",
        examples=("store ls", "store gc --yes"),
    )
    actions = ("ls", "gc", "verify")
    parser.add_argument("action", choices=actions, metavar="|".join(actions), help="what to do with the store")
    add_overrides(parser)
    add_yes(parser, "with gc: remove what is listed")
    parser.add_argument("--unfinished", action="store_true", help="with gc: every interrupted build, however new")
    parser.set_defaults(handler=handle)


def handle(*, action: str, overrides: list[str], config_dir: str | None, confirmed: bool, unfinished: bool) -> int:
    """Looks at the store or frees space; returns the exit status: 1 where an entry is damaged."""
    if (confirmed or unfinished) and action != "gc":
        raise MinilimaError(
            "This store command cannot be read.",
            f"{'--yes' if confirmed else '--unfinished'} belongs to gc; {action} changes nothing.",
            f"Write: minilima store {action}",
        )
    from minilima.cli.store_table import free_space, show_entries, verify
    from minilima.config.compose import load_config

    outputs = Path(load_config(overrides, config_dir=config_dir).paths.outputs)
    if not (outputs / "store").is_dir():
        console.say(f"There is no store in {outputs.absolute()}: nothing was built here. Another folder: paths.outputs=…")
        return 0
    if action == "verify":
        return verify(outputs / "store")
    if action == "ls":
        show_entries(outputs)
    else:
        free_space(outputs, really=confirmed, all_builds=unfinished)
    return 0
