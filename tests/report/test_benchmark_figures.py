"""What alignment cost, in every place that shows a run: its end, run.json, report, comparison, sweep page, W&B."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from minilima.cli.compare_table import FORMATS, _alignment_cost
from minilima.evaluate.significance import mcnemar
from minilima.report import wandb_record
from minilima.report.compare import change_on, notes, tabulate
from minilima.report.compare_records import records
from minilima.report.headlines import headlines
from minilima.report.runs import read_points
from minilima.report.summary import Summary
from minilima.report.sweep_page import write_sweep_report
from tests.report.runs import finished_run, plain_prompts

SET = "minilima_verifiable"
# tests/report/runs.py: the base model has items 0 to 5 of 20, the tuned one 2 to 11: 6 gained, 2 lost.
P = mcnemar(6, 2)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def summary(outputs: Path) -> Summary:
    finished_run(outputs, plain_prompts(8), "seed=1", "benchmarks=[]")
    return finished_run(outputs, plain_prompts(8))


def test_a_run_ends_with_the_accuracy_of_both_models_and_the_paired_change(summary: Summary) -> None:
    text = dict(headlines(summary))[SET]
    assert text.startswith("+20.0 points, 95 % interval ")
    assert text.endswith(f"(30.0 % to 50.0 % strict, 20 items; 6 gained, 2 lost, p = {P:.4f}; no judge)")


def test_run_json_holds_what_is_read_back(summary: Summary) -> None:
    written = json.loads((summary.folder / "run.json").read_text())["benchmarks"]
    assert [(change["figure"], change["main"]) for change in written] == [("strict", True), ("loose", False)]
    points = {point.name: point for point in read_points([summary.folder.parent]).points}
    assert points[summary.folder.name].benchmarks == summary.benchmarks
    assert [point.benchmarks for name, point in points.items() if name != summary.folder.name] == [()]
    plain = json.loads(
        next(file for file in summary.folder.parent.glob("*/run.json") if file.parent != summary.folder).read_text()
    )
    assert "benchmarks" not in plain, "a run without benchmarks writes what it always wrote"


def test_the_report_has_a_table_with_a_row_for_each_figure(summary: Summary) -> None:
    page = (summary.folder / "report.html").read_text()
    section = re.search(r'id="benchmarks">What alignment cost<.*?</section>', page, re.DOTALL)
    assert section is not None
    rows = re.findall(r"<tr>(.*?)</tr>", section[0], re.DOTALL)[1:]
    cells = [[re.sub(r"<[^>]*>", "", cell).split(" ")[0] for cell in re.findall(r"<td.*?>(.*?)</td>", row)] for row in rows]
    assert [row[:6] for row in cells] == [
        [SET, "strict", "20", "30.0", "50.0", "+20.0"],
        ["", "loose", "20", "35.0", "55.0", "+20.0"],
    ]
    assert cells[0][-4:] == ["6", "2", f"{P:.4f}", f"{P:.4f}"]


def test_a_comparison_and_a_sweep_have_a_column_for_each_benchmark(summary: Summary, tmp_path: Path) -> None:
    points = read_points([summary.folder.parent]).points
    table = tabulate(points)
    found = {row["point"]: row for row in records(table)}
    scored = found[summary.folder.name]
    assert (scored[SET], scored[f"{SET}_base"], scored[f"{SET}_change"]) == (50.0, 30.0, pytest.approx(20.0))
    assert scored[f"{SET}_p_mcnemar"] == P
    (other,) = [row for name, row in found.items() if name != summary.folder.name]
    assert other[SET] is None and other[f"{SET}_change"] is None
    assert any("Benchmarks: change from base to tuned" in note for note in notes(table))
    assert "+20.0 (" in FORMATS["markdown"](table) and "not run" in FORMATS["markdown"](table)
    assert {row[SET] for row in csv.DictReader(io.StringIO(FORMATS["csv"](table)))} == {"50.0", ""}
    page = write_sweep_report([summary.folder.parent], tmp_path / "sweep.html").read_text()
    assert f"<button>{SET}, change in points</button>" in page and "+20.0 <small" in page and "not run" in page
    assert "What alignment cost</h2>" in page and f'<td class="number">{P:.4f}</td>' in page
    assert sorted(_alignment_cost(table, [SET]), key=lambda line: line[2])[0][2:4] == ["30.0", "50.0"]
    assert change_on(points[0], "no such benchmark") is None


def test_wandb_shows_the_same_table(summary: Summary) -> None:
    written = json.loads((summary.folder / "run.json").read_text())["benchmarks"]
    table = wandb_record._benchmarks(written)
    assert table.columns[:6] == ["benchmark", "figure", "items", "base", "tuned", "change"]
    assert [row[:3] for row in table.data] == [[SET, "strict", 20], [SET, "loose", 20]]
    assert [row[3:6] for row in table.data] == [pytest.approx([30, 50, 20]), pytest.approx([35, 55, 20])]
    assert table.data[0][-4:] == [6, 2, P, P] and table.data[1][-1] is None
