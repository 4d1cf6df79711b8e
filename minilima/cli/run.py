"""The verb `run`, which needs not be written: builds what is missing and reports; a sweep with -m or +sweep=.

A single run is composed, checked and run here, a sweep in `sweep.py`; Hydra's own options go through Hydra.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from minilima.cli.options import Parser, add_multirun, add_overrides, add_yes, command_line, is_sweep
from minilima.errors import MinilimaError

if TYPE_CHECKING:
    import argparse

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
        return _show(overrides, config_dir, multirun=multirun, **hydra)
    if multirun or is_sweep(overrides):
        from minilima.cli.sweep import run_sweep

        given = ["--config-dir", config_dir] if config_dir else []
        return run_sweep(overrides, config_dir, command_line(["-m", *given, *overrides]), confirmed=confirmed)
    from minilima.config.compose import load_config
    from minilima.pipeline import run

    run(load_config(overrides, config_dir=config_dir), confirmed=confirmed)
    return 0


def _show(overrides: Sequence[str], config_dir: str | None, *, multirun: bool, **options: Any) -> int:
    """What Hydra shows of itself and of the settings that it composes; what is wrong is said before, in our own words."""
    import hydra

    from minilima.config.compose import check_composes, check_part
    from minilima.config.groups import CONF
    from minilima.config.several import listed

    overrides = listed(overrides)
    _check_together(multirun=multirun, **options)
    check_composes(overrides, config_dir)
    if (part := options["package"]) is not None:
        check_part(part, overrides, config_dir)
    flags: list[str] = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        flags += [option] if value is True else [option, str(value)] if value else []
    sys.argv = [sys.argv[0], *(["--config-dir", config_dir] if config_dir else []), *flags, *overrides]
    entry: Callable[[], None] = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(lambda _: None)
    entry()
    return 0


def _check_together(*, multirun: bool, cfg: str | None, info: str | None, package: str | None, resolve: bool, **_: bool) -> None:
    """Refuses options of which Hydra takes one at a time, or would ignore one."""
    given = {"--cfg": cfg, "--info": info, "--multirun": multirun}
    several = [name for name, value in given.items() if value]
    if len(several) > 1:
        why = f"{' and '.join(several)} do not go together."
    elif (package is not None or resolve) and cfg is None:
        why = f"{'--resolve' if package is None else '--package'} belongs to --cfg."
    else:
        return
    raise MinilimaError("This run command cannot be read.", why, "For example: minilima --cfg job +experiment=quickstart")
