"""The report: one file that asks nothing of the network and shows hostile text as text."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilima.compose import load_config
from minilima.evaluate.results import compute_results
from minilima.files import write_jsonl
from minilima.recipes import stages
from minilima.report.data import histogram, sunburst, verb_and_noun
from minilima.report.html import line_chart
from minilima.report.summary import Summary, write_run
from minilima.sources import resolve
from minilima.store import Artifact, Outcome, Stage, Store

HOSTILE = "<script>alert(1)</script> \x1b[31m <img src=x onerror=alert(2)> {{ 7 * 7 }} \u202e end"


def fill(role: str, work: Path) -> Outcome:
    """What each stage leaves, small and hostile."""
    if role in ("answers", "reference_answers"):
        row = {
            "id": "1",
            "instruction": HOSTILE,
            "output": f"{role} {HOSTILE}",
            "generator": "g",
            "tokens": 3,
            "truncated": False,
        }
        write_jsonl(work / "answers.jsonl", [row])
        (work / "model_outputs.json").write_text(json.dumps([{"dataset": "koala", "instruction": HOSTILE, "output": "x"}]))
        nats = 4.0 if role == "answers" else 6.0
        write_jsonl(work / "reference_loss.jsonl", [{"id": "1", "nats": nats, "tokens": 2}])
        return Outcome(metrics={"answers": 1, "mean_words": 3.0, "truncated": 0})
    if role == "verdicts":
        write_jsonl(work / "verdicts.jsonl", [{"id": "1", "preference": 2.0, "explanation": HOSTILE}])
        return Outcome(metrics={"judged": 1, "prompts": 1, "wins": 1, "losses": 0, "ties": 0})
    if role == "model":
        write_jsonl(work / "training_log.jsonl", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}])
        return Outcome(metrics={"steps": 2, "first_loss": 2.0, "last_loss": 1.5})
    if role == "dataset":
        row = {"id": "1", "instruction": HOSTILE, "input": HOSTILE, "output": HOSTILE, "source": "machine"}
        write_jsonl(work / "dataset.jsonl", [row])
        write_jsonl(work / "rejected.jsonl", [{"id": "2", "text": HOSTILE, "reason": "duplicate"}])
        counts: dict[str, Any] = {"examples": 1, "seed": 0, "machine": 1, "classification": 0, "available": 1, "wanted": 2}
        return Outcome(metrics=counts)
    if role == "pool":
        return Outcome(metrics={"tasks": 1, "rejected": 0})
    return Outcome(metrics={"parameters": 1})


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    return write(tmp_path)


def write(tmp_path: Path, min_coverage: float = 0.9, fill: Callable[[str, Path], Outcome] = fill) -> Summary:
    """The folder of a run whose stages left what `fill` writes."""
    config = load_config(["+experiment=quickstart"])
    store = Store(tmp_path / "store")
    artifacts: dict[str, Artifact] = {}
    for role, stage in stages(config, resolve(config)).until(config.until):

        def build(work: Path, role: str = role) -> Outcome:
            return fill(role, work)

        artifacts[role] = store.get_or_build(Stage(name=stage.name, version=1, recipe={"role": role}), build)
    results = compute_results(
        verdicts=artifacts["verdicts"].path,
        answers=artifacts["answers"].path,
        reference=artifacts["reference_answers"].path,
        min_coverage=min_coverage,
    )
    return write_run(tmp_path / "runs" / "quickstart-1", config, artifacts, results)


def test_what_models_wrote_is_shown_as_text(summary: Summary) -> None:
    page = (summary.folder / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page and "<img" not in page and "49" not in re.findall(r"\{\{.*?\}\}", page)


def test_the_report_needs_nothing_from_elsewhere(summary: Summary) -> None:
    page = (summary.folder / "report.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", page)
    assert not re.search(r"https?://|@import|url\(", page)


def test_the_figures_of_the_run_stand_in_the_report(summary: Summary) -> None:
    page = (summary.folder / "report.html").read_text()
    assert "100.0 %" in page and "-1.000" in page
    assert "1 won, 0 lost, 0 tied" in page
    assert "2 were wanted" in page


def test_the_end_of_a_run_states_figures_and_what_the_judge_is_worth(summary: Summary) -> None:
    lines = "\n".join(summary.headlines())
    assert "100.0 %, 95 % interval" in lines
    assert "change -1.000" in lines
    assert "does not stand for people's preferences" in lines
    assert str(summary.folder / "report.html") in lines
    assert summary.score == 100.0


def fill_unread(role: str, work: Path) -> Outcome:
    """As `fill`, but the only verdict could not be read."""
    outcome = fill(role, work)
    if role == "verdicts":
        write_jsonl(work / "verdicts.jsonl", [{"id": "1", "preference": None, "explanation": "Hm."}])
    return outcome


def test_without_enough_verdicts_there_is_no_win_rate_and_that_is_said(tmp_path: Path) -> None:
    summary = write(tmp_path, fill=fill_unread)
    told = json.loads((summary.folder / "run.json").read_text())["results"]
    assert told["win_rate"] is None and told["coverage"] == {"judged": 0, "prompts": 1, "minimum": 0.9}
    assert summary.score is None
    for text in ("\n".join(summary.headlines()), (summary.folder / "report.html").read_text()):
        assert "No win rate: 0 of 1 prompts judged (0.0%, less than judge.min_coverage=0.9)" in text


def test_a_histogram_counts_every_value_once() -> None:
    chart = histogram("x", [0, 1, 1, 5, 40])
    assert sum(bar["count"] for bar in chart["bars"]) == 5
    assert max(bar["height"] for bar in chart["bars"]) == 100
    assert (chart["median"], chart["largest"]) == (1, 40)


def test_a_line_chart_stays_within_its_frame() -> None:
    chart = line_chart([1, 2, 3], [2.5, 9.25, 0.5])
    assert all(0 <= point["x"] <= chart["width"] and 0 <= point["y"] <= chart["bottom"] for point in chart["points"])
    labels = [float(tick["label"]) for tick in chart["y_ticks"]]
    assert labels[0] <= 0.5 and labels[-1] >= 9.25


def test_a_flat_line_can_be_drawn() -> None:
    assert len(line_chart([1], [2.0])["points"]) == 1


def test_the_first_word_and_what_it_is_about_are_found() -> None:
    assert verb_and_noun("Write a new short poem about rain") == ("write", "short")
    assert verb_and_noun("Explain the moon.") == ("explain", "moon")
    assert verb_and_noun("Why?") is None


def test_the_rings_of_the_sunburst_hold_all_verbs_and_their_objects() -> None:
    arcs = sunburst(["Write a poem"] * 3 + ["Write a song", "Explain the moon"])
    assert [(arc["label"], arc["count"]) for arc in arcs] == [("write", 4), ("poem", 3), ("song", 1), ("explain", 1), ("moon", 1)]
    assert arcs[0]["path"].count("A") == 2
    assert sunburst([]) == []
