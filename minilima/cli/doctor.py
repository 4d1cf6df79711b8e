"""The verb `doctor`: whether this machine can run an experiment, one line for each finding."""

from pathlib import Path
from typing import TYPE_CHECKING

from minilima import console
from minilima.cli.findings import Level
from minilima.cli.options import Parser, add_overrides

if TYPE_CHECKING:
    import argparse


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "doctor",
        summary="can this machine run the experiment, and if not, what to fix",
        description="Checks packages, GPUs, disk, models, endpoints and the store. Each problem is shown with its fix; the exit "
        "status is 1 where something would stop the run. An endpoint that the experiment asks is sent one request of about 20 "
        "words, which costs a few tokens.",
        examples=("doctor +experiment=lima_1k", "doctor --repair"),
    )
    add_overrides(parser)
    parser.add_argument(
        "--repair",
        action="store_true",
        help="clear debris from the store, save a damaged reply cache",
    )
    parser.add_argument(
        "--no-probe",
        dest="probe",
        action="store_false",
        help="send no small request to the generator's and the judge's endpoint",
    )
    parser.set_defaults(handler=handle)


def handle(*, overrides: list[str], config_dir: str | None, repair: bool, probe: bool) -> int:
    """Shows all findings; returns the exit status: 1 where one is an error."""
    from minilima.cli.doctor_checks import examine
    from minilima.cli.doctor_store import cache_findings, store_findings
    from minilima.config.compose import load_config
    from minilima.models.database import cache_file

    config = load_config(overrides, config_dir=config_dir)
    outputs = Path(config.paths.outputs)
    store, cache = outputs / "store", cache_file(outputs)
    findings = [
        *examine(config, probe=probe),
        *cache_findings(cache, store, repair=repair),
        *store_findings(store, repair=repair),
    ]
    for finding in findings:
        console.show_finding(finding.level, finding.name, finding.says, finding.fix)
    count = {level: sum(finding.level == level for finding in findings) for level in Level}
    warnings, errors = count[Level.warn], count[Level.fail]
    console.say(
        f"{count[Level.ok]} ok, {warnings} warning{'' if warnings == 1 else 's'}, {errors} error{'' if errors == 1 else 's'}"
    )
    return 1 if errors else 0
