"""Length control: published figures to the last digit that their tables hold, and a refusal of what cannot be known."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minilima.errors import MinilimaError
from minilima.evaluate.length_control import CoefficientsFrom, length_controlled, minimal_length_controlled, own_length_controlled
from minilima.evaluate.length_control_tables import (
    NO_TABLES,
    LengthControlled,
    NotKnown,
    Tables,
    alpaca_eval_positions,
    instruction_id,
    load_tables,
)
from minilima.formats.annotations import Annotation, Run, read_annotations
from tests.conftest import SHARED

FOLDER = SHARED / "alpaca_eval"
published_data = pytest.mark.skipif(not FOLDER.is_dir(), reason="AlpacaEval's published data are not on this machine")
FILES = {
    "alpaca-7b": "alpaca-7b.weighted_alpaca_eval_gpt4_turbo.json.gz",
    "text_davinci_001": "text_davinci_001.weighted_alpaca_eval_gpt4_turbo.json.gz",
    "vicuna-13b-v1.5": "vicuna-13b-v1.5.with_glm_preference.json.gz",
}


@pytest.fixture(scope="module")
def tables() -> Tables:
    return load_tables(FOLDER)


def published_run(model: str) -> Run:
    (run,) = read_annotations(FOLDER / "annotations" / FILES[model])
    return run


def published_value(model: str) -> float:
    board = FOLDER / "leaderboards" / "data_AlpacaEval_2__weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"
    with board.open() as lines:
        return next(float(row["length_controlled_winrate"]) for row in csv.DictReader(lines) if row[""] == model)


def known(result: LengthControlled | NotKnown) -> LengthControlled:
    assert isinstance(result, LengthControlled), result
    return result


def reason(result: LengthControlled | NotKnown) -> str:
    assert isinstance(result, NotKnown), result
    return result.reason


@published_data
@pytest.mark.parametrize("model", FILES)
def test_published_figures_are_reproduced_with_published_weights(model: str, tables: Tables) -> None:
    result = known(length_controlled(published_run(model), tables, method=CoefficientsFrom.published, positional=True, refits=0))
    assert result.value == pytest.approx(published_value(model), abs=1e-6)


@published_data
@pytest.mark.parametrize(("model", "tolerance"), [("alpaca-7b", 0.02), ("text_davinci_001", 1e-3), ("vicuna-13b-v1.5", 0.1)])
def test_our_fit_comes_close_to_the_published_one(model: str, tolerance: float, tables: Tables) -> None:
    """The gamed baselines' preferences are reconstructed, so cross-validation may choose another penalty."""
    result = known(length_controlled(published_run(model), tables, method=CoefficientsFrom.fitted, positional=True, refits=0))
    assert result.value == pytest.approx(published_value(model), abs=tolerance)


@published_data
def test_difficulty_belongs_to_the_instruction_whatever_the_order_of_rows(tables: Tables) -> None:
    run = published_run("alpaca-7b")
    shuffled = replace(run, annotations=tuple(reversed(run.annotations)))
    published, fitted = CoefficientsFrom.published, CoefficientsFrom.fitted
    straight = known(length_controlled(run, tables, method=published, refits=0)).value
    assert known(length_controlled(shuffled, tables, method=published, refits=0)).value == pytest.approx(straight)
    one = known(length_controlled(run, tables, method=fitted, refits=0)).value
    assert known(length_controlled(shuffled, tables, method=fitted, refits=0)).value == pytest.approx(one, abs=0.05)
    by_row = known(length_controlled(shuffled, tables, method=fitted, positional=True, refits=0)).value
    assert abs(by_row - one) > 1, "alpaca_eval's way gives prompts each other's difficulty"


@published_data
def test_an_incomplete_run_is_fitted_anew_since_its_published_weights_rest_on_misplaced_difficulties(tables: Tables) -> None:
    run = published_run("text_davinci_001")
    assert len(run.annotations) == 803
    assert known(length_controlled(run, tables, refits=0)).how.startswith("fitted")
    assert "misplaced" in known(length_controlled(run, replace(tables, gamed=None), refits=0)).how
    assert known(length_controlled(published_run("alpaca-7b"), tables, refits=0)).how == "published weights"


@published_data
def test_the_interval_is_about_as_wide_as_sampling_makes_it(tables: Tables) -> None:
    result = known(length_controlled(published_run("vicuna-13b-v1.5"), tables, refits=60))
    assert result.interval is not None
    assert result.interval.low < result.value < result.interval.high
    # The raw win rate's standard error is 0.77 points; alpaca_eval's lc_standard_error of such runs is 0.4 to 0.6.
    assert 2 < result.interval.high - result.interval.low < 8


@published_data
def test_the_value_in_the_file_itself_is_the_published_one() -> None:
    own = own_length_controlled(published_run("vicuna-13b-v1.5"))
    assert own is not None and own.value == pytest.approx(published_value("vicuna-13b-v1.5"), abs=1e-6)
    assert own_length_controlled(published_run("alpaca-7b")) is None


@published_data
def test_what_cannot_be_known_is_refused_with_the_reason(tables: Tables) -> None:
    run = published_run("alpaca-7b")
    strange = replace(run.annotations[0], instruction="Is this AlpacaEval's?")
    assert "1 of 805 instructions" in reason(length_controlled(replace(run, annotations=(strange, *run.annotations[1:])), tables))
    assert "davinci" in reason(length_controlled(replace(run, baseline="text_davinci_003"), tables))
    assert "hf download" in reason(length_controlled(run, NO_TABLES))
    assert "df_gamed" in reason(length_controlled(run, replace(tables, gamed=None), method=CoefficientsFrom.fitted))
    assert "judge" in reason(length_controlled(replace(run, judge="cot"), tables, method=CoefficientsFrom.published))
    assert "no weights" in reason(length_controlled(replace(run, generator="mine"), tables, method=CoefficientsFrom.published))


@published_data
def test_another_models_answers_under_a_published_name_do_not_get_its_figure(tables: Tables) -> None:
    impostor = replace(published_run("vicuna-13b-v1.5"), generator="alpaca-7b")
    assert "miss these annotations' win rate" in reason(length_controlled(impostor, tables, method=CoefficientsFrom.published))
    assert known(length_controlled(impostor, tables, refits=0)).value == pytest.approx(10.5, abs=0.2)


def synthetic(count: int, effect: float, skill: float, center: float) -> Run:
    """A run whose chance of winning depends on its length: log-odds = skill + effect * tanh(characters shorter / spread)."""
    rng = np.random.default_rng(5)
    gaps = rng.normal(center, 200, size=count).round().astype(int)
    chance = 1 / (1 + np.exp(-(skill + effect * np.tanh(gaps / gaps.std(ddof=1)))))
    won = rng.random(count) < chance
    rows = [
        Annotation(instruction=f"prompt {number}", output_1="x" * (1000 + gap), output_2="x" * 1000, preference=1.0 + win)
        for number, (gap, win) in enumerate(zip(gaps, won, strict=True))
    ]
    return Run(generator="m", baseline="b", judge="j", annotations=tuple(rows))


def test_the_minimal_form_takes_out_what_length_alone_has_won() -> None:
    # At equal length the runs are even, but the model is longer and the judge likes that.
    run = synthetic(2000, effect=-2.0, skill=0.0, center=-150)
    raw = float(np.mean([value - 1 for value in run.preferences if value is not None]) * 100)
    result = known(minimal_length_controlled(run, refits=100))
    assert raw > 65
    assert result.value == pytest.approx(50, abs=5)
    assert result.interval is not None and result.interval.low < 50 < result.interval.high
    assert result.interval.high - result.interval.low < 15


def test_where_every_answer_is_longer_equal_length_is_not_guessed() -> None:
    assert "guess" in reason(minimal_length_controlled(synthetic(200, effect=-2.0, skill=0.0, center=-900)))


def test_equal_lengths_and_unread_verdicts_give_no_figure() -> None:
    row = Annotation(instruction="i", output_1="ab", output_2="c", preference=2.0)
    run = Run(generator="m", baseline="b", judge="j", annotations=(row, row, row))
    assert "only 6 verdicts" in reason(minimal_length_controlled(synthetic(6, effect=-2.0, skill=0.0, center=0)))
    assert "same length" in reason(minimal_length_controlled(run))
    unread = replace(run, annotations=tuple(replace(row, preference=None) for _ in range(3)))
    assert "fewer than two" in reason(minimal_length_controlled(unread))


def test_a_run_that_won_everything_stays_finite() -> None:
    run = synthetic(100, effect=0.0, skill=0.0, center=0)
    won = replace(run, annotations=tuple(replace(row, preference=2.0) for row in run.annotations))
    result = known(minimal_length_controlled(won, refits=10))
    assert 95 < result.value <= 100 and np.isfinite(result.value)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "holds no table"),
        ({"instruction_difficulty.csv": "index,instruction_difficulty\n0,1.0\n"}, "1 difficulties"),
        ({"instruction_difficulty.csv": "index,difficulty\n0,1.0\n"}, "cannot be understood"),
        ({"df_gamed.csv": "", "old_df_gamed.csv": ""}, "2 tables"),
    ],
)
def test_tables_that_cannot_be_used_are_named(tmp_path: Path, files: dict[str, str], named: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(MinilimaError, match=named):
        load_tables(tmp_path)


def test_the_packaged_order_is_alpaca_evals() -> None:
    first = "What are the names of some famous actors that started their careers on Broadway?"
    assert alpaca_eval_positions()[instruction_id(first)] == 0
    assert sorted(alpaca_eval_positions().values()) == list(range(805))
