"""Finished runs that differ by their seed alone, as groups: the mean win rate of each, and how far groups differ.

points ─> groups of equal settings but for the seed ─> points by prompt, seeds x prompts ─> evaluate/over_seeds.py
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minilima.evaluate.over_seeds import OverSeeds, compare_over_seeds, mean_over_seeds
from minilima.evaluate.significance import holm, in_points
from minilima.evaluate.statistics import Matrix
from minilima.report.judgments import unlike
from minilima.report.runs import FinishedRun

SEED = "seed"


@dataclass(frozen=True, kw_only=True)
class SeedGroup:
    """Runs that differ by their seed alone."""

    runs: tuple[FinishedRun, ...]
    mean: OverSeeds
    """Of the win rate, in percent, over the prompts with a verdict in all of its runs; its test is not of 50 %."""
    spread: float
    """Standard deviation of its runs' win rates, in points."""
    against: OverSeeds | None = None
    """How it differs from the chosen group, in points; None where none was chosen, for that one, and with a note."""
    note: str = ""
    """Why it cannot be compared."""
    chosen: bool = False
    """Whether the others are compared with it."""


def group_by_seed(
    points: Sequence[FinishedRun], settings: Sequence[str], against: FinishedRun | None = None
) -> tuple[SeedGroup, ...]:
    """Groups of several seeds, the highest mean first; none where no two runs differ by their seed alone.

    Args:
        points: the runs.
        settings: names of the settings in which they differ.
        against: with its group the others are compared.
    """
    groups: dict[tuple[str, ...], list[FinishedRun]] = {}
    for point in points:
        if point.results.win_rate is not None:  # else too few of its prompts have a verdict
            key = (*(repr(point.settings.get(name)) for name in settings if name != SEED), *point.yardstick.values())
            groups.setdefault(key, []).append(point)
    several = [runs for runs in groups.values() if len({repr(run.settings.get(SEED)) for run in runs}) > 1]
    made = [group for runs in several if (group := _group(runs)) is not None]
    chosen = next((group for group in made if against in group.runs), None)
    if chosen is not None:
        made = _against(made, chosen)
    return tuple(sorted(made, key=lambda group: -group.mean.estimate.value))


def notes_on_seeds(groups: Sequence[SeedGroup]) -> list[str]:
    """What a reader must know to read the groups correctly."""
    every = max(run.results.coverage.prompts for group in groups for run in group.runs) if groups else 0
    lines = [
        "Means are over seeds and prompts; their 95 % intervals hold both.",
        "Spread: standard deviation of the runs' win rates.",
    ]
    if (fewest := min((group.mean.prompts for group in groups), default=0)) < every:
        lines.append(f"Only prompts with a verdict in all runs of a group count, {fewest} of {every} in one of them.")
    if any(group.against for group in groups):
        lines.append("p: two-sided, with Holm's correction over the groups. Detectable: at 80 % power, with as many seeds.")
    return lines


def _group(runs: Sequence[FinishedRun]) -> SeedGroup | None:
    prompts = _shared(runs)
    if not prompts:
        return None
    values = _matrix(runs, prompts)
    mean = mean_over_seeds(values)
    # No rate lies beyond; the interval of the model does where nearly all prompts are won, or lost.
    within = replace(mean.estimate, low=max(0.0, mean.estimate.low), high=min(100.0, mean.estimate.high))
    return SeedGroup(runs=tuple(runs), mean=replace(mean, estimate=within), spread=float(values.mean(axis=1).std(ddof=1)))


def _against(groups: Sequence[SeedGroup], chosen: SeedGroup) -> list[SeedGroup]:
    compared = [group if group is not chosen else replace(group, chosen=True) for group in groups]
    for place, group in enumerate(groups):
        if group is chosen:
            continue
        if other := unlike(group.runs[0].yardstick, chosen.runs[0].yardstick):
            compared[place] = replace(group, note=f"cannot be compared: other {other}")
        elif not (prompts := _shared([*group.runs, *chosen.runs])):
            compared[place] = replace(group, note="cannot be compared: no prompt has a verdict in all runs")
        else:
            found = compare_over_seeds(_matrix(group.runs, prompts), _matrix(chosen.runs, prompts))
            compared[place] = replace(group, against=found)
    p_values = iter(holm([group.against.p_value for group in compared if group.against]))
    return [
        replace(group, against=replace(group.against, p_holm=next(p_values))) if group.against else group for group in compared
    ]


def _shared(runs: Sequence[FinishedRun]) -> list[str]:
    """Ids of the prompts that have a verdict in all of the runs."""
    return [prompt for prompt in runs[0].preferences if all(prompt in run.preferences for run in runs)]


def _matrix(runs: Sequence[FinishedRun], prompts: Sequence[str]) -> Matrix:
    """What each prompt adds to the win rate of each run, in points: a row for each run."""
    return np.array([in_points(*_judged(run, prompts)) for run in runs])


def _judged(run: FinishedRun, prompts: Sequence[str]) -> tuple[list[float], list[float] | None]:
    weights = [run.weights.get(prompt, 1.0) for prompt in prompts] if run.weights else None
    return [run.preferences[prompt] for prompt in prompts], weights
