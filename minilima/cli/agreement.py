"""The verb `agreement`: asks a judge about labelled pairs, shows how it compares with people, and writes its card."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilima import console
from minilima.cli.options import Parser, add_json, add_overrides, add_yes, plain_line
from minilima.errors import MinilimaError

if TYPE_CHECKING:
    import argparse

    from minilima.evaluate.judge_cards import JudgeCard


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "agreement",
        summary="measure how well a judge agrees with people",
        description="Asks a judge about pairs that people, or another judge, have labelled. Every report of "
        "this judge then shows its card.",
        examples=(
            "agreement judge=cot --labels pairs.jsonl",
            "agreement judge=cot --annotations annotations.json.gz --size 100 --json",
        ),
    )
    add_overrides(parser)
    several: dict[str, Any] = {"action": "append", "type": Path, "default": [], "metavar": "FILE"}
    parser.add_argument("--labels", **several, help="pairs with people's choices; may be given more than once")
    parser.add_argument("--annotations", **several, help="pairs with another judge's choices, as alpaca_eval writes them")
    parser.add_argument("--leaderboard", type=Path, metavar="CSV", help="a leaderboard whose ranks of models are compared")
    parser.add_argument("--size", type=int, metavar="NUMBER", help="take only this many pairs of each file")
    add_json(parser)
    add_yes(parser, "spend more than confirm_above_usd without asking")
    parser.set_defaults(handler=handle)


def handle(**typed: Any) -> int:
    """Measures a judge and shows its card, as tables or as JSON."""
    run_agreement(**typed)
    return 0


def run_agreement(*, overrides: list[str], config_dir: str | None, in_json: bool, confirmed: bool, **pairs: Any) -> "JudgeCard":
    """Measures a judge, shows its card and writes it to judges/<identity>.json below the outputs.

    Args:
        overrides: the settings, of which the judge's matter.
        config_dir: a folder with groups of the user's own.
        in_json: whether the card is printed as JSON.
        confirmed: whether more than `confirm_above_usd` may be spent without asking.
        pairs: the fields of `Pairs`.

    Raises:
        MinilimaError: a file cannot be read, or the judge cannot be asked.
    """
    from minilima.cli.agreement_card import Pairs, measure_judge, show
    from minilima.config.compose import load_config

    asked = Pairs(**pairs)
    if not asked.labels and not asked.annotations:
        raise MinilimaError(
            "This agreement command cannot be read.",
            "It was given no pairs: --labels names people's choices, --annotations those of another judge.",
            "For example: minilima agreement judge=cot --labels pairs.jsonl",
        )
    command = plain_line("agreement", *overrides, *asked.words())
    config = load_config(overrides, config_dir=config_dir)
    if not in_json:
        card, no_ranking = measure_judge(asked, config, command, confirmed=confirmed)
        show(card, no_ranking)
        return card
    with console.speaking_aside():
        card, _ = measure_judge(asked, config, command, confirmed=confirmed)
    console.say_raw(json.dumps(asdict(card), indent=2, ensure_ascii=False))
    return card
