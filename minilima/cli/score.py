"""The verb `score`: win rates, length control and paired comparisons of AlpacaEval's annotations files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from minilima import console
from minilima.cli.options import Parser, add_json

if TYPE_CHECKING:
    import argparse


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "score",
        summary="win rates, length control and paired comparisons of AlpacaEval annotations files",
        description="Scores annotations files as alpaca_eval writes them.",
        examples=("score annotations.json", "score first.json second.json --json"),
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="an annotations.json of alpaca_eval")
    add_json(parser)
    parser.add_argument("--length-control", type=Path, metavar="FOLDER", help="the tables of AlpacaEval 2 for length control")
    parser.add_argument("--positional", action="store_true", help="pair prompts by their position, not by their text")
    parser.set_defaults(handler=handle)


def handle(*, files: list[Path], in_json: bool, length_control: Path | None, positional: bool) -> int:
    """Scores the files and shows the result as tables or as JSON."""
    from minilima.cli.score_table import show
    from minilima.evaluate.length_control_tables import cached_tables, load_tables
    from minilima.evaluate.score import as_json, score

    scores = score(files, load_tables(length_control) if length_control else cached_tables(), positional=positional)
    if in_json:
        console.say_raw(json.dumps(as_json(scores), indent=2, ensure_ascii=False))
    else:
        show(scores)
    return 0
