"""The verb `score`: reads its arguments, scores annotations files and shows what came out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minilima import console
from minilima.errors import MinilimaError
from minilima.evaluate.length_control_tables import LengthControlled, NotKnown, cached_tables, load_tables
from minilima.evaluate.score import Pair, Scored, Scores, as_json, score
from minilima.evaluate.significance import p_text
from minilima.evaluate.statistics import Share

USAGE = "Write: python -m minilima score annotations.json [more…] [--json] [--length-control FOLDER] [--positional]"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What was typed after `score`."""

    files: tuple[Path, ...]
    json: bool = False
    length_control: Path | None = None
    positional: bool = False


def parse(arguments: Sequence[str]) -> Arguments:
    """The arguments of `score`.

    Raises:
        MinilimaError: no file is named, or an option is not known or lacks its folder.
    """
    rest, files, flags, folder = list(arguments), [], set(), None
    while rest:
        item = rest.pop(0)
        name, has_value, value = item.partition("=")
        if name == "--length-control":
            if not has_value and not rest:
                raise MinilimaError("--length-control names no folder.", "The tables are read from a folder.", USAGE)
            folder = Path(value if has_value else rest.pop(0))
        elif item in ("--json", "--positional"):
            flags.add(item)
        elif item.startswith("--"):
            raise MinilimaError(
                f"score has no option {item}.", "The options are --json, --length-control and --positional.", USAGE
            )
        else:
            files.append(Path(item))
    if not files:
        raise MinilimaError("score was given no file.", "It reads annotations files as alpaca_eval writes them.", USAGE)
    return Arguments(files=tuple(files), json="--json" in flags, length_control=folder, positional="--positional" in flags)


def run_score(arguments: Sequence[str]) -> None:
    """Scores the files named in the arguments and shows the result as tables or as JSON."""
    asked = parse(arguments)
    tables = load_tables(asked.length_control) if asked.length_control else cached_tables()
    scores = score(asked.files, tables, positional=asked.positional)
    if asked.json:
        console.say_raw(json.dumps(as_json(scores), indent=2, ensure_ascii=False))
    else:
        _show(scores)


def _show(scores: Scores) -> None:
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
    found = pair.comparison
    if found is None:
        return [("not compared", pair.reason or "")]
    return [
        ("win rates", f"{found.difference.text('+.2f', ' points')}, on {found.prompts:,} shared prompts"),
        ("paired bootstrap", f"{p_text(found.p_bootstrap)}; {p_text(found.p_holm or 0)} with Holm's correction for all pairs"),
        ("McNemar, exact", f"{p_text(found.p_mcnemar)}; better on {found.first_better:,}, worse on {found.second_better:,}"),
        ("smallest detectable", f"{found.minimum_detectable:.2f} points (80 % power at the 5 % level)"),
    ]
