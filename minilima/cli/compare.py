"""The verb `compare`: finished runs beside each other, as a table, a page or data for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING

from minilima import console
from minilima.cli.options import Parser, plain_line

if TYPE_CHECKING:
    import argparse

_FORMATS = ("table", "markdown", "csv", "json")


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "compare",
        summary="show finished runs beside each other, with their intervals",
        description="Compares finished runs: win rates with intervals, paired differences, several seeds together, costs.",
        examples=("compare outputs/runs", "compare outputs/runs --html sweep.html"),
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a run, or a folder that holds runs")
    parser.add_argument("--against", metavar="POINT", help="the run that all others are compared with: its name or settings")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with figures too, and those as SVG and PNG files")
    parser.add_argument(
        "--format", choices=_FORMATS, default="table", metavar="|".join(_FORMATS), help="what is printed (default: table)"
    )
    parser.set_defaults(handler=handle)


def handle(*, folders: list[Path], against: str | None, html: Path | None, format: str) -> int:
    """Compares the runs in the folders.

    Raises:
        MinilimaError: a folder is not a finished run, or `against` names none of them.
    """
    from minilima.cli.compare_table import FORMATS, show
    from minilima.report.compare import choose, tabulate
    from minilima.report.runs import read_points

    points = read_points(folders)
    for reason in points.skipped:
        console.warn(f"Excluded: {reason}")
    chosen = choose(against, points.points)
    table = tabulate(points.points, chosen)
    if html is not None:
        from minilima.report.sweep_page import pictures_folder, write_points

        asked = [*map(str, folders), "--html", str(html), *(["--against", against] if against else [])]
        write_points(points, html, chosen, plain_line("compare", *asked))
        console.warn(f"Wrote {html}, with its figures in {pictures_folder(html)}.")
    if format == "table":
        show(table)
    else:
        console.say_raw(FORMATS[format](table))
    return 0
