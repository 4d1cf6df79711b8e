"""The report of a sweep: one page, pictures as files, and no run that stopped early stands in the way."""

import html
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from minilima.__main__ import main
from minilima.errors import MinilimaError
from minilima.report.beside import MOST_RUNS, answers_beside
from minilima.report.compare import tabulate
from minilima.report.figures import CURVE_POINTS, _axes, _legend, smoothed, style
from minilima.report.runs import Cost, read_points, stage_cost
from minilima.report.series import COLOURS, Series, series
from minilima.report.sweep_page import write_points, write_sweep_report
from tests.report.runs import finished_run, plain_prompts

SIZES, RATES = (10, 30), ("1e-5", "1e-4")
PICTURES = {"win_rate_by_size", "win_rate_map", "training_loss", "win_rate_by_length"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs that reached their verdicts, and one that was stopped before."""
    folder = tmp_path_factory.mktemp("sweep")
    for size in SIZES:
        for rate in RATES:
            skill = 0.4 + size / 100 + (0.2 if rate == "1e-4" else 0)
            finished_run(folder, plain_prompts(40, skill), f"dataset.size={size}", f"sft.learning_rate={rate}")
    finished_run(folder, plain_prompts(40), "dataset.size=10", "until=model")
    return folder


@pytest.fixture(scope="module")
def page(outputs: Path) -> str:
    return write_sweep_report([outputs / "runs"], outputs / "with spaces" / "sweep.html").read_text()


def test_the_page_shows_every_run_with_the_best_first_and_names_what_was_left_out(page: str) -> None:
    rows = re.findall(r'<td data-value="(quickstart-\w+)">', page)
    assert len(rows) == len(set(rows)) == 4
    assert "size 30, learning rate 0.0001" in page and page.count('<span class="tag won">best</span>') == 1
    assert "1 run was excluded" in page and "has no verdicts" in page
    assert "of 3 <small>other runs significantly different" in page
    assert page.count("What the judge reference is worth") == 1 and "does not stand for people" in html.unescape(page)


def test_the_page_says_what_differs_which_command_makes_it_and_whose_answers_it_holds(
    outputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                "compare",
                str(outputs / "runs"),
                "--html",
                str(tmp_path / "s.html"),
                "--against",
                "dataset.size=30,sft.learning_rate=1e-5",
            ]
        )
        == 0
    )
    page = html.unescape((tmp_path / "s.html").read_text())
    assert "<code>dataset.size</code></td><td>10, 30</td>" in page and "<td>1e-05, 0.0001</td>" in page
    assert f"minilima compare {outputs / 'runs'} --html {tmp_path / 's.html'} --against dataset.size=30" in page
    assert capfd.readouterr().err


def test_answers_stand_beside_each_other_with_what_they_were_compared_with(outputs: Path) -> None:
    points = read_points([outputs / "runs"]).points
    labels = [point.name for point in points]
    shown = answers_beside(points, labels, None)
    assert shown is not None and shown["labels"] == labels and shown["left_out"] == 0 and len(shown["rows"]) == 40
    first = shown["rows"][0]
    assert first["base"]["text"].endswith("base 0") and all(run["text"].endswith("tuned 0") for run in first["runs"])
    assert {run["outcome"] for row in shown["rows"] for run in row["runs"]} == {"won", "lost"}
    assert answers_beside(points[:1], labels[:1], None) is None, "nothing stands beside a single run"


def test_a_page_of_many_runs_holds_the_answers_of_a_few_the_compared_one_among_them(outputs: Path) -> None:
    points = read_points([outputs / "runs"]).points
    many = [points[number % 3] for number in range(MOST_RUNS + 2)] + [points[3]]
    shown = answers_beside(many, [str(number) for number in range(len(many))], points[3])
    assert shown is not None and shown["labels"] == ["0", "1", "2", "3", "4", str(len(many) - 1)] and shown["left_out"] == 3


def test_the_pictures_are_in_the_page_and_beside_it_as_svg_and_png(outputs: Path, page: str) -> None:
    folder = outputs / "with spaces" / "sweep_pictures"
    assert {file.name for file in folder.iterdir()} == {f"{name}.{kind}" for name in PICTURES for kind in ("svg", "png")}
    for name in PICTURES:
        assert f'id="picture-{name}"' in page
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    drawn = (folder / "win_rate_by_size.svg").read_text()
    assert "examples in the data set" in drawn and "learning rate 1e-05" in drawn, "text must stay text"
    assert "<image" not in drawn and "<image" not in (folder / "win_rate_map.svg").read_text()


def test_every_mark_tells_its_run_and_no_two_elements_share_an_id(page: str) -> None:
    assert re.search(r'<g id="win_rate_by_size-point-0"><title>size 30, learning rate 0.0001: [\d.]+ % \(', page)
    identities = re.findall(r'\bid="([^"]+)"', page)
    assert len(identities) == len(set(identities))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(identities)


def test_the_page_asks_nothing_of_the_network(page: str) -> None:
    assert not re.search(r"https?://|@import|url\((?!#)|\bsrc=", page)
    assert "default-src 'none'" in html.unescape(page)


def test_stages_that_runs_share_are_counted_once(outputs: Path) -> None:
    points = read_points([outputs / "runs"]).points
    entries = {name for point in points for name in point.costs}
    # Of the nine stages, base, pool and the base model's answers and benchmark are shared by all, and each data set by two.
    assert len(entries) == 4 + len(SIZES) + 4 * len(points)
    assert Cost(tokens=1, usd=1.0) + Cost(tokens=2, usd=None) == Cost(tokens=3, usd=None)


def test_what_ran_here_costs_nothing_and_what_has_no_price_is_not_known() -> None:
    def usd(stage: str, recipe: dict[str, object], calls: int = 9, price: float | None = None) -> float | None:
        usage = {"calls": calls, "prompt_tokens": 1, "completion_tokens": 1, "usd": price}
        return stage_cost({"stage": stage, "recipe": recipe, "usage": usage, "seconds": 1.0}).usd

    assert usd("pool", {"model": {"kind": "embedded"}}) == usd("answers", {}) == usd("model", {}, calls=0) == 0.0
    assert usd("pool", {"model": "gpt-4o"}) is None and usd("verdicts", {"model": None}) is None
    assert usd("pool", {"model": "gpt-4o"}, price=1.5) == usd("answers", {}, price=1.5) == 1.5


def test_many_settings_are_drawn_in_no_more_colours_than_there_are(outputs: Path) -> None:
    points = read_points([outputs / "runs"]).points
    many = [
        type(point)(**{**vars(point), "name": f"p{number}", "settings": {"dataset.size": 1, "a": number, "b": number % 2}})
        for number, point in enumerate(points * 3)
    ]
    found = series(tabulate(many))
    assert [of.label for of in found] == ["b 0", "b 1"] and len(found) <= len(COLOURS)
    assert sum(len(of.rows) for of in found) == 12


def test_hostile_settings_are_drawn_and_shown_as_text(outputs: Path, tmp_path: Path) -> None:
    hostile = "$\\frac{<script>alert(1)</script>\u202e\x1b[31m 模型"
    found = read_points([outputs / "runs"])
    points = [
        replace(point, settings={**point.settings, "model.path": value})
        for point, value in zip(found.points, (hostile, "/a", hostile, "/a"), strict=True)
    ]
    page = write_points(replace(found, points=tuple(points)), tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)" in page and not re.search(r"<script>alert|\x1b|\u202e", page)
    drawn = (tmp_path / "page_pictures" / "training_loss.svg").read_text()
    assert "$\\frac{&lt;script&gt;alert(1)&lt;/script&gt;⟨U+202E⟩␛[31m" in drawn and "模型" in drawn


def test_a_long_training_is_drawn_with_few_points_about_its_mean() -> None:
    steps, losses = smoothed([(step, 1.0 + step % 2) for step in range(1, 2001)])
    assert len(steps) == CURVE_POINTS and (steps[0], steps[-1]) == (1, 2000)
    assert all(1.4 < loss < 1.6 for loss in losses[5:-5])
    assert smoothed([(1, 3.0)]) == ([1], [3.0])


def test_the_figures_are_those_that_the_run_told_and_computed_anew_where_it_told_others(outputs: Path) -> None:
    before = read_points([outputs / "runs"]).points[0]
    file = before.folder / "run.json"
    original = file.read_text()
    told = json.loads(original)
    try:
        told["results"]["win_rate"]["wins"] = 1000
        file.write_text(json.dumps(told))
        rate = read_points([before.folder]).points[0].results.win_rate
        assert rate and rate.wins == 1000
        told["results"]["win_rate"]["a figure of another version"] = 1
        file.write_text(json.dumps(told))
        rate = read_points([before.folder]).points[0].results.win_rate
        assert rate and rate.wins == 1000
        del told["results"]["win_rate"]["standard_error"]
        told["results"]["length_controlled"] = {"value": 61.5, "interval": None, "weights": None, "how": "minimal"}
        file.write_text(json.dumps(told))
        point = read_points([before.folder]).points[0]
        assert point.results.win_rate == before.results.win_rate
        assert point.length_controlled == (61.5, None)
    finally:
        file.write_text(original)


def test_the_command_compares_what_is_finished_and_says_what_it_left_out(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(outputs / "runs"), "--format", "json", "--html", str(tmp_path / "new" / "page.html")]) == 0
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)["points"]) == 4, "standard output must hold the JSON and nothing else"
    assert "Excluded: quickstart-" in printed.err and "page_pictures" in printed.err
    assert (tmp_path / "new" / "page.html").is_file()


def test_points_of_a_sweep_that_failed_are_named_with_their_cause(outputs: Path, tmp_path: Path) -> None:
    runs = sorted(point.folder for point in read_points([outputs / "runs"]).points)
    points: list[dict[str, object]] = [{"run": str(run), "status": "done", "axes": {}, "cause": None} for run in runs]
    failed = {"run": "gone", "status": "failed", "axes": {"dataset.size": "300"}, "cause": "The disk is full."}
    (tmp_path / "sweep.json").write_text(json.dumps({"points": [*points, failed]}))
    found = read_points([tmp_path])
    assert len(found.points) == 4 and found.skipped == ("dataset.size=300: failed. The disk is full.",)


def test_runs_that_all_stopped_early_are_refused(tmp_path: Path) -> None:
    finished_run(tmp_path, plain_prompts(3), "until=dataset")
    with pytest.raises(MinilimaError, match=r"None of these runs can be compared.*no verdicts"):
        read_points([tmp_path / "runs"])


def test_nothing_is_drawn_with_before_a_picture_is_wanted() -> None:
    pages = "minilima.report.sweep_page, minilima.report.run_page"
    code = f"import sys, {pages}, minilima.cli.compare, minilima.pipeline; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_the_same_judge_on_another_set_is_the_same_judge_and_unlike_data_has_no_map(tmp_path: Path) -> None:
    first = finished_run(tmp_path, plain_prompts(20), "dataset.size=10", "eval_set.size=20", "sft.epochs=1").folder
    second = finished_run(tmp_path, plain_prompts(30), "dataset.size=30", "eval_set.size=30", "sft.epochs=2").folder
    runs = read_points([first, second])
    one, two = (point.yardstick for point in runs.points)
    assert one["judge"] == two["judge"] and one["evaluation prompts"] != two["evaluation prompts"]
    page = write_points(runs, tmp_path / "unlike.html").read_text()
    assert 'id="picture-win_rate_by_size"' in page and "win_rate_map" not in page
    assert '<p class="card">The points differ in evaluation prompts, so none is called best.</p>' in page


def test_a_legend_is_never_wider_than_its_picture() -> None:
    groups = [
        Series(
            label=f"eval set minilima_100, judge reference_{number}, data self_instruct", colour="#0072b2", marker="o", rows=()
        )
        for number in range(3)
    ]
    with style():
        figure, axes = _axes("x", "y")
        _legend(figure, axes, groups)
        figure.canvas.draw()
        right = max(legend.get_window_extent().x1 for legend in figure.legends)
    assert right <= figure.bbox.x1
