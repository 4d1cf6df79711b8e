"""Means over seeds and prompts: their error is the one that repeating everything would show."""

import numpy as np
import pytest

from minilima.evaluate.over_seeds import OverSeeds, compare_over_seeds, mean_over_seeds
from minilima.evaluate.statistics import Matrix

PROMPTS, SEEDS = 60, 5


def group(random: np.random.Generator, hardness: np.ndarray, spread: float, gain: float = 0.0, seeds: int = SEEDS) -> Matrix:
    """Points of one method: `spread` is how far its seeds are apart."""
    shift = random.normal(gain, spread, (seeds, 1)) if spread else np.full((seeds, 1), gain)
    return np.asarray(hardness + shift + random.normal(0, 30, (seeds, PROMPTS)))


def repeated(spread: float, times: int = 600) -> list[OverSeeds]:
    random = np.random.default_rng(7)
    found = []
    for _ in range(times):
        hardness = random.normal(0, 25, PROMPTS)
        found.append(compare_over_seeds(group(random, hardness, spread), group(random, hardness, spread)))
    return found


@pytest.mark.parametrize("spread", [0.0, 4.0, 10.0])
def test_the_error_is_what_repeating_prompts_and_trainings_would_show(spread: float) -> None:
    found = repeated(spread)
    seen = np.std([one.estimate.value for one in found])
    assert np.sqrt(np.mean([one.standard_error**2 for one in found])) == pytest.approx(seen, rel=0.12)
    assert np.mean([one.p_value < 0.05 for one in found]) < 0.08, "equal groups are called different no more often than allowed"
    assert np.mean([one.estimate.low <= 0 <= one.estimate.high for one in found]) > 0.92


def test_seeds_that_differ_widen_the_interval_of_a_mean() -> None:
    random = np.random.default_rng(1)
    hardness = random.normal(0, 10, PROMPTS)
    close, apart = (mean_over_seeds(group(random, hardness, spread, gain=50)) for spread in (0.0, 20.0))
    assert apart.standard_error > 2 * close.standard_error
    assert apart.estimate.low < 50 < apart.estimate.high


def test_a_hand_worked_case() -> None:
    # Means of seeds 1 and 5, of prompts 2 and 4; no cell differs from what its row and column say: no chance is left.
    values = np.array([[0.0, 2.0], [4.0, 6.0]])
    found = mean_over_seeds(values)
    assert found.estimate.value == 3.0
    # Of prompts: variance 2 over 2 prompts; of seeds: variance 8 over 2 seeds.
    assert found.standard_error == pytest.approx(np.sqrt(2 / 2 + 8 / 2))
    assert (found.seeds, found.prompts) == ((2,), 2)


def test_one_seed_is_compared_over_prompts_alone_and_one_prompt_tells_nothing() -> None:
    random = np.random.default_rng(2)
    first, second = (random.normal(gain, 10, (1, PROMPTS)) for gain in (8.0, 0.0))
    found = compare_over_seeds(first, second)
    difference = (first - second)[0]
    assert found.standard_error == pytest.approx(difference.std(ddof=1) / np.sqrt(PROMPTS))
    assert found.p_value < 0.01
    alone = compare_over_seeds(first[:, :1], second[:, :1])
    assert alone.p_value == 1.0 and np.isnan(alone.standard_error) and np.isnan(alone.minimum_detectable)


def test_groups_that_are_equal_everywhere_do_not_differ() -> None:
    same = np.ones((3, 4))
    found = compare_over_seeds(same, same)
    assert found.estimate.value == 0 and found.p_value == 1.0


def test_a_difference_that_is_detectable_is_found_four_times_in_five() -> None:
    random = np.random.default_rng(3)
    hardness = random.normal(0, 25, PROMPTS)
    asked = np.median([one.minimum_detectable for one in repeated(3.0, times=60)])
    found = [
        compare_over_seeds(group(random, hardness, 3.0, gain=asked), group(random, hardness, 3.0)).p_value < 0.05
        for _ in range(300)
    ]
    assert 0.7 < np.mean(found) < 0.92
