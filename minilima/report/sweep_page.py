"""The HTML report of several finished runs: which is best, which differ significantly, what each cost, and pictures.

run.json of each run ─> runs.py ─> compare.py ─> one HTML file, and a folder of the same pictures as SVG and PNG
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minilima.formats.files import write_atomic
from minilima.report.beside import answers_beside
from minilima.report.compare import (
    Against,
    ComparedRun,
    Table,
    benchmarks_of,
    change_on,
    choose,
    every_pair,
    label,
    label_of_group,
    notes,
    others_of,
    tabulate,
    unlike,
    value,
)
from minilima.report.figures import draw_all
from minilima.report.over_seeds import notes_on_seeds
from minilima.report.render import interval, render
from minilima.report.runs import Cost, FinishedRun, FinishedRuns, read_points
from minilima.report.series import natural

MOST_CHOICES = 30
"""Points up to which the page can compare with each of them: every pair takes a bootstrap of its own."""


def write_sweep_report(folders: Sequence[Path], path: Path, against: str | None = None, command: str = "") -> Path:
    """Writes the report of the runs in these folders; runs without verdicts are excluded, and the report says so.

    Args:
        folders: runs' folders, or folders that hold some.
        path: the HTML file; the pictures come into a folder beside it.
        against: the point with which all others are compared, None = the best one.
        command: what makes the page again; the page shows it.

    Returns:
        `path`.

    Raises:
        MinilimaError: none of the runs can be read, or no point has that name.
    """
    runs = read_points(folders)
    return write_points(runs, path, choose(against, runs.points), command)


def pictures_folder(path: Path) -> Path:
    """Where the pictures of the report at `path` are."""
    return path.with_name(f"{path.stem}_pictures")


def write_points(runs: FinishedRuns, path: Path, chosen: FinishedRun | None = None, command: str = "") -> Path:
    """As `write_sweep_report`, for points that were read before."""
    table = tabulate(runs.points, chosen)
    if chosen is None and len(table.rows) > 1 and table.rows[0].best:
        table = tabulate(runs.points, table.rows[0].point)
    best = table.rows[0] if table.rows[0].best else None
    against = next((row for row in table.rows if any(other.against for other in table.rows) and row.against is None), None)
    rows = [_row(row, table, path.parent) for row in table.rows]
    choices = _choices(table, against) if against and 2 < len(table.rows) <= MOST_CHOICES else None
    beside = answers_beside([row.point for row in table.rows], [row["label"] for row in rows], against.point if against else None)
    page = render(
        "sweep.html.j2",
        scripts=("table.js", "against.js", "texts.js", "beside.js"),
        data={"choices": choices, "beside": beside} if choices or beside else None,
        beside=beside,
        axes=[(name, _values(name, table)) for name in table.settings],
        command=command,
        names=sorted({row.point.name.rpartition("-")[0] or row.point.name for row in table.rows}),
        table=table,
        rows=rows,
        best=_named(best, table),
        against=_named(against, table),
        apart=sum(row.against is not None and _is_apart(row) for row in table.rows),
        total=_total(table),
        pictures=draw_all(table, pictures_folder(path)),
        pictures_folder=pictures_folder(path).name,
        judges=sorted({(_judge(row.point), row.point.worth) for row in table.rows if row.point.worth}),
        skipped=runs.skipped,
        unlike=None if table.comparable else unlike(table),
        notes=notes(table, "“best” has the highest win rate", "“front”: no other run"),
        benchmarks=benchmarks_of(table),
        others=others_of(table),
        groups=[{"group": group, "label": label_of_group(group, table)} for group in table.groups],
        notes_on_seeds=notes_on_seeds(table.groups),
        length_controlled=any(row["length_controlled"] is not None for row in rows),
    )
    write_atomic(path, page)
    return path


def _judge(point: FinishedRun) -> str:
    """The judge's kind, and its model where it has one."""
    kind, model = (point.settings.get(f"judge.{name}") for name in ("kind", "model"))
    return f"{kind}, {model}" if model else str(kind)


def _values(name: str, table: Table) -> list[str]:
    """The values that a setting has among the runs."""
    return sorted({value(row.point, name) for row in table.rows}, key=natural)


def _named(row: ComparedRun | None, table: Table) -> dict[str, Any] | None:
    return {"row": row, "label": label(row.point, table.naming)} if row else None


def _choices(table: Table, against: ComparedRun) -> dict[str, Any]:
    """For each point with which others can be compared, the cells of the table: page/against.js shows them."""
    points = [row.point for row in table.rows]
    cells = [[[_cell(item) for item in column] for column in every_pair(points, name)] for name in ("", *others_of(table))]
    return {
        "labels": [label(point, table.naming) for point in points],
        "chosen": table.rows.index(against),
        # For each judge and set, the run's own first: for each chosen point a cell for each row.
        "columns": cells,
    }


def _cell(item: Against | None) -> dict[str, Any] | None:
    if item is None or item.paired is None:
        return {"note": item.note} if item else None
    paired = item.paired
    detectable = paired.minimum_detectable if paired.prompts > 1 else None
    tests = {"p": paired.p_holm, "mcnemar": paired.p_mcnemar, "detectable": detectable, "prompts": paired.prompts}
    return {"value": paired.difference.value, "bounds": paired.difference.bounds("+.1f"), **tests}


def _is_apart(row: ComparedRun) -> bool:
    paired = row.against.paired if row.against else None
    return paired is not None and paired.p_holm is not None and paired.p_holm < 0.05


def _total(table: Table) -> Cost:
    """What all points took together: what they share was done once."""
    costs = {entry: cost for row in table.rows for entry, cost in row.point.costs.items()}
    return sum(costs.values(), start=Cost())


def _row(row: ComparedRun, table: Table, beside: Path) -> dict[str, Any]:
    point, paired = row.point, row.against.paired if row.against else None
    rate = point.results.win_rate
    page = point.folder / "report.html"
    return {
        "row": row,
        "point": point,
        "label": label(point, table.naming),
        "settings": [{"text": value(point, name), "value": _sortable(point.settings.get(name))} for name in table.settings],
        "rate": rate,
        "bar": interval(rate.win_rate, 0, 100, 50) if rate else None,
        "length_controlled": point.length_controlled,
        "loss": point.results.loss_change,
        "benchmarks": [change_on(point, task) for task in benchmarks_of(table)],
        "paired": paired,
        "apart": _is_apart(row),
        "others": [_other(row, name) for name in others_of(table)],
        "link": os.path.relpath(page, beside.resolve()) if page.is_file() else None,
    }


def _other(row: ComparedRun, name: str) -> dict[str, Any]:
    """The cells of a further judge or set."""
    judged, against = row.point.judgments(name), row.others.get(name)
    rate = judged.rate if judged else None
    bar = interval(rate, 0, 100, 50) if rate else None
    return {"rate": rate, "bar": bar, "paired": against.paired if against else None, "note": against.note if against else ""}


def _sortable(value: object) -> str:
    """Numbers sort as numbers in the page's script."""
    return repr(float(value)) if isinstance(value, int | float) else str(value)
