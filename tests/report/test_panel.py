"""Several judges and evaluation sets in one run: each its figure, the majority, agreement; one of each changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from minilima.cli.compare_table import FORMATS, _by_further_judges, _fitting
from minilima.config.compose import load_config
from minilima.config.schema import Config
from minilima.config.several import judges_of
from minilima.config.sweep_grid import expand
from minilima.errors import MinilimaError
from minilima.evaluate.panel import concords, is_split, majority
from minilima.formats.records import Verdict
from minilima.pipeline import stages
from minilima.report.compare import Against, others_of, pair, tabulate
from minilima.report.compare_records import records
from minilima.report.headlines import headlines
from minilima.report.origin import origin
from minilima.report.runs import read_point, read_points
from minilima.report.wandb_record import panel_numbers
from minilima.run.sources import resolve
from minilima.run.stages.verdicts import VERDICTS
from minilima.run.views import every_view
from tests.cli.test_commands import minilima
from tests.report.runs import finished_run, plain_prompts

TWO = "judges=[reference,chatgpt]"


def verdicts(*preferences: float | None, scores: list[tuple[float, float]] | None = None) -> dict[str, Verdict]:
    return {
        str(number): Verdict(id=str(number), preference=preference, scores=scores[number] if scores else None)
        for number, preference in enumerate(preferences)
    }


def keys(*overrides: str) -> dict[str, str]:
    config = load_config(["+experiment=quickstart", *overrides])
    return {role: node.stage.key for role, node in stages(config, resolve(config)).by_role().items()}


def test_the_majority_is_of_those_who_have_a_verdict_and_a_balance_is_a_tie() -> None:
    judges = [verdicts(2.0, 2.0, 1.0, None), verdicts(2.0, 1.0, None, None), verdicts(1.0, 1.5, None, None)]
    assert majority(judges, ["0", "1", "2", "3"]) == [2.0, 1.5, 1.0, None]


def test_judges_are_split_where_they_name_different_winners() -> None:
    assert is_split([Verdict(id="0", preference=2.0), Verdict(id="0", preference=1.0)])
    assert is_split([Verdict(id="0", preference=2.0), Verdict(id="0", preference=1.5)])
    assert not is_split([Verdict(id="0", preference=2.0), Verdict(id="0", preference=1.9), Verdict(id="0")])


def test_kappa_and_spearman_of_a_hand_worked_case() -> None:
    (found,) = concords({"a": verdicts(2.0, 2.0, 1.0, 1.0, None), "b": verdicts(2.0, 1.0, 1.0, 1.0, 2.0)})
    # Agreed 3 of 4; by chance 1/2 * 1/4 + 1/2 * 3/4 = 1/2.
    assert (found.prompts, found.same) == (4, 0.75)
    assert found.kappa is not None and found.kappa.value == pytest.approx(0.5)
    assert found.spearman is not None and found.spearman.value == pytest.approx(0.5773, abs=1e-4)


def test_scores_say_how_strongly_a_judge_prefers() -> None:
    by_score = verdicts(2.0, 2.0, 2.0, scores=[(1.0, 2.0), (1.0, 5.0), (1.0, 9.0)])
    (found,) = concords({"a": by_score, "b": verdicts(1.1, 1.5, 1.9)})
    assert found.spearman is not None and found.spearman.value == pytest.approx(1)


def test_each_judge_has_the_keys_of_a_run_of_its_own() -> None:
    several, reference, chatgpt = keys(TWO), keys("judge=reference"), keys("judge=chatgpt")
    assert several.pop("verdicts_by_chatgpt") == chatgpt["verdicts"]
    assert several == reference
    assert keys("judge=[reference,chatgpt]") == keys(TWO)
    assert keys("judges=[chatgpt]") == chatgpt


def test_each_set_has_answers_and_verdicts_and_the_data_is_clean_of_all() -> None:
    several, one = keys("eval_set=[minilima_100,minilima_de_40]"), keys()
    assert several.keys() - one.keys() == {
        "answers_on_minilima_de_40", "base_answers_on_minilima_de_40", "verdicts_on_minilima_de_40",
    }  # fmt: skip
    assert several["pool"] == one["pool"]
    assert several["dataset"] != one["dataset"]
    assert several["base_answers_on_minilima_de_40"] == keys("eval_set=minilima_de_40")["base_answers"]
    assert keys("eval_sets=[minilima_100]") == one


def test_settings_hold_for_all_judges_and_an_option_keeps_its_own() -> None:
    both = judges_of(load_config(["judges=[chatgpt,cot]", "judge.model=mine", "endpoints.judge.base_url=http://here/v1"]))
    assert [one.judge.prompt for one in both.values()] == ["choose", "explain"]
    assert {(one.judge.model, one.endpoints.judge.base_url) for one in both.values()} == {("mine", "http://here/v1")}


def test_a_judge_listed_twice_or_unknown_is_refused() -> None:
    with pytest.raises(MinilimaError, match="lists cot twice"):
        load_config(["judges=[cot,cot]"])
    with pytest.raises(MinilimaError, match="no_such"):
        load_config(["judges=[cot,no_such]"])


def test_judges_and_sets_make_a_view_each() -> None:
    config = load_config(["judges=[reference,cot]", "eval_sets=[minilima_100,minilima_de_40]"])
    roles = [view.roles["verdicts"] for view in every_view(config, resolve(config))]
    assert roles == ["verdicts", "verdicts_by_cot", "verdicts_on_minilima_de_40", "verdicts_on_minilima_de_40_by_cot"]


def prompts() -> list[dict[str, Any]]:
    """Ten prompts, of which the second judge sees every third otherwise."""
    rows = plain_prompts(10, skill=1.0)
    for number, row in enumerate(rows):
        row["verdicts_by_chatgpt"] = {"preference": 1.0 if number % 3 == 0 else 2.0, "explanation": f"Reason {number}"}
    return rows


def test_a_run_of_two_judges_shows_both_their_agreement_and_the_majority(tmp_path: Path) -> None:
    summary = finished_run(tmp_path, prompts(), "eval_set.size=10", TWO)
    written = json.loads((summary.folder / "run.json").read_text())
    (panel,) = written["panel"]
    rates = [judge["results"]["win_rate"]["win_rate"]["value"] for judge in panel["judges"]]
    assert rates == [100.0, 60.0]
    assert panel["majority"]["win_rate"]["value"] == 80.0
    assert panel["agreement"][0]["same"] == 0.6
    facts, names = headlines(summary), ("Win rate", "Win rates", "Majority", "Agreement")
    first, further, most, agreed = (next(text for name, text in facts if name == wanted) for wanted in names)
    assert first.startswith("100.0 %") and first.endswith(", by reference")
    assert further.startswith("60.0 %") and ", by chatgpt (6 won" in further
    assert most.startswith("80.0 %") and ", by most of 2 judges" in most
    assert agreed.startswith("reference and chatgpt agree on 60% of 10 prompts")
    page = (summary.folder / "report.html").read_text()
    assert "judges disagree" in page and "Reason 3" in page and "Every judge" in page
    record = records(tabulate([read_point(summary.folder)]))[0]
    assert (record["win_rate"], record["win_rate_by_chatgpt"], record["win_rate_by_the_majority"]) == (100.0, 60.0, 80.0)


def test_runs_are_paired_by_every_judge_and_by_the_majority(tmp_path: Path) -> None:
    other = prompts()
    for number, row in enumerate(other):
        row["preference"], row["verdicts_by_chatgpt"]["preference"] = 2.0 if number < 7 else 1.0, 2.0
    for given, seed in ((prompts(), 0), (other, 1)):
        finished_run(tmp_path, given, "eval_set.size=10", TWO, f"seed={seed}")
    finished_run(tmp_path, prompts(), "eval_set.size=10", "seed=2")
    points = read_points([tmp_path / "runs"]).points
    one, two, alone = (next(point for point in points if point.settings["seed"] == seed) for seed in range(3))
    table = tabulate(points, one)
    assert others_of(table) == ["by chatgpt", "by the majority"]
    (compared,) = [row for row in table.rows if row.point is two]
    found = {name: against.paired for name, against in {"": compared.against, **compared.others}.items() if against}
    # Of ten prompts the first judge gives the second run three fewer, the other one four more; most of both: 80 % against 85 %.
    assert {name: paired.difference.value for name, paired in found.items() if paired} == {
        "": -30.0, "by chatgpt": 40.0, "by the majority": pytest.approx(5.0),
    }  # fmt: skip
    (lonely,) = [row for row in table.rows if row.point is alone]
    assert lonely.against and lonely.against.paired
    assert lonely.others["by chatgpt"] == Against(paired=None, note="cannot be paired: not judged so in both")
    (record,) = [record for record in records(table) if record["point"] == two.name]
    assert (record["difference_by_chatgpt"], record["shared_prompts_by_chatgpt"]) == (40.0, 10)
    assert (by_chatgpt := found["by chatgpt"]) and record["p_holm_by_chatgpt"] == by_chatgpt.p_holm
    text = FORMATS["markdown"](table)
    assert "difference by chatgpt | p (Holm) by chatgpt" in text and "+40.0 (" in text
    lines = {(line[0], line[1]): line[2:] for line in _by_further_judges(tabulate([one, two], one)) if line[0]}
    assert [name for name, _ in lines] == ["by chatgpt", "by the majority"]
    assert not any("by chatgpt" in heading for heading in _fitting(table, 80)[0]), "they stand in a table of their own"


def test_a_judge_with_too_few_verdicts_has_no_vote(tmp_path: Path) -> None:
    rows = prompts()
    for row in rows[:5]:
        row["verdicts_by_chatgpt"] = {"preference": None}
    summary = finished_run(tmp_path, rows, "eval_set.size=10", TWO)
    assert summary.panel and summary.panel.sets[0].majority is None, "one judge is no majority"
    facts = headlines(summary)
    assert not any(name == "Majority" for name, _ in facts)
    assert any(name == "Win rates" and text.startswith("chatgpt: No win rate: 5 of 10") for name, text in facts)
    assert list(read_point(summary.folder).others) == ["by chatgpt"]


def test_sets_are_paired_each_with_itself(tmp_path: Path) -> None:
    sets = ("eval_sets=[minilima_100,minilima_de_40]", "eval_set.size=5")
    for seed in (0, 1):
        finished_run(tmp_path, plain_prompts(5, seed=seed), *sets, f"seed={seed}")
    one, two = read_points([tmp_path / "runs"]).points
    own, other = pair(one, two), pair(one, two, "on minilima_de_40")
    assert own.paired and other.paired and own.paired.difference == other.paired.difference, (
        "the same answers were written for both"
    )
    assert one.judgments("on minilima_de_40") != one.judgments()


def test_a_run_of_two_sets_shows_the_figures_of_both(tmp_path: Path) -> None:
    summary = finished_run(tmp_path, plain_prompts(5), "eval_sets=[minilima_100,minilima_de_40]", "eval_set.size=5")
    sets = json.loads((summary.folder / "run.json").read_text())["panel"]
    assert [one["set"] for one in sets] == ["minilima_100", "minilima_de_40"]
    assert all(one["majority"] is None and len(one["judges"]) == 1 for one in sets)
    assert any(name == "Win rates" and ", on minilima_de_40 (" in text for name, text in headlines(summary))
    assert 'id="set"' in (summary.folder / "report.html").read_text()


def test_a_run_of_one_judge_has_no_panel(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, plain_prompts(3)).folder
    assert "panel" not in json.loads((folder / "run.json").read_text())
    assert '"judges"' not in (folder / "report.html").read_text().partition('id="rows"')[2].partition("</script>")[0]


def test_wandb_has_the_numbers_of_every_judge_their_agreement_and_the_majority(tmp_path: Path) -> None:
    summary = finished_run(tmp_path, prompts(), "eval_set.size=10", TWO)
    (panel,) = json.loads((summary.folder / "run.json").read_text())["panel"]
    numbers = panel_numbers(panel)
    assert numbers["verdicts_by_chatgpt/results/win_rate/win_rate/value"] == 60.0
    assert numbers["majority/win_rate/value"] == 80.0
    assert numbers["agreement/reference, chatgpt/same"] == 0.6


def test_the_points_of_a_sweep_have_every_judge(tmp_path: Path) -> None:
    points = expand(["judge=[reference,cot]", "judge.min_coverage=0.5,0.6"]).points
    assert [list(point.config.judge_options) for point in points] == [["reference", "cot"]] * 2
    assert [point.config.judge_options["cot"].judge.min_coverage for point in points] == [0.5, 0.6]


def test_a_judge_that_sees_each_answer_alone_is_asked_twice_whatever_the_order() -> None:
    asked = [
        plan_of(load_config([*words, "eval_set.size=10"])) for words in (["judge=cot"], ["judge=mt_bench", "judge.orders=random"])
    ]
    assert asked == [20, 20]


def plan_of(config: Config) -> int | None:
    sources = resolve(config)
    guess = VERDICTS.requests(config, sources)
    return guess.requests if guess is not None else None


def test_hydras_own_view_of_the_settings_understands_a_list_of_judges() -> None:
    shown = minilima("--cfg", "job", "judge=[reference,cot]").stdout
    assert "judges:\n- reference\n- cot\n" in shown


def test_the_command_in_a_report_lists_judges_and_not_what_follows_from_them() -> None:
    config = load_config(["+experiment=quickstart", "judges=[arena_hard,cot]", "judge.min_coverage=0.5"])
    command = origin(config).command
    assert command == "minilima +experiment=quickstart judge.min_coverage=0.5 'judges=[arena_hard,cot]'"
