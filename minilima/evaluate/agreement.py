"""How often a judge agrees with people or with another judge, on pairs whose better answer is known.

labelled pairs ─> the judge's verdicts ─> agreement and kappa, beside the floor "the longer answer is better"
The pair is the unit of observation: all intervals are bootstrap intervals over pairs. Figures are pure functions of
pairs and verdicts; `build_agreement` is the stage that asks the judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from minilima.evaluate.judge import Pair, counts, judge_pairs, orders_of
from minilima.evaluate.judge_cards import Figure, Measured, Ranking
from minilima.evaluate.statistics import Share, length_preference, positions, resamples, share
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.formats.preferences import LabelledPair, LabelSet, majority, whole
from minilima.formats.records import TIE, Answer, EvalPrompt, OnProgress, Verdict
from minilima.store.job import Job, Outcome

FEWEST_MODELS = 3
"""Two models are always ranked rightly or wrongly; a correlation of ranks needs more."""


def build_agreement(job: Job, on_progress: OnProgress) -> Outcome:
    """Writes verdicts.jsonl on the pairs of its input `pairs`; a win is one for the second answer."""
    rows = [LabelledPair(**row) for row in read_jsonl(job.inputs["pairs"] / "pairs.jsonl")]
    prompts = {row.id: EvalPrompt(id=row.id, instruction=row.instruction, output=row.reference) for row in rows}
    verdicts, usage = judge_pairs(job, [_as_answers(row) for row in rows], prompts, on_progress)
    write_jsonl(job.work / "verdicts.jsonl", verdicts)
    return Outcome(metrics=counts(verdicts), usage=usage)


def _as_answers(pair: LabelledPair) -> Pair:
    first, second = (
        Answer(id=pair.id, instruction=pair.instruction, output=output, generator=name, tokens=0, truncated=False)
        for name, output in (("output_1", pair.output_1), ("output_2", pair.output_2))
    )
    return first, second


def measure(
    labels: LabelSet, verdicts: Mapping[str, Verdict], *, random_order: bool, source: str, command: str, date: str, entry: str
) -> Measured | None:
    """The figures of a judge on a set of pairs; None where no verdict on a pair with a winner could be read.

    Args:
        labels: the pairs with their labels.
        verdicts: the judge's, by the pairs' ids.
        random_order: whether it was asked once, in the order that alpaca_eval draws for each instruction.
        source: where the pairs come from; it, `command`, `date` and `entry` stand in the card.
        command: what was typed.
        date: the day.
        entry: the store entry that holds the verdicts.
    """
    read = [(pair, preference) for pair in labels.pairs if (preference := verdicts[pair.id].preference) is not None]
    decided = [(pair, preference) for pair, preference in read if pair.label != TIE]
    if not decided:
        return None
    ours = [_hit(whole(preference), pair.label) for pair, preference in decided]
    longest = [_hit(longer(pair), pair.label) for pair, _ in decided]
    where = positions([orders_of(verdicts[pair.id], pair.instruction if random_order else None) for pair, _ in read])
    return Measured(
        labels=labels.name,
        by=labels.by,
        data=labels.data,
        pairs=len(labels.pairs),
        unread=len(labels.pairs) - len(read),
        decided=len(decided),
        agreement=_mean(ours),
        kappa=kappa([whole(preference) for _, preference in read], [pair.label for pair, _ in read]),
        longest=_mean(longest),
        gain=_mean([mine - floor for mine, floor in zip(ours, longest, strict=True)]),
        people=people(labels.pairs),
        consistency=_figure(where.consistency),
        first_wins=_figure(where.first_wins),
        longer_wins=_figure(length_preference(*_lengths(read))),
        source=source,
        command=command,
        date=date,
        entry=entry,
    )


def longer(pair: LabelledPair) -> float:
    """The verdict of the rule "the longer answer is better"; a tie where both have the same length."""
    first, second = len(pair.output_1), len(pair.output_2)
    return TIE if first == second else 2.0 if second > first else 1.0


def _hit(verdict: float, label: float) -> float:
    """1 where the verdict names the labelled winner, 0 where it names the other; a tie is as good as a coin."""
    return 0.5 if verdict == TIE else float(verdict == label)


def people(pairs: Sequence[LabelledPair]) -> Figure | None:
    """How often one person agrees with most of the others, where several labelled a pair; None where nobody did.

    Each person is left out in turn, as in alpaca_eval's human agreement; the others must have a winner.
    """
    compared = []
    for pair in pairs:
        hits = []
        for index, label in enumerate(pair.labels):
            others = [*pair.labels[:index], *pair.labels[index + 1 :]]
            if others and (winner := majority(others)) != TIE:
                hits.append(_hit(whole(label), winner))
        compared.append((sum(hits), float(len(hits))))
    return _figure(share(compared))


def kappa(first: Sequence[float], second: Sequence[float]) -> Figure | None:
    """Cohen's kappa (1960) of two lists of verdicts 1, 1.5 and 2: agreement beyond chance; None where chance explains all.

    Resamples in which only one kind of verdict occurs carry no information and are excluded from the interval.
    """
    kinds = (1.0, TIE, 2.0)
    cells = np.array(
        [
            [float((one, two) == (mine, other)) for one in kinds for two in kinds]
            for mine, other in zip(first, second, strict=True)
        ]
    )
    tables = np.vstack([cells.sum(axis=0), resamples(len(cells)) @ cells]).reshape(-1, 3, 3) / len(cells)
    observed = np.trace(tables, axis1=1, axis2=2)
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    known = chance < 1
    if not known[0]:
        return None
    values = (observed[known] - chance[known]) / (1 - chance[known])
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Figure(value=float(values[0]), low=float(low), high=float(high))


def rank(
    sets: Sequence[LabelSet], verdicts: Sequence[Mapping[str, Verdict]], leaderboard: Mapping[str, float], name: str
) -> Ranking:
    """Whether the judge's win rates put models into a leaderboard's order: Spearman's correlation, interval over prompts.

    Args:
        sets: the pairs of one model each, at least FEWEST_MODELS.
        verdicts: on each of them.
        leaderboard: the published win rate of each model.
        name: of the leaderboard.
    """
    from scipy.stats import rankdata

    rates = []
    for labels, by_pair in zip(sets, verdicts, strict=True):
        preferences = [by_pair[pair.id].preference for pair in labels.pairs]
        points = np.array([value for value in preferences if value is not None], dtype=np.float64)
        rates.append(np.concatenate([[points.mean()], resamples(len(points)) @ points / len(points)]))
    models = tuple(str(labels.model) for labels in sets)
    ours = rankdata(np.array(rates), axis=0)
    published = rankdata([leaderboard[model] for model in models])
    centred, theirs = ours - ours.mean(axis=0), published - published.mean()
    spread = np.sqrt((centred**2).sum(axis=0) * (theirs**2).sum())
    # Equal win rates of all models in a resample correlate with nothing.
    values = np.divide(theirs @ centred, spread, out=np.zeros_like(spread), where=spread > 0)
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Ranking(models=models, spearman=Figure(value=float(values[0]), low=float(low), high=float(high)), leaderboard=name)


def _lengths(read: Sequence[tuple[LabelledPair, float]]) -> tuple[list[tuple[int, int]], list[float]]:
    return [(len(pair.output_1), len(pair.output_2)) for pair, _ in read], [preference for _, preference in read]


def _mean(values: Sequence[float]) -> Figure:
    mean = _figure(share([(value, 1.0) for value in values]))
    assert mean is not None, "there are values"
    return mean


def _figure(counted: Share | None) -> Figure | None:
    return None if counted is None else Figure(**asdict(counted.share))
