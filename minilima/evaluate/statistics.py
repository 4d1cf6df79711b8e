"""Win rates and loss changes with their uncertainty. Pure functions over numbers.

The prompt is the unit of observation everywhere: two orders of one prompt are one observation, and so are the tokens of
one reference answer. Intervals are percentile bootstrap intervals over prompts (Efron and Tibshirani 1993, chapter 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class WinRate:
    """The tuned model's win rate in percent (ties count half), with AlpacaEval's counts and standard error."""

    win_rate: Estimate
    standard_error: float
    """Sample standard deviation over the square root of n, in percentage points, as alpaca_eval computes it."""
    wins: int
    losses: int
    ties: int
    judged: int
    prompts: int
    """Prompts in all; `judged` of them have a verdict that could be read."""
    position_consistency: float | None
    """Share of the prompts, 0 to 1, on which both orders led to the same winner; None if asked in one order."""


def win_rate(preferences: Sequence[float | None], orders: Sequence[Sequence[float]] = ()) -> WinRate | None:
    """The win rate of a list of preferences.

    Args:
        preferences: 1 = reference model wins, 2 = tuned model wins, between = partly (alpaca_eval's scale); None = unread.
        orders: the preference in each order of presentation for each prompt, where there were two.

    Returns:
        None if no verdict could be read.
    """
    read = np.array([preference for preference in preferences if preference is not None], dtype=np.float64)
    if not len(read):
        return None
    points = (read - 1) * 100
    spread = float(points.std(ddof=1) / np.sqrt(len(points))) if len(points) > 1 else float("nan")
    both = [pair for pair in orders if len(pair) == 2]
    return WinRate(
        win_rate=_bootstrap_ratio(points, np.ones_like(points)),
        standard_error=spread,
        wins=int((read > 1.5).sum()),
        losses=int((read < 1.5).sum()),
        ties=int((read == 1.5).sum()),
        judged=len(read),
        prompts=len(preferences),
        position_consistency=float(np.mean([pair[0] == pair[1] for pair in both])) if both else None,
    )


@dataclass(frozen=True, kw_only=True)
class LossChange:
    """Loss on the reference answers, in nats per token: before, after, and the paired change."""

    base: float
    tuned: float
    change: Estimate
    """tuned - base; below 0 = the reference answers have become less surprising."""
    prompts: int
    improved: int
    """Prompts whose reference answer became less surprising."""


def loss_change(base: Sequence[float], tuned: Sequence[float], tokens: Sequence[int]) -> LossChange | None:
    """The change in loss per token from base to tuned model on the same reference answers.

    Args:
        base: nats of each reference answer under the base model, summed over its tokens.
        tuned: the same under the tuned model.
        tokens: tokens of each reference answer.

    Returns:
        None where there are no reference answers.
    """
    if not tokens:
        return None
    before, after, weight = (np.asarray(values, dtype=np.float64) for values in (base, tuned, tokens))
    return LossChange(
        base=float(before.sum() / weight.sum()),
        tuned=float(after.sum() / weight.sum()),
        change=_bootstrap_ratio(after - before, weight),
        prompts=len(weight),
        improved=int((after < before).sum()),
    )


def _bootstrap_ratio(
    values: "np.ndarray[tuple[int], np.dtype[np.float64]]", weights: "np.ndarray[tuple[int], np.dtype[np.float64]]"
) -> Estimate:
    """sum(values) / sum(weights) with a 95 % percentile interval over resampled prompts."""
    count = len(values)
    # Multinomial counts are the same as drawing prompts with replacement, without an index array of n times RESAMPLES.
    counts = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    low, high = np.percentile((counts @ values) / (counts @ weights), [2.5, 97.5])
    return Estimate(value=float(values.sum() / weights.sum()), low=float(low), high=float(high))
