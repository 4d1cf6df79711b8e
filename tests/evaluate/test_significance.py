"""Paired comparisons: they find what is there at the rate they promise, and little else."""

import numpy as np
import pytest

from minilima.evaluate.significance import compare, holm, mcnemar, minimum_detectable


def verdicts(rng: np.random.Generator, hardness: "np.ndarray[tuple[int], np.dtype[np.float64]]", skill: float) -> list[float]:
    """Whole verdicts of a run on prompts that are equally hard for every run."""
    wins = rng.random(len(hardness)) < 1 / (1 + np.exp(hardness - skill))
    return [2.0 if win else 1.0 for win in wins]


def test_a_run_compared_with_itself_differs_in_nothing() -> None:
    found = compare([1, 2, 1.5, 1.25], [1, 2, 1.5, 1.25])
    assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
    assert (found.p_bootstrap, found.p_mcnemar, found.standard_error) == (1, 1, 0)


def test_exchanging_the_runs_turns_the_sign_and_nothing_else() -> None:
    one, two = [2, 2, 2, 1.5, 1, 2, 1.7], [1, 2, 1.5, 1.5, 1, 1, 1.9]
    there, back = compare(one, two), compare(two, one)
    assert there.difference.value == -back.difference.value == pytest.approx(230 / 7)
    assert (there.difference.low, there.difference.high) == pytest.approx((-back.difference.high, -back.difference.low))
    assert there.p_bootstrap == back.p_bootstrap
    assert (there.first_better, there.second_better) == (back.second_better, back.first_better) == (3, 0)


def test_pairing_sees_a_small_difference_that_two_separate_errors_hide() -> None:
    # 200 prompts, half won by both runs; the second run also wins 12 more.
    first = [2.0] * 100 + [1.0] * 100
    second = [2.0] * 112 + [1.0] * 88
    found = compare(second, first)
    separate = 100 * np.sqrt(np.var(first, ddof=1) / 200 + np.var(second, ddof=1) / 200)
    assert found.standard_error < separate / 2
    assert found.difference.value < 1.96 * separate, "two separate win rates could not tell"
    assert found.difference.low > 0 and found.p_bootstrap < 0.01 and found.p_mcnemar < 0.01


def test_equal_runs_are_called_different_about_5_times_in_100() -> None:
    rng = np.random.default_rng(3)
    found = [
        compare(verdicts(rng, hardness, 0), verdicts(rng, hardness, 0)) for hardness in (rng.normal(size=80) for _ in range(300))
    ]
    false = sum(item.p_bootstrap < 0.05 for item in found)
    assert 4 <= false <= 30  # 15 expected; 4 and 30 lie about 3 standard deviations off
    assert sum(item.p_mcnemar < 0.05 for item in found) <= false + 3, "the exact test is the more cautious one"


def test_the_minimum_detectable_difference_is_found_about_80_times_in_100() -> None:
    rng = np.random.default_rng(4)
    spread, count, repetitions = 30.0, 100, 300
    true = minimum_detectable(spread / np.sqrt(count))
    assert true == pytest.approx(2.8016 * 3, abs=1e-3)
    hits = 0
    for _ in range(repetitions):
        difference = np.clip(rng.normal(true, spread, size=count) / 100, -1, 1)
        hits += compare([1.5 + value / 2 for value in difference], [1.5 - value / 2 for value in difference]).p_bootstrap < 0.05
    assert 0.72 <= hits / repetitions <= 0.88


@pytest.mark.parametrize(("counts", "p_value"), [((0, 0), 1.0), ((5, 5), 1.0), ((0, 6), 2 / 64), ((1, 7), 18 / 256)])
def test_mcnemar_is_exact(counts: tuple[int, int], p_value: float) -> None:
    assert mcnemar(*counts) == pytest.approx(p_value)


def test_holm_multiplies_by_what_is_left_and_never_reverses_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_single_prompt_has_no_error_and_proves_nothing() -> None:
    found = compare([2.0], [1.0])
    assert np.isnan(found.standard_error) and np.isnan(found.minimum_detectable)
    assert found.p_mcnemar == found.p_bootstrap == 1
