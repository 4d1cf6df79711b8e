"""The report of a run: one file that asks nothing of the network, shows hostile text as text, and says what is not known."""

import html
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from minilima.formats.records import Verdict
from minilima.report import svg_charts
from minilima.report.render import embed, legible
from minilima.report.run_folder import Summary
from minilima.report.verbs import verb_and_noun
from minilima.report.verdicts import is_flipped
from tests.report.runs import finished_run, plain_prompts

HOSTILE = "<script>alert(1)</script> \x1b[31m <img src=x onerror=alert(2)> {{ 7 * 7 }} \u202e end \ud800 </SCRIPT><!-- "


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    prompt = {"instruction": f"A {HOSTILE}", "tuned": f"T {HOSTILE}", "base": f"B {HOSTILE}", "category": HOSTILE}
    return finished_run(tmp_path_factory.mktemp("hostile"), [{**prompt, "preference": 2.0, "explanation": HOSTILE}])


@pytest.fixture(scope="module")
def page(summary: Summary) -> str:
    return (summary.folder / "report.html").read_text(encoding="utf-8")


def test_what_models_wrote_is_shown_as_text(page: str) -> None:
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"<script>alert|<img|\x1b|\u202e|{{", page.replace("{{ 7 * 7 }}", ""))
    assert "⟨U+202E⟩" in page and "␛[31m" in page
    # One script of ours, one block of data; nothing that was written closes either of them.
    assert re.findall(r"<(/?script[^>]*)>", page, re.IGNORECASE) == [
        "script", "/script", 'script type="application/json" id="rows"', "/script",
    ]  # fmt: skip


def test_the_data_block_gives_back_what_was_written_but_for_what_is_invisible(page: str) -> None:
    block = re.search(r'id="rows">(.*?)</script>', page, re.DOTALL)
    assert block is not None
    [row] = json.loads(block[1])
    assert row["tuned"]["text"] == f"T {legible(HOSTILE)}" and row["words"] == legible(HOSTILE)
    assert "\ufffd </SCRIPT><!-- " in row["tuned"]["text"]
    assert row["outcome"] == "won" and not row["flipped"]


def test_a_run_against_another_names_it_and_is_compared_with_it_in_pairs(tmp_path: Path) -> None:
    first = finished_run(tmp_path, plain_prompts(20), "eval_set.size=20")
    second = finished_run(
        tmp_path, plain_prompts(20, 0.9), "eval_set.size=20", "dataset.size=8", f"eval.reference={first.folder}"
    )
    assert second.results is not None and (paired := second.results.paired) is not None
    assert paired.first_better + paired.second_better == 20 and paired.p_mcnemar < 0.05
    assert second.results.loss_against is not None and second.results.loss_against.change.value == 0, "both have the same losses"
    page = (second.folder / "report.html").read_text(encoding="utf-8")
    assert f'data-other="{first.folder.name}"' in page and f"answers better than {first.folder.name}" in page
    assert "exact sign test over 20 prompts" in page and f"From {first.folder.name} to this model:" in page
    told = " ".join(second.headlines())
    assert f"against the answers in {first.folder.name}" in told and "Against 50 %: +" in told
    against_base = (first.folder / "report.html").read_text(encoding="utf-8")
    assert 'data-other="base"' in against_base and "to this model:" not in against_base


def test_no_character_can_end_a_data_block() -> None:
    everything = "".join(map(chr, (*range(0x300), *range(0x2000, 0x2100), 0xD800, 0xDFFF, 0xFEFF, 0x1F600)))
    block = str(embed({everything: [everything, None, 1.5, True]}))
    assert not set(block) & set("<>&") and block.isascii() and block.isprintable()
    assert json.loads(block) == {legible(everything): [legible(everything), None, 1.5, True]}


def test_the_report_needs_nothing_from_elsewhere(page: str) -> None:
    ours = page.partition('id="rows"')[0].replace("&lt;img src=x", "")
    assert not re.search(r"""(src|href)\s*=\s*(?!["']#)""", ours)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "default-src 'none'" in html.unescape(page)


def test_the_figures_of_the_run_stand_in_the_report(page: str) -> None:
    assert "100.0 %" in page and "-1.000" in page
    assert "1 won, 0 lost, 0 tied" in page
    assert "<strong>64 were wanted</strong>" not in page and "64 examples" in page
    assert "has no card" in page


def test_the_end_of_a_run_states_figures_and_what_the_judge_is_worth(summary: Summary) -> None:
    lines = "\n".join(summary.headlines())
    assert "100.0 %, 95 % interval" in lines
    assert "change -1.000" in lines
    assert "does not stand for people's preferences" in lines
    assert str(summary.folder / "report.html") in lines
    assert summary.score == 100.0


def test_half_a_character_in_an_answer_is_kept_in_the_files_beside_the_report(summary: Summary) -> None:
    [row] = json.loads((summary.folder / "annotations.json").read_text(encoding="utf-8"))
    assert row["output_2"] == f"T {HOSTILE}"


def test_without_enough_verdicts_there_is_no_win_rate_and_that_is_said(tmp_path: Path) -> None:
    prompt = {"instruction": "Why?", "tuned": "Hm.", "base": "Well.", "preference": None, "explanation": "Hm."}
    summary = finished_run(tmp_path, [prompt])
    told = json.loads((summary.folder / "run.json").read_text())["results"]
    assert told["win_rate"] is None and told["coverage"] == {"judged": 0, "prompts": 1, "minimum": 0.9}
    assert summary.score is None
    for text in ("\n".join(summary.headlines()), (summary.folder / "report.html").read_text()):
        assert "No win rate: 0 of 1 prompts judged (0.0%, less than judge.min_coverage=0.9)" in text


@pytest.mark.parametrize(
    ("last", "parts"),
    [("pool", {"settings"}), ("dataset", {"data"}), ("model", {"data", "training"}), ("answers", {"data", "training"})],
)
def test_a_run_that_stops_early_reports_what_there_is(tmp_path: Path, last: str, parts: set[str]) -> None:
    page = (finished_run(tmp_path, plain_prompts(3), f"until={last}").folder / "report.html").read_text()
    found = set(re.findall(r'id="(judge|data|training|answers|rows|settings)"', page))
    assert found == parts | {"settings"}


def test_a_histogram_counts_every_value_once_and_puts_what_lies_far_out_into_its_last_column() -> None:
    chart = svg_charts.histogram([0, 1, 1, 5, 40], "words")
    counts = [int(column["title"].rpartition(": ")[2]) for column in chart["columns"]]
    assert sum(counts) == 5 and (chart["median"], chart["largest"]) == (1, 40)
    far = svg_charts.histogram([*range(100), 9000], "words")
    assert len(far["columns"]) <= svg_charts.MOST_BINS and "or more" in far["columns"][-1]["title"]
    assert svg_charts.histogram([], "words")["columns"]


def test_likeness_is_counted_apart_for_what_was_accepted_and_what_was_not() -> None:
    chart = svg_charts.likeness([0.0, 0.31, 0.3], [0.9, 1.0], limit=0.7)
    told = {column["title"] for column in chart["columns"]}
    assert {"0.30 to 0.35: 2 accepted, 0 left out", "0.95 to 1.00: 0 accepted, 1 left out"} <= told
    assert chart["mark"]["label"] == "limit 0.7"


def test_columns_stay_within_their_frame() -> None:
    chart = svg_charts.yields([{"round": number, "candidates": 10 * number + 1, "accepted": 5} for number in range(40)])
    assert len(chart["x_ticks"]) <= svg_charts.MOST_LABELS
    for column in chart["columns"]:
        assert chart["left"] <= column["x"] and column["x"] + column["width"] <= chart["right"] + 0.1
        assert all(chart["top"] - 0.1 <= part["y"] <= chart["floor"] for part in column["parts"])


def test_a_line_chart_stays_within_its_frame_and_a_flat_line_can_be_drawn() -> None:
    chart = svg_charts.line_chart([1, 2, 3], [2.5, 9.25, 0.5])
    assert all(0 <= point["x"] <= chart["width"] and 0 <= point["y"] <= chart["floor"] for point in chart["points"])
    labels = [float(tick["label"]) for tick in chart["y_ticks"]]
    assert labels[0] <= 0.5 and labels[-1] >= 9.25
    assert len(svg_charts.line_chart([1], [2.0])["points"]) == 1


def test_bars_beyond_the_most_frequent_are_put_together() -> None:
    shown = svg_charts.bars({str(number): number for number in range(1, 21)}, most=3)
    assert [(bar["name"], bar["count"]) for bar in shown] == [("20", 20), ("19", 19), ("18", 18), ("17 others", 153)]


@pytest.mark.parametrize(
    ("instruction", "found"),
    [
        ("Write a new short poem about rain", ("write", "poem")),
        ("You are a teacher. Please explain the phases of the moon.", ("explain", "phases")),
        ("Solve 3x² − 12x + 7 = 0 by completing the square.", ("solve", "square")),
        ("Which gas makes up most of the air?", None),
        ("Schreibe ein Gedicht.", None),
        ("Why?", None),
    ],
)
def test_the_verb_of_an_instruction_and_what_it_is_about_are_found(instruction: str, found: tuple[str, str] | None) -> None:
    assert verb_and_noun(instruction) == found


def test_the_rings_of_the_sunburst_hold_all_verbs_and_their_nouns() -> None:
    arcs = svg_charts.sunburst(Counter({("write", "poem"): 3, ("write", "song"): 1, ("explain", "moon"): 1}))
    assert [(arc["label"], arc["count"]) for arc in arcs] == [("write", 4), ("poem", 3), ("song", 1), ("explain", 1), ("moon", 1)]
    assert arcs[0]["path"].count("A") == 2
    assert svg_charts.sunburst(Counter()) == []


def test_a_verdict_is_flipped_where_the_orders_led_to_different_winners() -> None:
    told = {(1.0, 2.0): True, (2.0, 2.0): False, (1.2, 1.4): False, (1.5, 2.0): True, (1.5, 1.5): False, (): False}
    assert {orders: is_flipped(Verdict(id="1", orders=orders)) for orders in told} == told
