"""The report of a run: one file that asks nothing of the network, shows hostile text as text, and says what is not known."""

import html
import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from minilima.config.compose import load_config, to_dict
from minilima.config.schema import Config
from minilima.formats.records import Verdict
from minilima.report.headlines import headlines
from minilima.report.origin import origin
from minilima.report.render import embed, legible
from minilima.report.run_figures import (
    BASE,
    MOST_BINS,
    VERBS_SHOWN,
    Bar,
    Chart,
    counts,
    histogram,
    loss_curve,
    rings,
    similarity,
    similarity_bins,
    yields,
)
from minilima.report.summary import Summary
from minilima.report.verbs import verb_and_noun
from minilima.report.verdicts import is_flipped
from minilima.store.job import Outcome
from tests.report import runs
from tests.report.runs import Prompt, finished_run, plain_prompts

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
    told = dict(headlines(second))
    assert f"against the answers in {first.folder.name}" in told["Win rate"] and told["Against 50 %"].startswith("+")
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
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    assert "default-src 'none'" in html.unescape(page)


def test_the_figures_of_the_run_stand_in_the_report(page: str) -> None:
    assert "100.0 %" in page and "-1.000" in page
    assert "1 won, 0 lost, 0 tied" in page
    assert "<strong>64 were wanted</strong>" not in page and "64 examples" in page
    assert "not measured" in page


def test_the_end_of_a_run_states_figures_and_what_the_judge_is_worth(summary: Summary) -> None:
    names = [name for name, _ in headlines(summary) if name]
    assert names == ["Win rate", "Against 50 %", "Length control", "Loss change", "minilima_verifiable", "Judge", "Report"]
    lines = "\n".join(map(" ".join, headlines(summary)))
    assert "Win rate 100.0 %, 95 % interval" in lines
    assert "Loss change -1.000" in lines
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
    for text in (" ".join(map(" ".join, headlines(summary))), (summary.folder / "report.html").read_text()):
        assert "No win rate: 0 of 1 prompts judged (0.0%, less than judge.min_coverage=0.9)" in text


@pytest.mark.parametrize(
    ("last", "parts"),
    [("pool", {"settings"}), ("dataset", {"data"}), ("model", {"data", "training"}), ("answers", {"data", "training"})],
)
def test_a_run_that_stops_early_reports_what_there_is(tmp_path: Path, last: str, parts: set[str]) -> None:
    page = (finished_run(tmp_path, plain_prompts(3), f"until={last}").folder / "report.html").read_text()
    found = set(re.findall(r'id="(judge|data|training|answers|rows|settings)"', page))
    assert found == parts | {"settings"}


def in_frame(chart: Chart, bars: Sequence[Bar]) -> bool:
    """Each of these bars is drawn, and within the picture."""
    drawn = str(chart.markup)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)
    assert box is not None
    width, height = float(box[1]), float(box[2])
    for bar in bars:
        path = re.search(
            rf'<title>{re.escape(html.escape(bar.title))}</title>.*?(?: d="([^"]+)"|<use [^>]*x="([\d.]+)" y="([\d.]+)")',
            drawn,
            re.S,
        )
        assert path is not None, bar.title
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", path[1])] if path[1] else [float(path[2]), float(path[3])]
        if not all(-0.1 <= x <= width + 0.1 for x in numbers[::2]) or not all(-0.1 <= y <= height + 0.1 for y in numbers[1::2]):
            return False
    return True


def test_a_histogram_counts_every_value_once_and_puts_what_lies_far_out_into_its_last_column() -> None:
    chart = histogram([0, 1, 1, 5, 40], "words", name="a", of="it")
    assert sum(int(bar.title.rpartition(": ")[2]) for bar in chart.bars) == sum(bar.parts[0] for bar in chart.bars) == 5
    assert chart.label.endswith("median 1, largest 40") and "median 1<" in str(chart.markup)
    far = histogram([*range(100), 9000], "words", name="a", of="it")
    assert sum(bar.parts[0] for bar in far.bars) == 101
    assert len(far.bars) <= MOST_BINS and "or more" in far.bars[-1].title
    assert in_frame(far, far.bars)
    assert histogram([], "words", name="a", of="it").bars
    for largest in (0, 1, 19, 20, 21, 99, 100, 101, 4999):
        bars = histogram(range(largest + 1), "words", name="a", of="it").bars
        assert len(bars) <= MOST_BINS and sum(bar.parts[0] for bar in bars) == largest + 1


def test_similarity_is_counted_apart_for_what_was_accepted_and_what_was_not() -> None:
    told = {bar.title for bar in similarity_bins([0.0, 0.31, 0.3], [0.9, 1.0])}
    assert {"0.30 to 0.35: 2 accepted, 0 rejected", "0.95 to 1.00: 0 accepted, 1 rejected"} <= told
    chart = similarity([0.0, 0.31, 0.3], [0.9, 1.0], limit=0.7)
    assert "limit 0.7" in str(chart.markup) and all(f"<title>{title}</title>" in str(chart.markup) for title in told)


def test_columns_stay_within_their_frame() -> None:
    chart = yields([{"round": number, "candidates": 10 * number + 5, "accepted": 5} for number in range(40)])
    assert len(chart.bars) == 40 and in_frame(chart, chart.bars)
    assert len(re.findall(r'<g id="chart-rounds-xtick_', str(chart.markup))) <= 8


def test_bars_of_one_height_are_a_table_and_no_chart() -> None:
    assert counts({"duplicate": 1, "near duplicate": 1}, name="a", label="Reasons", colour=BASE).markup is None
    assert yields([{"round": 0, "candidates": 2, "accepted": 1}]).markup is None
    assert counts({"duplicate": 2, "near duplicate": 1}, name="a", label="Reasons", colour=BASE).markup is not None


def test_a_line_chart_stays_within_its_frame_and_a_flat_line_can_be_drawn() -> None:
    chart = loss_curve([1, 2, 3], [2.5, 9.25, 0.5])
    assert [bar.title for bar in chart.bars] == ["step 1: 2.500", "step 2: 9.250", "step 3: 0.500"]
    assert in_frame(chart, chart.bars)
    for flat in (loss_curve([1], [2.0]), loss_curve([1, 2], [2.0, 2.0])):
        assert in_frame(flat, flat.bars)
    long = loss_curve(range(5000), [1.0 + step % 2 for step in range(5000)])
    assert not long.bars and len(str(long.markup)) < 100_000


def test_bars_beyond_the_most_frequent_are_put_together() -> None:
    chart = counts({str(number): number for number in range(1, 21)}, name="a", label="Numbers", colour=BASE, most=3)
    assert [(bar.name, bar.parts[0]) for bar in chart.bars] == [("20", 20), ("19", 19), ("18", 18), ("17 others", 153)]
    assert in_frame(chart, chart.bars)


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
    chart = rings(Counter({("write", "poem"): 3, ("write", "song"): 1, ("explain", "moon"): 1}))
    assert chart is not None
    told = [("write", 4), ("poem", 3), ("song", 1), ("explain", 1), ("moon", 1)]
    assert [(bar.name, bar.parts[0]) for bar in chart.bars] == told
    assert in_frame(chart, chart.bars)
    assert chart.label.endswith("write 4, explain 1")
    assert rings(Counter()) is None
    many = rings(Counter({(f"verb{number}", "noun"): 1 for number in range(40)}))
    assert many is not None and len(many.bars) == 2 * VERBS_SHOWN


def test_the_charts_of_a_run_follow_the_theme_and_share_no_id(page: str) -> None:
    drawn = re.findall(r'<svg role="img" aria-label="([^"]+)"', page)
    assert len(drawn) >= 5 and len(page) < 1_500_000
    identities = re.findall(r'\bid="([^"]+)"', page.partition('id="rows"')[0])
    assert len(identities) == len(set(identities))
    assert "#0072b2" not in page.partition("<main")[2] and "fill: var(--tuned)" in page
    assert "<title>step 1: 3.000</title>" in page


def test_a_verdict_is_flipped_where_the_orders_led_to_different_winners() -> None:
    told = {(1.0, 2.0): True, (2.0, 2.0): False, (1.2, 1.4): False, (1.5, 2.0): True, (1.5, 1.5): False, (): False}
    assert {orders: is_flipped(Verdict(id="1", orders=orders)) for orders in told} == told


def test_a_card_has_the_reference_answer_and_categories_have_win_rates(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    rows = [{"id": str(number), "instruction": f"Explain thing {number}.", "output": f"gold {number}"} for number in range(6)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = plain_prompts(6, skill=1.0)
    for number, prompt in enumerate(prompts):
        prompt["category"] = ("maths", "prose")[number % 2]
    prompts[0]["preference"] = prompts[2]["preference"] = 1.0
    done = finished_run(tmp_path, prompts, "eval_set=file", f"eval_set.path={file}", "eval_set.size=null")
    written = (done.folder / "report.html").read_text(encoding="utf-8")
    block = re.search(r'id="rows">(.*?)</script>', written, re.DOTALL)
    assert block and [row["reference"] for row in json.loads(block[1])] == [f"gold {number}" for number in range(6)]
    assert re.search(r"<td>maths</td><td class=\"number\">33.3 <small class=\"soft\">0.0 to 100.0", written)
    assert f"eval_set.path={file}" in html.unescape(written) and "<code>eval_set.path</code>" in written
    assert re.search(r"<td>prose</td><td class=\"number\">100.0 <small class=\"soft\">all alike", written)


def test_the_command_of_a_run_composes_to_the_same_settings(tmp_path: Path) -> None:
    given = ["sft.learning_rate=2e-5", "dataset.size=30", "model.thinking=off", "data.blocked_words=[a b,'it\\'s, so']"]
    config = load_config(["+experiment=quickstart", *given])
    told = origin(config)
    assert told.experiment == "quickstart" and {change.name for change in told.changes} == {
        "sft.learning_rate", "dataset.size", "model.thinking", "data.blocked_words",
    }  # fmt: skip
    program, *overrides = shlex.split(told.command)
    assert program == "minilima" and to_dict(load_config(overrides)) == to_dict(config)
    own = origin(load_config(["name=my_own"]))
    assert (own.experiment, own.changes, own.command) == (None, (), "minilima name=my_own")


def test_all_turns_of_an_example_and_what_training_met_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def filled(role: str, config: Config, prompts: Sequence[Prompt], work: Path) -> Outcome:
        made = fill(role, config, prompts, work)
        if role == "model":
            return replace(made, metrics={**made.metrics, "packed": False, "examples_without_loss": 3})
        if role == "dataset":
            turns = {"history": [["First question", "First reply"]], "system": "Be brief."}
            row = {"id": "0", "instruction": "Second question", "input": "", "output": "Last reply", "source": "machine", **turns}
            (work / "dataset.jsonl").write_text(json.dumps(row) + "\n")
        return made

    fill = runs._fill
    monkeypatch.setattr(runs, "_fill", filled)
    done = finished_run(tmp_path, plain_prompts(3), "model.thinking=off")
    written = (done.folder / "report.html").read_text(encoding="utf-8")
    said = ["Be brief.", "First question", "First reply", "asked, turn 2", "Second question", "Last reply"]
    example = written[written.index("Some examples") : written.index('id="training"')]
    assert re.findall("|".join(said), example[example.index("<h3>system") :])[: len(said)] == said
    training = written[written.index('id="training"') :]
    assert "Trained one example a row" in training and "3 examples have no token to learn" in training
    assert "Thinking of the model: off" in training
