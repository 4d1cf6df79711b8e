"""Compared runs as a table that fits the terminal, as Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence

from minilima import console
from minilima.evaluate.significance import p_brief
from minilima.evaluate.statistics import Estimate
from minilima.report.compare import (
    Against,
    ComparedRun,
    Table,
    benchmarks_of,
    change_on,
    label,
    label_of_group,
    notes,
    others_of,
    value,
)
from minilima.report.compare_records import records, records_of_groups
from minilima.report.over_seeds import SeedGroup, notes_on_seeds
from minilima.report.runs import FinishedRun


def show(table: Table) -> None:
    """Shows the table in as much room as the terminal has, and below it what must be known to read it."""
    headings, rows, dropped = _fitting(table, console.width())
    console.show_table(headings, rows)
    if further := _by_further_judges(table):
        console.say()
        console.show_table(("judge and set", "point", "win rate", "difference", "p (Holm)")[: len(further[0])], further)
    if table.groups:
        headings, rows, left_out = _fitting_groups(table, console.width())
        console.say()
        console.show_table(headings, rows)
        dropped += [name for name in left_out if name not in dropped]
    if apart := [task for task in benchmarks_of(table) if task in dropped]:
        console.say()
        console.show_table(("what alignment cost", "point", "base", "tuned", "change", "p"), _alignment_cost(table, apart))
        dropped = [name for name in dropped if name not in apart]
    for line in (*notes(table), *(notes_on_seeds(table.groups) if table.groups else ())):
        console.say(line, style="dim")
    if dropped:
        console.say(f"No room here for: {', '.join(dropped)}; a wider terminal or --format markdown shows all.", style="dim")


_GAP = 2
_DROPPED_FIRST = ("judged", "tokens", "loss change", "USD", "seconds", "p (McNemar)", "detectable", "length-controlled")


def _fitting(table: Table, room: int) -> tuple[list[str], list[list[str]], list[str]]:
    """The table with as many columns as `room` characters hold without a break, and the names of the others.

    A point is named by its settings, or by its run name where the settings do not fit.
    """
    headings, rows = _cells(table)
    # Further judges and sets have a table of their own below.
    aside = {f"{what} {name}" for what in ("win rate", "difference", "p (Holm)") for name in others_of(table)}
    stay = [place for place, heading in enumerate(headings) if heading not in aside]
    headings = [headings[place] for place in stay]
    rows = [[row[place].replace("paired: ", "paired:\n") for place in stay] for row in rows]
    shown = _narrow(headings)
    widths = [max(len(line) for cell in column for line in cell.split("\n")) + _GAP for column in zip(shown, *rows, strict=True)]

    # A win rate over part of the prompts is never shown without saying so.
    whole = all(row.point.results.coverage.judged == row.point.results.coverage.prompts for row in table.rows)

    def stays(heading: str, dropped: Sequence[str]) -> bool:
        return heading not in dropped or (heading == "judged" and not whole)

    def fits(dropped: Sequence[str]) -> bool:
        return sum(width for heading, width in zip(headings, widths, strict=True) if stays(heading, dropped)) - _GAP <= room

    implied = [name for name in table.settings if name not in table.naming]
    last = [*_DROPPED_FIRST[2:], *benchmarks_of(table)]
    by_settings = bool(table.naming) and fits(["point", *implied, *_DROPPED_FIRST[:2], *last])
    spare = [*_DROPPED_FIRST[:2], *(["point", *implied] if by_settings else table.settings), *last]
    for number in [0, 1, *range(2 if by_settings else 2 + len(table.settings), len(spare) + 1)]:
        if fits(spare[:number]):
            break
    kept = [column for column, heading in enumerate(headings) if stays(heading, spare[:number])]
    gone = [heading for heading in spare[:number] if heading in headings and not stays(heading, spare[:number])]
    dropped = [heading for heading in gone if heading not in table.settings]
    if spare[:number] and set(table.settings) & set(spare[:number]):
        hidden = len(set(table.settings) & set(spare[:number]))
        dropped.insert(
            0,
            f"{hidden} of the {len(table.settings)} settings that differ"
            if by_settings
            else f"the {hidden} settings that differ"
            if hidden > 1
            else "the setting that differs",
        )
    return [shown[column] for column in kept], [[row[column] for column in kept] for row in rows], dropped


def _by_further_judges(table: Table) -> list[list[str]]:
    """A line for each point by each further judge, on each further set, and by the majority."""
    paired = any(row.against for row in table.rows)
    lines = []
    for name in others_of(table):
        for number, row in enumerate(table.rows):
            judged, against = row.point.judgments(name), row.others.get(name)
            compared = [*(_compared(against) if against else ("compared with", ""))] if paired else []
            named = label(row.point, table.naming)
            lines.append(["" if number else name, named, _rate(judged.rate if judged else None), *compared])
    return lines


def _over_seeds(table: Table) -> tuple[list[str], list[list[str]]]:
    """Headings, and a line for each group of runs that differ by their seed alone."""
    paired = any(group.chosen for group in table.groups)
    lines = []
    for group in table.groups:
        figures = [str(len(group.runs)), group.mean.estimate.text(brief=True), f"{group.spread:.1f}"]
        if paired:
            figures += _difference_of_seeds(group)
        lines.append([label_of_group(group, table), *figures])
    return ["over seeds", "runs", "win rate", "spread", *(["difference", "detectable", "p (Holm)"] if paired else [])], lines


def _fitting_groups(table: Table, room: int) -> tuple[list[str], list[list[str]], list[str]]:
    """The groups of seeds with as many columns as `room` characters hold without a break, and the names of the others."""
    headings, rows = _over_seeds(table)
    left_out: list[str] = []
    for name in ("detectable", "spread", "runs"):
        if sum(max(map(len, column)) + _GAP for column in zip(headings, *rows, strict=True)) - _GAP <= room:
            break
        if name in headings:
            place = headings.index(name)
            headings, rows = headings[:place] + headings[place + 1 :], [row[:place] + row[place + 1 :] for row in rows]
            left_out.append(name)
    return headings, rows, left_out


def _difference_of_seeds(group: SeedGroup) -> list[str]:
    if (found := group.against) is None:
        return ["compared with" if group.chosen else group.note, "", ""]
    detectable = f"{found.minimum_detectable:.1f}" if found.prompts > 1 else "not known"
    return [found.estimate.text("+.1f", brief=True), detectable, p_brief(found.p_holm or 0.0)]


def _alignment_cost(table: Table, tasks: Sequence[str]) -> list[list[str]]:
    """A line for each point on each benchmark: both models' main figure in percent, the change in points, and McNemar's p."""
    lines = []
    for task in tasks:
        for number, row in enumerate(table.rows):
            if (change := change_on(row.point, task)) is None:
                figures = ["not run", "", "", ""]
            else:
                figures = [f"{change.base.value:.1f}", f"{change.tuned.value:.1f}"]
                figures += [change.paired.difference.text("+.1f", brief=True), f"{change.paired.p_mcnemar:.4f}"]
            lines.append(["" if number else task, label(row.point, table.naming), *figures])
    return lines


def _narrow(headings: Sequence[str]) -> list[str]:
    """Names of settings, broken where a reader would."""
    return [heading.replace(".", ".\n").replace("_", "_\n").replace(" (", "\n(") for heading in headings]


def _cells(table: Table) -> tuple[list[str], list[list[str]]]:
    paired = any(row.against for row in table.rows)
    controlled = any(row.point.length_controlled for row in table.rows)
    scored = any(row.point.results.scores for row in table.rows)
    headings = ["", "point", *table.settings, "win rate", *(["length-controlled"] if controlled else [])]
    headings += [
        *(f"win rate {name}" for name in others_of(table)),
        *(["score change"] if scored else []),
        "judged",
        "loss change",
        *benchmarks_of(table),
        "tokens",
        "USD",
        "seconds",
        *(["difference", "detectable", "p (Holm)", "p (McNemar)"] if paired else []),
        *(f"{what} {name}" for name in others_of(table) if paired for what in ("difference", "p (Holm)")),
        *([""] if paired else []),
    ]
    rows = [_line(row, table, paired, controlled, scored) for row in table.rows]
    if paired and not any(row[-1] for row in rows):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    return headings, rows


def _line(row: ComparedRun, table: Table, paired: bool, controlled: bool, scored: bool) -> list[str]:
    point, rate, loss = row.point, row.point.results.win_rate, row.point.results.loss_change
    cells = [
        "*" * row.best + "+" * row.pareto,
        point.name,
        *(value(point, name) for name in table.settings),
        _rate(rate.win_rate if rate else None),
        *([_controlled(point)] if controlled else []),
        *(_rate(judged.rate if (judged := point.judgments(name)) else None) for name in others_of(table)),
        *([_scored(point)] if scored else []),
        f"{point.results.coverage.judged}/{point.results.coverage.prompts}",
        loss.change.text("+.3f", brief=True) if loss else "not known",
        *(_change(point, task) for task in benchmarks_of(table)),
        f"{point.tokens:,}",
        "not known" if point.usd is None else f"{point.usd:.2f}",
        f"{point.seconds:,.0f}",
    ]
    if not paired:
        return cells
    others = [cell for name in others_of(table) for cell in _compared(row.others.get(name))]
    if row.against is None:
        return [*cells, "compared with", "", "", "", *others, ""]
    difference, p_holm = _compared(row.against)
    if (pair := row.against.paired) is None:
        return [*cells, difference, "", "", "", *others, ""]
    detectable = f"{pair.minimum_detectable:.1f}" if pair.prompts > 1 else "not known"
    return [*cells, difference, detectable, p_holm, f"{pair.p_mcnemar:.4f}", *others, row.against.note]


def _compared(against: Against | None) -> tuple[str, str]:
    """The paired difference, or why there is none, and its p."""
    if against is None:
        return "", ""
    if (pair := against.paired) is None:
        return against.note, ""
    return pair.difference.text("+.1f", brief=True), f"{pair.p_holm:.4f}"


def _rate(rate: Estimate | None) -> str:
    return rate.text(brief=True) if rate else "not known"


def _change(point: FinishedRun, task: str) -> str:
    change = change_on(point, task)
    return change.paired.difference.text("+.1f", brief=True) if change else "not run"


def _scored(point: FinishedRun) -> str:
    scores = point.results.scores
    return scores.change.text("+.2f", brief=True) if scores else "not known"


def _controlled(point: FinishedRun) -> str:
    if point.length_controlled is None:
        return "not known"
    value, interval = point.length_controlled
    return interval.text(brief=True) if interval else f"{value:.1f}"


def _markdown(table: Table) -> str:
    text = [*_markdown_table(*_cells(table)), "", *notes(table)]
    if table.groups:
        text += ["", *_markdown_table(*_over_seeds(table)), "", *notes_on_seeds(table.groups)]
    return "\n".join(text)


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    # A bar in a setting's value would open another column.
    return ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]


def _csv(table: Table) -> str:
    rows = records(table)
    written = io.StringIO()
    writer = csv.DictWriter(written, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue().rstrip("\n")


def _json(table: Table) -> str:
    content = {"settings": table.settings, "comparable": table.comparable, "points": records(table)}
    content |= {"over_seeds": records_of_groups(table)} if table.groups else {}
    return json.dumps(content, indent=2, ensure_ascii=False)


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": _markdown, "csv": _csv, "json": _json}
