"""Win rates and loss changes with their uncertainty. Pure functions over numbers.

The prompt is the unit of observation everywhere: two orders of one prompt are one observation, and so are the tokens of
one reference answer. Intervals are percentile bootstrap intervals over prompts (Efron and Tibshirani 1993, chapter 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from minilima.formats.records import TIE

RESAMPLES = 10_000

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, form: str = ".1f", unit: str = "", *, brief: bool = False) -> str:
        """`62.5 %, 95 % interval 51.0 to 74.1`; where it is brief, for a table whose heading names the interval,
        `62.5 % (51.0 to 74.1)`.

        Args:
            form: of each number, e.g. `+.2f` or `.0%`.
            unit: after the value, e.g. ` %` or ` points`.
            brief: whether the words are left out.
        """
        bounds = self.bounds(form)
        return f"{self.value:{form}}{unit} ({bounds})" if brief else f"{self.value:{form}}{unit}, 95 % interval {bounds}"

    def bounds(self, form: str = ".1f", scale: float = 1) -> str:
        """`51.0 to 74.1`: the interval alone, times `scale`, where the value stands beside it in other letters."""
        return f"{scale * self.low:{form}} to {scale * self.high:{form}}"


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

    @property
    def discrete_win_rate(self) -> float:
        """The win rate in percent after each verdict is rounded to win, loss or tie, as alpaca_eval computes it."""
        return (self.wins + self.ties / 2) / self.judged * 100


def win_rate(preferences: Sequence[float | None], weights: Sequence[float | None] | None = None) -> WinRate | None:
    """The win rate of a list of preferences.

    Args:
        preferences: 1 = reference model wins, 2 = tuned model wins, between = partly (alpaca_eval's scale); None = unread.
        weights: how often each counts, None = once; for judges whose strong verdicts count more, as Arena-Hard's.

    Returns:
        None if no verdict could be read.
    """
    counted = zip(preferences, weights or [None] * len(preferences), strict=True)
    pairs = [(preference, weight or 1.0) for preference, weight in counted if preference is not None]
    if not pairs:
        return None
    read, often = np.array(pairs, dtype=np.float64).T
    wins = read - 1
    # A weighted mean has the spread of its linear part (Cochran 1977, section 6.3).
    even = bool((often == 1).all())
    linear = wins if even else often / often.mean() * (wins - (often * wins).sum() / often.sum())
    spread = float(np.sqrt(linear.var(ddof=1)) / np.sqrt(len(wins)) * 100) if len(wins) > 1 else float("nan")
    # alpaca_eval takes 100 times the mean, not the mean of 100 times each: so the last digit is its own too.
    value = float((often * wins).sum() / often.sum() * 100)
    return WinRate(
        win_rate=replace(_bootstrap_ratio(often * wins * 100, often), value=value),
        standard_error=spread,
        wins=int((read > TIE).sum()),
        losses=int((read < TIE).sum()),
        ties=int((read == TIE).sum()),
        judged=len(read),
        prompts=len(preferences),
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


@dataclass(frozen=True, kw_only=True)
class ScoreChange:
    """Mean scores of two models' answers to the same prompts, and the paired change."""

    base: Estimate
    tuned: Estimate
    change: Estimate
    """tuned - base."""
    prompts: int


def score_change(scores: Sequence[tuple[float, float]]) -> ScoreChange | None:
    """The means of (reference model's, tuned model's) scores and their change; None where there are none."""
    if not scores:
        return None
    base, tuned = np.array(scores, dtype=np.float64).T
    once = np.ones_like(base)
    return ScoreChange(
        base=_bootstrap_ratio(base, once),
        tuned=_bootstrap_ratio(tuned, once),
        change=_bootstrap_ratio(tuned - base, once),
        prompts=len(scores),
    )


@dataclass(frozen=True, kw_only=True)
class Share:
    """How often something held, 0 to 1, among the comparisons that decide it."""

    share: Estimate
    decided: int

    def text(self) -> str:
        """`64% of 90, 95 % interval 54% to 73%`."""
        return self.share.text(".0%", f" of {self.decided:,}")


def length_preference(lengths: Sequence[tuple[int, int]], preferences: Sequence[float | None]) -> Share | None:
    """How often the longer answer won, among pairs of unequal length with a winner.

    0.5 = length made no difference; the people in AlpacaEval's data chose the longer one in 64 % of the pairs.

    Args:
        lengths: (reference model's, tuned model's) answer of each prompt, in characters.
        preferences: as for `win_rate`.

    Returns:
        None where no pair decides it.
    """
    longer = [
        float((preference > TIE) == (second > first))
        for (first, second), preference in zip(lengths, preferences, strict=True)
        if preference is not None and preference != TIE and first != second
    ]
    return share([(hit, 1.0) for hit in longer])


@dataclass(frozen=True, kw_only=True)
class Positions:
    """How verdicts depend on the position of an answer; a part is None where it is not known."""

    consistency: Share | None
    """How often both orders led to the same winner, or to a tie, among prompts that were asked about in both."""
    first_wins: Share | None
    """P(first wins): how often the answer shown first won; 0.5 for a judge that does not care."""


def positions(orders: Sequence[Sequence[float]]) -> Positions:
    """How verdicts depend on the position of an answer.

    Args:
        orders: as for `position_preference`; a prompt that was asked about in one order has one entry.
    """
    agreed = [float(np.sign(pair[0] - TIE) == np.sign(pair[1] - TIE)) for pair in orders if len(pair) == 2]
    return Positions(consistency=share([(hit, 1.0) for hit in agreed]), first_wins=position_preference(orders))


def position_preference(orders: Sequence[Sequence[float]]) -> Share | None:
    """How often the answer shown first won: P(first wins), 0.5 for a judge that does not care.

    Args:
        orders: for each prompt the preferences in each order, as for `win_rate`: first with the reference model's answer
            shown first, then (where asked) with the tuned model's. Ties decide nothing.
    """
    prompts = []
    for pair in orders:
        decided = [float((preference < TIE) == (order == 0)) for order, preference in enumerate(pair) if preference != TIE]
        prompts.append((sum(decided), float(len(decided))))
    return share(prompts)


def share(prompts: Sequence[tuple[float, float]]) -> Share | None:
    """The share of hits, given (hits, comparisons) of each prompt; None where nothing was compared."""
    compared = [pair for pair in prompts if pair[1]]
    if not compared:
        return None
    hits, weights = np.array(compared, dtype=np.float64).T
    return Share(share=_bootstrap_ratio(hits, weights), decided=int(weights.sum()))


@lru_cache(maxsize=1)
def resamples(count: int) -> Matrix:
    """How often each of `count` prompts is drawn in each of RESAMPLES bootstrap samples.

    Every figure over the same number of prompts uses the same samples, so that differences between figures are paired.
    """
    # Multinomial counts are the same as drawing prompts with replacement, without an index array of n times RESAMPLES.
    counts = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return counts.astype(np.float64)


def _bootstrap_ratio(values: Vector, weights: Vector) -> Estimate:
    """sum(values) / sum(weights) with a 95 % percentile interval over resampled prompts."""
    counts = resamples(len(values))
    low, high = np.percentile((counts @ values) / (counts @ weights), [2.5, 97.5])
    return Estimate(value=float(values.sum() / weights.sum()), low=float(low), high=float(high))
