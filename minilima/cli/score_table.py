"""Scores of annotations files as tables."""

from minilima import console
from minilima.evaluate.length_control_tables import LengthControlled, NotKnown
from minilima.evaluate.score import Pair, Scored, Scores
from minilima.evaluate.significance import p_text
from minilima.evaluate.statistics import Share


def show(scores: Scores) -> None:
    """Each file's figures, then each pair of files compared."""
    for scored in scores.runs:
        console.say()
        console.say(scored.name, style="bold")
        console.show_table(("", ""), _run_rows(scored))
    for pair in scores.pairs:
        console.say()
        console.say(f"{pair.first} minus {pair.second}", style="bold")
        console.show_table(("", ""), _pair_rows(pair))


def _run_rows(scored: Scored) -> list[tuple[str, str]]:
    rate = scored.win_rate
    unread = rate.prompts - rate.judged
    return [
        ("file", scored.file.name),
        ("judged against", f"{scored.run.baseline or 'a baseline without a name'}, by {scored.run.judge or 'an unnamed judge'}"),
        ("prompts judged", f"{rate.judged:,}" + (f", and {unread:,} not read" if unread else "")),
        ("win rate", rate.win_rate.text(".2f", " %")),
        ("standard error", f"{rate.standard_error:.2f} points" if rate.judged > 1 else "not known from one prompt"),
        ("wins, losses, draws", f"{rate.wins:,}, {rate.losses:,}, {rate.ties:,}"),
        ("discrete win rate", f"{rate.discrete_win_rate:.2f} %"),
        ("length-controlled", _controlled_text(scored.length_controlled)),
        *([("… minimal form", _controlled_text(scored.minimal))] if isinstance(scored.minimal, LengthControlled) else []),
        ("average length", f"{scored.mean_length:,.0f} characters"),
        ("longer answer won", _share_text(scored.length_preference)),
        ("first answer won", _share_text(scored.first_wins)),
    ]


def _controlled_text(value: LengthControlled | NotKnown) -> str:
    if isinstance(value, NotKnown):
        return f"not known: {value.reason}"
    return f"{value.text('.2f')} ({value.how})"


def _share_text(value: Share | None) -> str:
    return "not known" if value is None else value.text()


def _pair_rows(pair: Pair) -> list[tuple[str, str]]:
    paired = pair.comparison
    if paired is None:
        return [("not compared", pair.reason or "")]
    return [
        ("win rates", f"{paired.difference.text('+.2f', ' points')}, on {paired.prompts:,} shared prompts"),
        (
            "paired bootstrap",
            f"{p_text(paired.p_bootstrap)}; {p_text(paired.p_holm or 0)} with Holm's correction for all pairs",
        ),
        (
            "McNemar, exact",
            f"{p_text(paired.p_mcnemar)}; better on {paired.first_better:,}, worse on {paired.second_better:,}",
        ),
        ("smallest detectable", f"{paired.minimum_detectable:.2f} points (80 % power at the 5 % level)"),
    ]
