"""Win rates and loss changes: published figures to the last digit, intervals that mean something."""

import csv
import gzip
import json
import math

import numpy as np
import pytest

from minilima.evaluate.statistics import length_preference, loss_change, position_preference, positions, win_rate
from tests.conftest import SHARED


def test_ties_count_half_and_unread_verdicts_not_at_all() -> None:
    rate = win_rate([2, 2, 1, 1.5, None])
    assert rate is not None
    assert (rate.wins, rate.losses, rate.ties, rate.judged, rate.prompts) == (2, 1, 1, 4, 5)
    assert rate.win_rate.value == 62.5
    assert rate.win_rate.low < 62.5 < rate.win_rate.high


def test_without_a_verdict_there_is_no_win_rate() -> None:
    assert win_rate([None, None]) is None
    assert win_rate([]) is None


def test_equal_verdicts_have_no_spread() -> None:
    rate = win_rate([2.0] * 10)
    assert rate is not None
    assert (rate.win_rate.low, rate.win_rate.high, rate.standard_error) == (100.0, 100.0, 0.0)


def test_position_consistency_counts_agreeing_orders() -> None:
    found = positions([(2, 2), (2, 1), (1, 2), (1, 1), (2,)]).consistency
    assert found is not None and (found.share.value, found.decided) == (0.5, 4)
    assert positions([(2,), ()]).consistency is None


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        rate = win_rate([float(value) for value in rng.choice([1.0, 2.0], size=60, p=[0.4, 0.6])])
        assert rate is not None
        covered += rate.win_rate.low <= 60 <= rate.win_rate.high
    assert 180 <= covered <= 200


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published annotations are not on this machine")
@pytest.mark.parametrize("model", ["alpaca-7b", "text_davinci_001", "vicuna-13b-v1.5"])
def test_published_win_rates_are_reproduced(model: str) -> None:
    folder = SHARED / "alpaca_eval"
    (file,) = (folder / "annotations").glob(f"{model}.w*.json.gz")
    rows = json.loads(gzip.decompress(file.read_bytes()))
    board = folder / "leaderboards" / "data_AlpacaEval_2__weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"
    with board.open() as lines:
        published = next(row for row in csv.DictReader(lines) if row[""] == model)
    rate = win_rate([row["preference"] for row in rows])
    assert rate is not None
    assert rate.win_rate.value == pytest.approx(float(published["win_rate"]), abs=1e-9)
    assert rate.standard_error == pytest.approx(float(published["standard_error"]), abs=1e-9)
    counts = [int(float(published[column])) for column in ("n_wins", "n_wins_base", "n_draws", "n_total")]
    assert [rate.wins, rate.losses, rate.ties, rate.judged] == counts
    assert rate.discrete_win_rate == pytest.approx(float(published["discrete_win_rate"]), abs=1e-9)


def test_the_discrete_win_rate_rounds_each_verdict() -> None:
    rate = win_rate([1.6, 1.0, 1.5, 2.0, None])
    assert rate is not None and rate.discrete_win_rate == 62.5
    assert rate.win_rate.value == pytest.approx(52.5)


def test_the_length_preference_counts_decided_pairs_of_unequal_length() -> None:
    lengths = [(10, 20), (10, 20), (20, 10), (10, 10), (10, 20), (10, 20)]
    found = length_preference(lengths, [2.0, 1.0, 1.2, 2.0, 1.5, None])
    assert found is not None
    assert found.share.value == pytest.approx(2 / 3) and found.decided == 3
    assert length_preference([(1, 1), (1, 2)], [2.0, 1.5]) is None


def test_a_judge_that_always_takes_the_first_answer_has_position_preference_one() -> None:
    # First order: the reference model's answer is shown first; second order: the tuned model's.
    always = position_preference([(1.0, 2.0)] * 5)
    assert always is not None and (always.share.value, always.decided) == (1.0, 10)
    never = position_preference([(2.0, 1.0), (2.0,)])
    assert never is not None and (never.share.value, never.decided) == (0.0, 3)
    fair = position_preference([(1.0, 1.0), (2.0, 2.0), (1.5, 1.5)])
    assert fair is not None and (fair.share.value, fair.decided) == (0.5, 4)
    assert position_preference([(1.5, 1.5)]) is None


def test_the_loss_change_is_paired_and_weighted_by_tokens() -> None:
    change = loss_change(base=[10.0, 40.0], tuned=[5.0, 41.0], tokens=[5, 20])
    assert change is not None
    assert (change.base, change.tuned) == (2.0, 46 / 25)
    assert math.isclose(change.change.value, -4 / 25)
    assert change.improved == 1


def test_a_constant_gain_is_certain_however_different_the_prompts() -> None:
    tokens = [10, 20, 30, 40, 50]
    base = [3.0 * count + 7 * number for number, count in enumerate(tokens)]
    change = loss_change(base, [nats - 0.1 * count for nats, count in zip(base, tokens, strict=True)], tokens)
    assert change is not None
    assert change.change.low == pytest.approx(-0.1) == change.change.high


def test_without_reference_answers_there_is_no_loss() -> None:
    assert loss_change([], [], []) is None
