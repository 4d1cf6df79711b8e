"""Writes minilima/data/judge_cards.json: what was published of AlpacaEval's judges, and cards that were measured here.

python benchmarks/judge_cards.py evaluators_leaderboard.csv outputs/judges/IDENTITY.json …

The CSV is src/alpaca_eval/leaderboards/evaluators/evaluators_leaderboard.csv of tatsu-lab/alpaca_eval; the cards are those
that `minilima agreement` wrote. Their commands stand in them, without the folders of this machine. Cards that were
measured before and are not given again stay as they are.
"""

import argparse
import csv
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

from minilima.evaluate.judge_cards import PACKAGED, Figure, JudgeCard, Measured, read_card, read_packaged
from minilima.formats.files import write_atomic

PUBLISHED = (
    "chatgpt", "chatgpt_fn", "alpaca_eval_gpt4", "alpaca_eval_gpt4_fn", "alpaca_eval_gpt4_turbo_fn",
    "alpaca_eval_cot_gpt4_turbo_fn", "weighted_alpaca_eval_gpt4_turbo",
)  # fmt: skip
"""The judges whose form one of ours follows, and those that judge=alpaca_eval is likely to be used with."""
SOURCE = "tatsu-lab/alpaca_eval, evaluators_leaderboard.csv: 648 pairs, four people each; published without intervals"


def published(board: Path) -> list[JudgeCard]:
    """The cards of AlpacaEval's judges, from its leaderboard of evaluators."""
    with board.open(encoding="utf-8", newline="") as file:
        rows = {row[""]: row for row in csv.DictReader(file)}
    return [_card(name, rows) for name in PUBLISHED]


def _card(name: str, rows: dict[str, dict[str, str]]) -> JudgeCard:
    def share(row: str, column: str) -> Figure:
        return Figure(value=float(rows[row][column]) / (100 if column == "Human agreement" else 1))

    judgments = int(float(rows[name]["# parsed"]))
    measured = Measured(
        labels="AlpacaEval's human annotations",
        by="people",
        pairs=judgments,
        unread=0,
        decided=judgments,
        agreement=share(name, "Human agreement"),
        kappa=None,
        longest=share("longest", "Human agreement"),
        gain=None,
        people=share("humans", "Human agreement"),
        consistency=None,
        first_wins=share(name, "Proba. prefer 1"),
        longer_wins=share(name, "Proba. prefer longer"),
        source=SOURCE,
        command="python benchmarks/judge_cards.py evaluators_leaderboard.csv",
    )
    return JudgeCard(judge=name, identity="", own=False, measured=(measured,))


def portable(card: JudgeCard) -> JudgeCard:
    """The card without folders of this machine, its store entries and what it takes to run it elsewhere."""

    def command(text: str) -> str:
        kept = [item for item in text.split() if not item.startswith(("paths.", "compute"))]
        return " ".join(re.sub(r"\S*/", "", item) if item.startswith(("/", "~")) else item for item in kept)

    return replace(card, measured=tuple(replace(item, entry="", command=command(item.command)) for item in card.measured))


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("board", type=Path)
    parser.add_argument("cards", type=Path, nargs="*")
    asked = parser.parse_args()
    given = [portable(read_card(card)) for card in asked.cards]
    measured = {card.identity: card for card in [*(card for card in read_packaged() if card.own), *given]}
    cards = [*published(asked.board), *measured.values()]
    write_atomic(PACKAGED, json.dumps({"cards": [asdict(card) for card in cards]}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
