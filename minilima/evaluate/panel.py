"""Several judges of the same answers: what most of them prefer, and how far any two of them agree.

each judge's verdicts ─> majority ─> a win rate          any two judges ─> Cohen's kappa, Spearman's correlation
The prompt is the unit of observation; a prompt on which a judge has no verdict counts in no figure of that judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from minilima.evaluate.agreement import kappa
from minilima.evaluate.judge_cards import Figure
from minilima.evaluate.statistics import Matrix, Vector, resamples
from minilima.formats.preferences import whole
from minilima.formats.records import TIE, Verdict


@dataclass(frozen=True, kw_only=True)
class Concord:
    """How far two judges agree on the prompts on which both have a verdict."""

    first: str
    second: str
    prompts: int
    same: float
    """Share of the prompts with the same verdict (win, tie, loss)."""
    kappa: Figure | None
    """Cohen's kappa over win, tie and loss; None where chance explains all."""
    spearman: Figure | None
    """Rank correlation of how strongly they prefer the tuned answer; None where a judge gave one verdict to all."""


def majority(verdicts: Sequence[Mapping[str, Verdict]], ids: Sequence[str]) -> list[float | None]:
    """What most judges prefer of each prompt: 2 = the tuned model's answer, 1 = the other, TIE where as many are for either; None
    where no judge has a verdict. A judge's tie is for neither.

    Args:
        verdicts: each judge's, by the prompts' ids.
        ids: of the prompts, in order.
    """
    preferred: list[float | None] = []
    for identity in ids:
        read = [verdict.preference for judge in verdicts if (verdict := judge.get(identity)) is not None]
        votes = [(preference > TIE) - (preference < TIE) for preference in read if preference is not None]
        preferred.append(TIE + 0.5 * float(np.sign(sum(votes))) if votes else None)
    return preferred


def is_split(verdicts: Sequence[Verdict]) -> bool:
    """Whether judges who have a verdict differ in who won, or in whether anybody did."""
    return len({whole(verdict.preference) for verdict in verdicts if verdict.preference is not None}) > 1


def concords(judges: Mapping[str, Mapping[str, Verdict]]) -> tuple[Concord, ...]:
    """The agreement of any two judges, given each one's verdicts by the prompts' ids; none where they share no verdict."""
    found = []
    for (first, ones), (second, others) in combinations(judges.items(), 2):
        both = [
            (ones[identity], others[identity])
            for identity in ones
            if identity in others and ones[identity].preference is not None and others[identity].preference is not None
        ]
        if not both:
            continue
        one, two = ([whole(verdict.preference or TIE) for verdict in side] for side in zip(*both, strict=True))
        strength = [np.array([_strength(verdict) for verdict in side], dtype=np.float64) for side in zip(*both, strict=True)]
        found.append(
            Concord(
                first=first,
                second=second,
                prompts=len(both),
                same=sum(mine == other for mine, other in zip(one, two, strict=True)) / len(both),
                kappa=kappa(one, two),
                spearman=_spearman(*strength),
            )
        )
    return tuple(found)


def _strength(verdict: Verdict) -> float:
    """How strongly a judge prefers the tuned answer: by how much its score is higher, where there are scores."""
    if verdict.scores is not None:
        return verdict.scores[1] - verdict.scores[0]
    return verdict.preference or TIE


def _spearman(first: Vector, second: Vector) -> Figure | None:
    """Spearman's correlation with a bootstrap interval over prompts, of the ranks in the whole sample."""
    from scipy.stats import rankdata

    one, two = rankdata(first), rankdata(second)
    weights: Matrix = np.vstack([np.ones(len(one)), resamples(len(one))]) / len(one)
    means = weights @ one, weights @ two
    products = weights @ (one * two) - means[0] * means[1]
    spread = np.sqrt((weights @ one**2 - means[0] ** 2).clip(0) * (weights @ two**2 - means[1] ** 2).clip(0))
    known = spread > 1e-9
    if not known[0]:
        return None
    values = products[known] / spread[known]
    low, high = np.percentile(values[1:], [2.5, 97.5]) if len(values) > 1 else (values[0], values[0])
    return Figure(value=float(values[0]), low=float(low), high=float(high))
