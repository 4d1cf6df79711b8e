"""The verb `run`, which needs not be written: builds what is missing and reports; a sweep with -m or +sweep=.

A single run is composed, checked and run here, a sweep in `sweep.py`; Hydra's own options go through Hydra.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from minilima.cli.options import Parser, add_multirun, add_overrides, add_yes, command_line, is_sweep

if TYPE_CHECKING:
    import argparse

    from omegaconf import DictConfig

_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "run",
        summary="build what is missing and report (the default: the word run may be left out)",
        description="Builds what is missing of an experiment or of a sweep, and reports.",
        examples=("+experiment=quickstart", "-m +experiment=lima_1k dataset.size=100,300"),
    )
    add_overrides(parser)
    add_multirun(parser)
    add_yes(parser, "spend more than confirm_above_usd without asking")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"), metavar="job|hydra|all", help="show the settings; no run")
    parser.add_argument("-p", "--package", metavar="KEY", help="with --cfg: only this part, for example sft")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: values instead of references to other settings")
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=_INFO, metavar="PART", help="how Hydra composed them")
    parser.add_argument("--hydra-help", action="store_true", help="Hydra's own help")
    parser.set_defaults(handler=handle)


def handle(*, overrides: list[str], config_dir: str | None, multirun: bool, confirmed: bool, **hydra: Any) -> int:
    """Runs one experiment or a sweep, or shows what Hydra's options ask for; returns the exit status."""
    if any(hydra.values()):
        return _hydra([*_flags(hydra), *(["--multirun"] if multirun else [])], overrides, config_dir)
    if multirun or is_sweep(overrides):
        from minilima.cli.sweep import run_sweep

        given = ["--config-dir", config_dir] if config_dir else []
        return run_sweep(overrides, config_dir, command_line(["-m", *given, *overrides]), confirmed=confirmed)
    from minilima.config.compose import load_config
    from minilima.pipeline import run

    run(load_config(overrides, config_dir=config_dir), confirmed=confirmed)
    return 0


def _flags(hydra: dict[str, Any]) -> list[str]:
    """Hydra's options as it reads them."""
    words: list[str] = []
    for name, value in hydra.items():
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [option, str(value)] if value else []
    return words


def _hydra(flags: Sequence[str], overrides: Sequence[str], config_dir: str | None) -> int:
    import hydra

    from minilima.config.compose import check_composes, strict
    from minilima.config.groups import CONF

    def task(composed: "DictConfig") -> float | None:
        from minilima.pipeline import run

        return run(strict(composed)).score

    # What is wrong is said in our words, before Hydra says it in its own and ends the process.
    check_composes(overrides, config_dir)
    sys.argv = [sys.argv[0], *(["--config-dir", config_dir] if config_dir else []), *flags, *overrides]
    entry: Callable[[], None] = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)
    entry()
    return 0
