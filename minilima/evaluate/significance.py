"""Paired comparisons of runs that answered the same prompts: is one better than the other, and could we have seen it?

Runs judged on the same prompts share what makes a prompt hard, so their verdicts are correlated (r = 0.36 to 0.68 between
published AlpacaEval runs); the paired difference has a smaller error than two separate win rates suggest. Pure functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from minilima.evaluate.statistics import RESAMPLES, Estimate, Vector, resamples
from minilima.formats.records import TIE

Weights = tuple[Sequence[float], Sequence[float]]

LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The difference of two runs' win rates, first minus second, in percentage points."""

    difference: Estimate
    standard_error: float
    """Of the mean paired difference: sample standard deviation over the square root of n. NaN for a single prompt."""
    p_bootstrap: float
    """Two-sided, from the bootstrap distribution of the difference; never below 2 / (RESAMPLES + 1)."""
    p_mcnemar: float
    """Exact test on the prompts where one run did better than the other in whole verdicts (win, tie, loss)."""
    first_better: int
    second_better: int
    minimum_detectable: float
    """The true difference, in points, that such a comparison finds at the 5 % level in 80 % of repetitions."""
    prompts: int
    p_holm: float | None = None
    """p_bootstrap corrected for the number of comparisons made together; None before `holm`."""


def compare(first: Sequence[float], second: Sequence[float], weights: Weights | None = None) -> Paired:
    """Compares two runs on the same prompts.

    Args:
        first: the first run's preferences, 1 to 2 (alpaca_eval's scale), prompt by prompt; at least one.
        second: the second run's, in the same order of prompts.
        weights: how often each prompt counts in the first run's win rate and in the second's; None = once.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    difference = (one - two) * 100 if weights is None else in_points(one, weights[0]) - in_points(two, weights[1])
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else float("nan")
    estimate, p_value = _bootstrap(difference)
    first_better, second_better = _discordant(one, two)
    return Paired(
        difference=estimate,
        standard_error=error,
        p_bootstrap=p_value,
        p_mcnemar=mcnemar(first_better, second_better),
        first_better=first_better,
        second_better=second_better,
        minimum_detectable=minimum_detectable(error),
        prompts=len(difference),
    )


def in_points(preferences: Sequence[float] | Vector, weights: Sequence[float] | None = None) -> Vector:
    """What each prompt adds to the win rate, in points: values whose mean it is. Weighted ones have its spread to first order
    (Cochran 1977, section 6.3).

    Args:
        preferences: 1 to 2, prompt by prompt.
        weights: how often each prompt counts; None = once.
    """
    points = (np.asarray(preferences, dtype=np.float64) - 1) * 100
    if weights is None:
        return points
    often = np.asarray(weights, dtype=np.float64)
    rate = (often * points).sum() / often.sum()
    return np.asarray(rate + often / often.mean() * (points - rate))


def against_half(preferences: Sequence[float], weights: Sequence[float] | None = None) -> Paired:
    """A run's win rate compared with 50 %, as if the other side's answers were no better and no worse: same arguments."""
    once = [1.0] * len(preferences)
    return compare(preferences, [TIE] * len(preferences), (weights, once) if weights is not None else None)


def _bootstrap(difference: Vector) -> tuple[Estimate, float]:
    """The mean difference with its percentile interval, and the p-value that goes with it.

    The p-value is twice the share of resampled differences on the other side of zero, the level at which a percentile
    interval would just touch zero; 1 is added to both counts, since the sample itself is one of the draws (Davison and
    Hinkley 1997, section 4.2).
    """
    means = resamples(len(difference)) @ difference / len(difference)
    low, high = np.percentile(means, [2.5, 97.5])
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    # A single prompt is drawn again and again: its resamples say nothing of how prompts differ.
    p_value = min(1.0, 2 * (tail + 1) / (RESAMPLES + 1)) if len(difference) > 1 else 1.0
    return Estimate(value=float(difference.mean()), low=float(low), high=float(high)), p_value


def _discordant(first: Vector, second: Vector) -> tuple[int, int]:
    """Prompts on which the first run did better, and on which the second did, in whole verdicts."""
    better = np.sign(first - TIE) - np.sign(second - TIE)
    return int((better > 0).sum()), int((better < 0).sum())


def mcnemar(first_better: int, second_better: int) -> float:
    """The exact McNemar test (1947): under the null hypothesis either run is the better one equally often.

    With ties a prompt counts for the run with the better verdict, which makes it the sign test; without ties the two are
    the same. 1 where the runs differ nowhere.
    """
    discordant = first_better + second_better
    # Both tails of the binomial distribution with 1/2 are equal. Whole numbers, so that no count is too large.
    # scipy.stats.binomtest gives the same, but its import would take most of the time that a repeated run takes.
    tail, ways = 0, 1
    for count in range(min(first_better, second_better) + 1):
        tail += ways
        ways = ways * (discordant - count) // (count + 1)
    return min(1.0, 2 * tail / (1 << discordant))


def minimum_detectable(standard_error: float, level: float = LEVEL, power: float = POWER) -> float:
    """The true difference that a two-sided test finds with probability `power`; in the unit of the standard error.

    (z(1 - level/2) + z(power)) times the error: 2.80 times for 5 % and 80 % (Cohen 1988, by the normal approximation).
    """
    return (NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(power)) * standard_error


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected so that the chance of any false finding among them stays at the level (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        # A larger p-value never becomes the more convincing one by having a smaller factor.
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def p_text(value: float) -> str:
    """A p-value for a sentence."""
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.4f}"


def p_brief(value: float) -> str:
    """A p-value for a table whose heading says what it is."""
    return p_text(value).removeprefix("p ").removeprefix("= ")
