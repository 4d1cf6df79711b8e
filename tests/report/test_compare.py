"""Comparing points: what cannot be paired is said, and the front holds what is worth its cost."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from minilima.cli.compare_table import FORMATS, _fitting
from minilima.errors import MinilimaError
from minilima.evaluate.results import Coverage, Results
from minilima.evaluate.statistics import win_rate
from minilima.report.compare import choose, distinguishing, every_pair, label, label_of_group, notes, pair, tabulate
from minilima.report.compare_records import records
from minilima.report.over_seeds import notes_on_seeds
from minilima.report.runs import FinishedRun


def point(name: str, wins: int, seconds: float, usd: float | None = None) -> FinishedRun:
    preferences = [2.0] * wins + [1.0] * (40 - wins)
    return FinishedRun(
        name=name,
        settings={"dataset.size": seconds, "seed": 0},
        results=Results(coverage=Coverage(judged=40, prompts=40, minimum=0.9), win_rate=win_rate(preferences), loss_change=None),
        preferences={str(number): value for number, value in enumerate(preferences)},
        yardstick={"judge": "a"},
        tokens=0,
        usd=usd,
        seconds=seconds,
    )


def test_the_best_comes_first_and_the_front_holds_no_point_that_another_beats() -> None:
    few, many, waste = point("few", 22, 1, 0.1), point("many", 35, 5, 0.5), point("waste", 21, 6, 0.6)
    table = tabulate([few, many, waste], against=few)
    assert [(row.point.name, row.best, row.pareto) for row in table.rows] == [
        ("many", True, True), ("few", False, True), ("waste", False, False),
    ]  # fmt: skip
    assert table.settings == ("dataset.size",) and any("cheaper in USD" in line for line in notes(table))
    assert any("best of many" in line for line in notes(table))
    assert not any("best of many" in line for line in notes(tabulate([table.rows[0].point]))), "one is not many"
    first = table.rows[0].against
    assert first and first.paired and first.paired.difference.value == 32.5
    assert first.paired.p_holm and first.paired.p_holm >= first.paired.p_bootstrap


@pytest.mark.parametrize("prices", [(0.1, 0.0), (0.0, 0.0), (0.1, None)])
def test_what_answers_no_better_than_the_baseline_or_has_no_price_is_not_called_worth_its_cost(
    prices: tuple[float, float | None],
) -> None:
    table = tabulate([point("equal", 20, 1, prices[0]), point("free", 30, 0, prices[1])])
    assert not any(row.pareto for row in table.rows)
    assert not any("cheaper" in line for line in notes(table))


def test_settings_that_follow_from_others_name_nothing() -> None:
    rows = [{"data.kind": kind, "data.path": f"/{kind}", "seed": seed} for kind in ("a", "b") for seed in (0, 1)]
    points = [replace(point(str(number), 20, 1), settings=given) for number, given in enumerate(rows)]
    assert distinguishing(points, ["data.kind", "data.path", "seed"]) == ["data.kind", "seed"]


def test_labels_name_what_tells_points_apart_judges_and_sets_first() -> None:
    base: dict[str, object] = {"judge.kind": "reference", "eval_set.packaged": "a_100", "eval_set.path": None, "sft.epochs": 1}
    changed: list[dict[str, object]] = [
        {"judge.kind": "openai"},
        {"eval_set.packaged": None, "eval_set.path": "/x/own.jsonl"},
        {"sft.epochs": 2},
    ]
    points = [replace(point(str(number), 20, 1), settings={**base, **one}) for number, one in enumerate([{}, *changed])]
    table = tabulate(points)
    assert table.settings[:3] == ("eval_set.packaged", "eval_set.path", "judge.kind")
    assert table.naming == ("eval_set.packaged", "judge.kind", "sft.epochs")
    assert [label(one, table.naming) for one in points[:3]] == [
        "eval set a_100, judge reference, epochs 1", "eval set a_100, judge openai, epochs 1",
        "eval set own.jsonl, judge reference, epochs 1",
    ]  # fmt: skip
    lora = [{**base, "sft.method": name, "sft.lora_rank": rank} for name, rank in (("full", 0), ("lora", 8))]
    pair_of = [replace(points[0], settings=given) for given in lora]
    assert tabulate(pair_of).settings == ("sft.method",), "what follows from the method is not named"


def test_other_judges_are_not_paired_and_none_is_best() -> None:
    one, two = point("one", 20, 1), replace(point("two", 30, 1), yardstick={"judge": "b"})
    table = tabulate([one, two], against=one)
    assert not table.comparable and not any(row.best or row.pareto for row in table.rows)
    assert "The points differ in judge, so none is called best." in notes(table)
    assert pair(two, one).note == "cannot be paired: other judge"


def test_missing_verdicts_are_told() -> None:
    one = point("one", 20, 1)
    two = replace(one, preferences=dict(list(one.preferences.items())[:30]))
    assert pair(two, one).note == "only 30 of 40 prompts have a verdict in both"
    assert pair(replace(one, preferences={}), one).paired is None


def test_a_point_without_enough_verdicts_is_neither_best_nor_on_the_front() -> None:
    unjudged = replace(
        point("unjudged", 20, 1),
        results=Results(coverage=Coverage(judged=9, prompts=40, minimum=0.9), win_rate=None, loss_change=None),
    )
    [row] = tabulate([unjudged]).rows
    assert not row.best and not row.pareto
    assert (records(tabulate([unjudged]))[0]["judged"], records(tabulate([unjudged]))[0]["prompts"]) == (9, 40)


def test_every_pair_is_what_a_table_with_each_chosen_point_shows() -> None:
    points = [point("few", 20, 1), point("many", 35, 5), replace(point("other", 19, 6), yardstick={"judge": "b"})]
    shown = every_pair(points)
    for place, chosen in enumerate(points):
        expected = {row.point.name: row.against for row in tabulate(points, against=chosen).rows}
        for other, found in zip(points, shown[place], strict=True):
            known = expected[other.name]
            if found is None or known is None or found.paired is None or known.paired is None:
                assert found == known
                continue
            assert found.paired.difference.value == known.paired.difference.value
            assert found.paired.p_holm == known.paired.p_holm
            assert (found.paired.first_better, found.paired.second_better) == (
                known.paired.first_better, known.paired.second_better,
            )  # fmt: skip


def test_a_point_is_chosen_by_its_name_or_by_the_settings_that_it_alone_has() -> None:
    small, large = point("run-1a", 20, 100), point("run-2b", 30, 300)
    assert choose("run-2", [small, large]) is large and choose(None, [small]) is None
    assert choose("dataset.size=1e2", [small, large]) is small
    assert choose("dataset.size=300, seed=0", [small, large]) is large
    for name in ("seed=0", "dataset.size=5", "no.such=1", "run-"):
        with pytest.raises(MinilimaError, match=r"run-1a.*run-2b"):
            choose(name, [small, large])


def test_what_comes_with_another_kind_of_data_is_not_told_besides() -> None:
    settings = [
        {"data.kind": "file", "data.blocked_words": "[]", "dataset.size": 10, "sft.epochs": 3},
        {"data.kind": "self_instruct", "data.blocked_words": "[map]", "dataset.size": 10, "sft.epochs": 3},
        {"data.kind": "self_instruct", "data.blocked_words": "[map]", "dataset.size": 20, "sft.epochs": 1},
    ]
    points = [replace(point(str(number), 20, 1), settings=given) for number, given in enumerate(settings)]
    assert tabulate(points).settings == ("data.kind", "dataset.size", "sft.epochs")


def test_a_narrow_terminal_shows_whole_columns_and_names_the_others() -> None:
    table = tabulate([point("a" * 40, 20, 1), point("b" * 40, 35, 5)])
    headings, rows, dropped = _fitting(table, 53)
    assert headings == ["", "dataset.\nsize", "win rate", "USD", "seconds"] and {len(row) for row in rows} == {5}
    assert dropped == ["judged", "tokens", "point", "loss change"]
    assert _fitting(table, 200)[2] == []
    nine = tuple(f"data.setting_{number}" for number in range(9))
    many = replace(table, settings=nine, naming=nine)
    headings, _, dropped = _fitting(many, 80)
    assert headings[:3] == ["", "point", "win rate"] and dropped[0] == "the 9 settings that differ"
    rows_of = [
        {name: f"{'long' * 9} {row.point.name[0]}" if number else row.point.name[0] for number, name in enumerate(many.settings)}
        for row in table.rows
    ]
    unlike = tabulate([replace(row.point, settings=given) for row, given in zip(table.rows, rows_of, strict=True)])
    headings, _, dropped = _fitting(unlike, 120)
    assert "data.\nsetting_\n0" in headings and "point" not in headings, "settings stand before hashes"
    assert "7 of the 9 settings that differ" in dropped
    coverage = Coverage(judged=39, prompts=40, minimum=0.9)
    partly = replace(point("c", 20, 1), results=Results(coverage=coverage, win_rate=None, loss_change=None))
    assert "judged" in _fitting(tabulate([partly]), 1)[0], "how much a win rate rests on is never left out"


def seeds(size: int, wins: Sequence[int]) -> list[FinishedRun]:
    """A run for each seed, which wins the first prompts."""
    return [
        replace(point(f"{size}-{seed}", won, 1), settings={"dataset.size": size, "seed": seed}) for seed, won in enumerate(wins)
    ]


def test_runs_that_differ_by_their_seed_alone_are_taken_together() -> None:
    few, many, alone = seeds(10, [14, 20, 26]), seeds(20, [24, 30, 36]), seeds(30, [39])
    table = tabulate([*few, *many, *alone], against=few[1])
    assert [(len(group.runs), round(group.mean.estimate.value, 6), group.chosen) for group in table.groups] == [
        (3, 75.0, False),
        (3, 50.0, True),
    ], "a run without another seed is in no group"
    found = table.groups[0].against
    assert found and found.estimate.value == pytest.approx(25.0) and found.p_holm == found.p_value
    assert table.groups[0].spread == pytest.approx(15.0)
    pairs = [row.against.paired for row in table.rows if row.against and row.point is many[1]]
    assert pairs[0] and found.standard_error > pairs[0].standard_error, "seeds that differ say more than prompts alone do"
    assert label_of_group(table.groups[0], table) == "size 20"


def test_groups_of_seeds_are_in_every_form_of_the_table() -> None:
    few, many = seeds(10, [14, 20, 26]), seeds(20, [24, 30, 36])
    table = tabulate([*few, *many], against=few[0])
    record = json.loads(FORMATS["json"](table))["over_seeds"][0]
    assert (record["dataset.size"], record["seeds"], record["p"]) == (20, [0, 1, 2], record["p_holm"])
    assert (record["win_rate"], record["difference"]) == (pytest.approx(75.0), pytest.approx(25.0))
    markdown = FORMATS["markdown"](table)
    assert "| over seeds | runs | win rate | spread | difference | detectable | p (Holm) |" in markdown
    assert "| size 20 | 3 | 75.0 (" in markdown and "| compared with |" in markdown and "hold both" in markdown
    assert "over_seeds" not in json.loads(FORMATS["json"](tabulate(few[:1])))


def test_groups_on_other_prompts_or_without_shared_ones_are_not_compared() -> None:
    few = seeds(10, [14, 20])
    elsewhere = [replace(run, yardstick={"judge": "b"}) for run in seeds(20, [30, 36])]
    renamed = [replace(run, preferences={f"x{key}": 2.0 for key in run.preferences}) for run in seeds(30, [40, 40])]
    table = tabulate([*few, *elsewhere, *renamed], against=few[0])
    told = {group.runs[0].settings["dataset.size"]: group.note for group in table.groups}
    assert told == {10: "", 20: "cannot be compared: other judge", 30: "cannot be compared: no prompt has a verdict in all runs"}


def test_a_run_with_too_few_verdicts_is_in_no_group_and_prompts_without_one_are_told() -> None:
    few = seeds(10, [14, 20, 26])
    unread = replace(few[0], results=replace(few[0].results, win_rate=None))
    (group,) = tabulate([unread, *few[1:]]).groups
    assert len(group.runs) == 2 and not any("Only prompts" in line for line in notes_on_seeds([group]))
    partly = replace(few[0], preferences=dict(list(few[0].preferences.items())[:38]))
    assert any("38 of 40" in line for line in notes_on_seeds(tabulate([partly, *few[1:]]).groups))


def test_no_mean_is_beyond_what_a_rate_can_be() -> None:
    (group,) = tabulate(seeds(10, [39, 36, 40])).groups
    assert group.mean.estimate.value > 90 and group.mean.estimate.high == 100.0
