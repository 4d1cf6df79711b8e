"""The verb `plan`: what a run or a sweep would build, reuse and cost, without doing it."""

from typing import TYPE_CHECKING

from minilima import console
from minilima.cli.options import Parser, add_json, add_multirun, add_overrides, is_sweep

if TYPE_CHECKING:
    import argparse


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "plan",
        summary="show what a run or a sweep would build, reuse and cost, without doing it",
        description="Shows what a run or a sweep would build, reuse and cost. Nothing is written and nothing is sent.",
        examples=("plan +experiment=lima_1k", "plan +sweep=size_lr +experiment=lima_1k --json"),
    )
    add_overrides(parser)
    add_multirun(parser)
    add_json(parser)
    parser.set_defaults(handler=handle)


def handle(*, overrides: list[str], config_dir: str | None, multirun: bool, in_json: bool) -> int:
    """Shows the plan of one experiment or of a sweep."""
    if multirun or is_sweep(overrides):
        from minilima.cli.sweep import plan_sweep

        plan_sweep(overrides, config_dir, in_json=in_json)
        return 0
    from minilima.config.compose import load_config
    from minilima.pipeline import plan
    from minilima.run.plan_table import as_json, show

    config = load_config(overrides, config_dir=config_dir)
    planned = plan(config)
    if in_json:
        console.say_raw(as_json(planned))
    else:
        show(config, planned)
    return 0
