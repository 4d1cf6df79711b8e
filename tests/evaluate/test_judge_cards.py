"""Judge cards: found by a judge's identity, read back as written, and honest about what they are of."""

import csv
import html
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.evaluate.judge_cards import Figure, JudgeCard, Measured, Ranking, find_card
from minilima.evaluate.judge_forms import form_of
from minilima.evaluate.results import Coverage, Results
from minilima.report.headlines import judge_warning
from minilima.report.runs import read_points
from minilima.run.sources import resolve
from minilima.run.stages.verdicts import judge_identity
from tests.conftest import SHARED
from tests.report.runs import finished_run, plain_prompts

PEOPLE = Measured(
    labels="pairs", by="people", pairs=100, unread=1, decided=80, source="here", command="python -m minilima agreement",
    agreement=Figure(value=0.7, low=0.6, high=0.8), longest=Figure(value=0.6, low=0.5, high=0.7),
    gain=Figure(value=0.1, low=0.02, high=0.18), kappa=Figure(value=0.4, low=0.2, high=0.6), people=None,
    consistency=Figure(value=0.9), first_wins=None, longer_wins=None,
)  # fmt: skip
CARD = JudgeCard(
    judge="mine", identity="0123456789abcdef", own=True, measured=(PEOPLE,),
    ranking=Ranking(models=("a", "b", "c"), spearman=Figure(value=1.0, low=0.5, high=1.0), leaderboard="published"),
)  # fmt: skip
PUBLISHED = replace(CARD, judge="chatgpt", identity="", own=False, ranking=None)


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    file = tmp_path / "packaged.json"
    file.write_text(json.dumps({"cards": [asdict(PUBLISHED), asdict(replace(CARD, judge="packaged"))]}))
    return file


def test_a_card_measured_here_wins_over_a_packaged_one_and_that_over_the_published_form(tmp_path: Path, packaged: Path) -> None:
    identity = CARD.identity
    assert find_card("another", "chatgpt", tmp_path, packaged) == PUBLISHED
    assert find_card("another", "unheard of", tmp_path, packaged) is None
    found = find_card(identity, "chatgpt", tmp_path, packaged)
    assert found is not None and found.judge == "packaged"
    (tmp_path / f"{identity}.json").write_text(json.dumps(asdict(CARD)))
    assert find_card(identity, "chatgpt", tmp_path, packaged) == CARD


def test_only_a_measured_gain_over_the_longer_answer_lifts_a_judge_above_the_floor() -> None:
    assert CARD.above_floor
    not_sure = replace(PEOPLE, gain=Figure(value=0.1, low=-0.01, high=0.2))
    assert not replace(CARD, measured=(not_sure,)).above_floor
    assert not PUBLISHED.above_floor, "it was another model in other words"
    assert not replace(CARD, measured=(replace(PEOPLE, by="gpt-4"),)).above_floor, "a judge is no yardstick for people"
    assert "was not measured" in PUBLISHED.sentence() and "70.0 %" in PUBLISHED.sentence()


@pytest.mark.parametrize(
    ("gain", "said"), [((0.02, 0.18), ""), ((-0.01, 0.2), "on the pairs of its card"), (None, "To measure it")]
)
def test_a_run_asks_to_measure_only_a_judge_that_nobody_measured(gain: tuple[float, float] | None, said: str) -> None:
    measured = replace(PEOPLE, gain=Figure(value=0.1, low=gain[0], high=gain[1])) if gain else PEOPLE
    card = replace(CARD, measured=(measured,)) if gain else None
    results = Results(
        coverage=Coverage(judged=9, prompts=9, minimum=0.9), win_rate=None, loss_change=None, judge_card=card
    )  # fmt: skip
    warning = " ".join(judge_warning(results))
    assert said in warning and bool(said) == bool(warning)
    assert ("minilima agreement" in warning) == (gain is None)


def test_runs_and_their_sweep_cite_a_card_that_was_measured_after_the_first_of_them(tmp_path: Path) -> None:
    run = finished_run(tmp_path, plain_prompts(12))
    assert "has not been measured" in run.judge
    identity = _identity()
    (tmp_path / "judges").mkdir()
    (tmp_path / "judges" / f"{identity}.json").write_text(json.dumps(asdict(replace(CARD, identity=identity))))
    assert read_points([run.folder]).points[0].worth == CARD.sentence(), "the page of a sweep needs no run to be run again"
    again = finished_run(tmp_path, plain_prompts(12))
    page = html.unescape((again.folder / "report.html").read_text())
    assert again.judge == CARD.sentence() and "agreement with people 70.0 %" in page
    assert "has not been measured" not in page and "To measure it" not in page


def test_a_broken_card_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"judge": "x"}')
    with pytest.raises(MinilimaError, match="judge card"):
        find_card("x", None, tmp_path)


def _identity(*overrides: str) -> str:
    config = load_config(["+experiment=quickstart", *overrides])
    return judge_identity(config, resolve(config))


def test_a_judges_identity_knows_how_it_is_asked_and_not_what_about() -> None:
    identity = _identity
    asked = identity("judge=chatgpt")
    assert asked == identity("judge=chatgpt", "eval_set.size=7", "endpoints.judge.base_url=http://localhost/v1", "seed=3")
    others = [identity("judge=chatgpt", more) for more in ("judge.model=other", "judge.orders=random", "judge.prompt=explain")]
    assert len({asked, *others, identity("judge=reference"), identity("judge=local")}) == 6
    assert identity("judge=reference") == identity("judge=reference", "eval_set.size=7")


def test_the_packaged_cards_say_what_was_published(tmp_path: Path) -> None:
    card = find_card("", "chatgpt", tmp_path)
    assert card is not None and not card.own and not card.above_floor
    people = card.against_people
    assert people is not None and people.people is not None
    assert people.agreement.value < people.longest.value < people.people.value, "57 % < 62 % < 66 %"
    small = find_card(_identity("judge=local"), None, tmp_path)
    assert small is not None and small.own and not small.above_floor, "SmolLM2-135M is no judge"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published figures are not on this machine")
def test_the_packaged_cards_hold_the_published_figures(tmp_path: Path) -> None:
    with (SHARED / "alpaca_eval/leaderboards/evaluators__evaluators_leaderboard.csv").open() as file:
        rows = {row[""]: row for row in csv.DictReader(file)}
    for name in ("chatgpt", "alpaca_eval_cot_gpt4_turbo_fn", "weighted_alpaca_eval_gpt4_turbo"):
        card = find_card("", name, tmp_path)
        assert card is not None
        figures = card.measured[0]
        assert figures.agreement.value * 100 == pytest.approx(float(rows[name]["Human agreement"]), abs=1e-9)
        assert figures.longest.value * 100 == pytest.approx(float(rows["longest"]["Human agreement"]), abs=1e-9)


def test_the_default_judge_of_lima_1k_is_not_the_form_below_the_floor(tmp_path: Path) -> None:
    def published(*overrides: str) -> Measured:
        card = find_card("", form_of(load_config(list(overrides)).judge), tmp_path)
        assert card is not None
        return card.measured[0]

    assert published("judge=chatgpt").agreement.value < published("judge=chatgpt").longest.value
    default = published("+experiment=lima_1k")
    assert default.agreement.value > default.longest.value
