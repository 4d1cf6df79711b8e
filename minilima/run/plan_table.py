"""The plan as a table: a line a stage, and of what it will take only the columns that say something.

Of a sweep with many stages the first few of each role are shown, the others as one line with their sums.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

from minilima import console
from minilima.config.schema import Config
from minilima.console import count
from minilima.formats.files import size_text
from minilima.run.plan import Plan, PlannedStage
from minilima.run.resources import Resources
from minilima.train.memory import GIB

_SHOWN_OF_A_ROLE = 4
_FIGURES_BESIDE = 1
_ROOMY = 110
"""Columns of a terminal in which what a stage is and more than _FIGURES_BESIDE figures stand in one line."""
_COLUMNS = ("requests", "tokens", "USD", "time", "memory", "disk")


def show(config: Config, plan: Plan) -> None:
    """Prints the plan of one experiment, with the memory of a training that is part of it."""
    title = f"{config.name}: {count(len(plan.to_build), 'stage')} to build"
    rows = [
        (stage.role, stage.status, stage.what, _number(stage.examples), stage.needs, stage.directory) for stage in plan.stages
    ]
    _show(title, rows, plan)
    if plan.memory:
        console.say()
        console.show_table(("training memory, each process", "GiB"), plan.memory)
    _warn(plan)


def show_sweep(name: str, points: int, plan: Plan) -> None:
    """Prints the plan of a sweep."""
    rows = []
    for _, of_role in groupby(plan.stages, key=lambda stage: stage.role):
        alike: dict[tuple[str, str], list[PlannedStage]] = {}
        for stage in of_role:
            alike.setdefault((stage.status, f"{stage.what}{_shared(stage, points)}"), []).append(stage)
        groups = list(alike.values())
        shown = groups if len(groups) <= _SHOWN_OF_A_ROLE + 1 else groups[:_SHOWN_OF_A_ROLE]
        rows += [_together(stages, points) for stages in shown]
        if others := [stage for stages in groups[len(shown) :] for stage in stages]:
            rows.append(_rest(others))
    title = f"{name}: {count(points, 'point')}, {count(len(plan.stages), 'stage')}, {len(plan.to_build):,} to build"
    _show(title, rows, plan)
    _warn(plan)


def as_json(plan: Plan) -> str:
    """The whole plan for other programs: every stage, what each takes, and what all take together."""
    values = {**asdict(plan), "needs": asdict(plan.needs)}
    return json.dumps(values, indent=2, ensure_ascii=False)


Row = tuple[str, str, str, str, Resources, str]
"""Role, status, what it is, how many examples, what it takes, entry of the store."""


def _number(examples: int | None) -> str:
    return f"{examples:,}" if examples is not None else ""


def _together(stages: Sequence[PlannedStage], points: int) -> Row:
    """Stages that read alike, as one line."""
    first, sums = stages[0], sum((stage.needs for stage in stages), Resources())
    if len(stages) == 1:
        what = f"{first.what}{_shared(first, points)}"
        return first.role, first.status, what, _number(first.examples), sums, first.directory
    alike = {stage.examples for stage in stages}
    each = _number(first.examples) if len(alike) == 1 else ""
    return first.role, first.status, f"{len(stages):,} times: {first.what}{_shared(first, points)}", each, sums, ""


def _rest(stages: Sequence[PlannedStage]) -> Row:
    counts = Counter(stage.status for stage in stages)
    what = f"and {len(stages):,} more: " + ", ".join(f"{number:,} to {status}" for status, number in counts.items())
    return stages[0].role, "", what, "", sum((stage.needs for stage in stages), Resources()), ""


def _shared(stage: PlannedStage, points: int) -> str:
    return f" (for {'all' if stage.points == points else f'{stage.points:,}'} points)" if stage.points > 1 else ""


def _show(title: str, rows: Sequence[Row], plan: Plan) -> None:
    """One table; in a narrow terminal the figures follow in a second one, summed for each role."""
    total = plan.needs
    sums = _cells(total, whole=all(_has_time(stage) for stage in plan.stages))
    used = [column for column, cell in enumerate(sums) if cell]
    figures = [_COLUMNS[column] for column in used]

    def cells(needs: Resources) -> list[str]:
        whole = _cells(needs)
        return [whole[column] for column in used]

    apart = len(figures) > _FIGURES_BESIDE and console.width() < _ROOMY
    lines = [
        (role, status, what, [examples, *([] if apart else cells(needs))], directory)
        for role, status, what, examples, needs, directory in rows
    ]
    in_all = [sums[column] for column in used]
    if figures and len(rows) > 1 and not apart:
        lines.append(("in all", "", "", ["", *in_all], ""))
    console.show_plan(title, ["examples", *([] if apart else figures)], lines)
    if apart:
        grouped = groupby(rows, key=lambda row: row[0])
        by_role = [(role, *cells(sum((row[4] for row in of_role), Resources()))) for role, of_role in grouped]
        console.say()
        console.show_table(
            ("estimate", *figures), [*(row for row in by_role if any(row[1:])), ("in all", *in_all)], figures_from=1
        )
    _tell(plan)


def _tell(plan: Plan) -> None:
    total = plan.needs
    prices = [f"USD by the prices of {total.prices_of}; requests and tokens are estimates."] if total.prices_of else []
    if total.requests and total.usd is None:
        prices = ["The price is not known: set budget.usd_per_million_prompt_tokens and …_completion_tokens of the endpoint."]
    unpriced = [stage.role for stage in plan.stages if stage.needs.requests and stage.needs.usd is None]
    if unpriced and total.usd is not None:
        prices.append(f"The price of {', '.join(dict.fromkeys(unpriced))} is not known, and not part of the sum.")
    for note in [*prices, *plan.notes]:
        console.say(note, style="dim")


def _warn(plan: Plan) -> None:
    """What is less than was asked for, or in the way: last, where it is read."""
    if plan.warnings:
        console.say()
    for warning in plan.warnings:
        console.say(f"Warning: {warning}", style="yellow")
    console.say()


def _has_time(stage: PlannedStage) -> bool:
    return stage.status == "reuse" or stage.needs.seconds is not None


def _cells(needs: Resources, *, whole: bool = True) -> tuple[str, ...]:
    """A cell for each of _COLUMNS; `whole` says whether the time of every part is known."""
    return (
        f"{needs.requests:,}" if needs.requests else "",
        _short(needs.tokens) if needs.tokens else "",
        f"{needs.usd:,.2f}" if needs.usd is not None else "",
        ("" if whole else "over ") + console.duration(needs.seconds) if needs.seconds is not None else "",
        f"{needs.memory_bytes / GIB:,.1f} GiB" if needs.memory_bytes else "",
        size_text(needs.disk_bytes) if needs.disk_bytes else "",
    )


def _short(number: int) -> str:
    """`3.5 M`: a guess deserves no more digits."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return str(number)
