"""Runs that differ by their seed alone, taken together: how sure is their mean, and is one group better than another?

    matrix of points, seeds x prompts ─> variance of the mean ─> interval, difference, p

A mean over a few seeds moves with the prompts and with the seeds: another draw of examples, another order of training. A
bootstrap over prompts sees only the first. Here both are drawn at random (two-way random effects, one value a cell: Searle,
Casella and McCulloch 1992, Variance Components, chapter 4). The variance of a mean is that of its prompts plus, for each group,
what its seeds differ by more than chance between prompts explains; degrees of freedom are Satterthwaite's (1946). Pure functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minilima.evaluate.significance import LEVEL, POWER
from minilima.evaluate.statistics import Estimate, Matrix


@dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """A mean over seeds and prompts, or the difference of two."""

    estimate: Estimate
    """The mean, or the first group's minus the second's, in the unit of the values."""
    standard_error: float
    """NaN for a single prompt."""
    p_value: float
    """Two-sided, of a mean or difference of 0; 1 for a single prompt."""
    minimum_detectable: float
    """The true difference that such a comparison finds at the 5 % level in 80 % of repetitions; NaN for a single prompt."""
    seeds: tuple[int, ...]
    """In each group."""
    prompts: int
    p_holm: float | None = None
    """p_value corrected for the number of comparisons made together; None before `significance.holm`."""


def mean_over_seeds(values: Matrix) -> OverSeeds:
    """The mean of a group: `values` has a row for each seed, a column for each prompt, at least one of each."""
    return _estimate(values.mean(axis=0), (values,))


def compare_over_seeds(first: Matrix, second: Matrix) -> OverSeeds:
    """Compares two groups on the same prompts: a row for each seed, a column for each prompt, in the same order of prompts.

    The numbers of seeds may differ. A group of one seed adds nothing for seeds, since what others would do is not known.
    """
    return _estimate(first.mean(axis=0) - second.mean(axis=0), (first, second))


def _estimate(by_prompt: np.ndarray, groups: Sequence[Matrix]) -> OverSeeds:
    # At import it would take most of the time that a comparison takes.
    from scipy.stats import t

    value, prompts = float(by_prompt.mean()), len(by_prompt)
    seeds = tuple(len(group) for group in groups)
    if prompts < 2:
        unknown = Estimate(value=value, low=value, high=value)
        nan = float("nan")
        return OverSeeds(estimate=unknown, standard_error=nan, p_value=1.0, minimum_detectable=nan, seeds=seeds, prompts=prompts)
    variance, freedom = _variance(by_prompt, groups)
    error = float(np.sqrt(variance))
    reach = float(t.ppf(1 - LEVEL / 2, freedom))
    tail = float(t.sf(abs(value) / error, freedom)) if error else float(value == 0) / 2
    return OverSeeds(
        estimate=Estimate(value=value, low=value - reach * error, high=value + reach * error),
        standard_error=error,
        p_value=2 * tail,
        minimum_detectable=(reach + float(t.ppf(POWER, freedom))) * error,
        seeds=seeds,
        prompts=prompts,
    )


def _variance(by_prompt: np.ndarray, groups: Sequence[Matrix]) -> tuple[float, float]:
    """Of the mean of `by_prompt`, and its degrees of freedom."""
    prompts = len(by_prompt)
    of_prompts = float(by_prompt.var(ddof=1)) / prompts
    variance, parts = of_prompts, [(of_prompts, prompts - 1)]
    for group in groups:
        seeds = len(group)
        if seeds < 2:
            continue
        of_seeds = group.mean(axis=1)
        rest = group - of_seeds[:, None] - group.mean(axis=0) + group.mean()
        between = prompts * float(of_seeds.var(ddof=1))
        chance = float((rest**2).sum()) / ((seeds - 1) * (prompts - 1))
        if between > chance:  # chance between prompts is in `of_prompts` already
            variance += (between - chance) / (seeds * prompts)
            parts.append((between / (seeds * prompts), seeds - 1))
    informed = sum(part**2 / freedom for part, freedom in parts)
    return variance, variance**2 / informed if informed else prompts - 1
