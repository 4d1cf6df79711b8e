"""The points of a sweep as series: what is drawn in one colour, and what a picture's axes and marks say. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from minilima.report.compare import ComparedRun, Table, distinguishing, label
from minilima.report.render import legible

SIZE, RATE, SEED = "dataset.size", "sft.learning_rate", "seed"

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#000000")
MARKERS = "os^Dv*"
"""Okabe and Ito's (2008), distinct also for colour-blind readers; markers differ too, so that grey prints do."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that are drawn alike: same settings but for size and seed."""

    label: str
    colour: str
    marker: str
    rows: tuple[tuple[int, ComparedRun], ...]
    """With each point's row number in the table."""


def across(table: Table) -> str | None:
    """The setting beside the size that a map spans: the learning rate if it differs, else the first other one."""
    others = [name for name in table.settings if name not in (SIZE, SEED)]
    return RATE if RATE in others else others[0] if others else None


def series(table: Table) -> list[Series]:
    """The points by what they have in common; by one setting, or all as one, where that would be too many colours."""
    differ = [name for name in table.settings if name not in (SIZE, SEED)]
    others = distinguishing([row.point for row in table.rows], differ)
    for names in (others, *([name] for name in differ)):
        groups: dict[str, list[tuple[int, ComparedRun]]] = {}
        for index, row in enumerate(table.rows):
            groups.setdefault(label(row.point, names) if names else "", []).append((index, row))
        if len(groups) <= len(COLOURS):
            break
    else:
        groups = {"": list(enumerate(table.rows))}
    return [
        Series(label=legible(name), colour=COLOURS[number], marker=MARKERS[number], rows=tuple(rows))
        for number, (name, rows) in enumerate(sorted(groups.items(), key=lambda item: natural(item[0])))
    ]


def natural(text: str) -> list[tuple[float, str]]:
    """Sorts 2e-05 before 1e-04, and 30 before 100."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", text)
    return [(float(part), "") if number % 2 else (0.0, part) for number, part in enumerate(parts)]


def describe(row: ComparedRun, table: Table) -> str:
    """A point in one line, shown where the pointer rests on it."""
    rate = row.point.results.win_rate
    figure = rate.win_rate.text(unit=" %", brief=True) if rate else "no win rate"
    return f"{label(row.point, table.naming)}: {figure}, {row.point.examples:,} examples"


def running_mean(values: Sequence[float], share: int = 20) -> list[float]:
    """Each value's mean with its neighbours, over a twentieth of them all."""
    reach = max(1, len(values) // share) // 2
    near = [values[max(0, index - reach) : index + reach + 1] for index in range(len(values))]
    return [sum(around) / len(around) for around in near]


_OTHER_DATA = ("data.", "generator.", "seeds.", "model.", "eval_set.", "judge.")


def unlike(table: Table, other: str) -> bool:
    """Whether the runs differ in more than a map can show: other data, models or judges stand for more than a size."""
    return not table.comparable or any(name.startswith(_OTHER_DATA) for name in table.settings if name != other)
