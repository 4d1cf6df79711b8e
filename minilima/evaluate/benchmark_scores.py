"""What alignment cost or gained: scores of base and tuned model on the same items of a benchmark, paired. Pure but for reading.

items.jsonl of both models ─> BenchmarkChange: both figures, the change with its interval, McNemar's exact test, Holm's correction
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minilima.evaluate.significance import Paired, compare, holm
from minilima.evaluate.statistics import Estimate, share
from minilima.formats.files import read_jsonl
from minilima.formats.records import BASE, TUNED

ITEMS = "items.jsonl"
"""A benchmark's rows: `id`, and `scores` from 0 to 1 by the name of the figure, the main figure first."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkChange:
    """One figure of one benchmark, base against tuned, in percent and percentage points."""

    task: str
    figure: str
    main: bool
    """Whether it is the benchmark's first figure, by which it is tested."""
    items: int
    base: Estimate
    tuned: Estimate
    paired: Paired
    """Tuned minus base; an item counts as gained or lost where one model's score is above 0.5 and the other's is not."""
    p_holm: float | None = None
    """McNemar's p corrected for the number of benchmarks; None for further figures of a benchmark."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "BenchmarkChange":
        """As it stands in run.json."""
        paired = Paired(**{**values["paired"], "difference": Estimate(**values["paired"]["difference"])})
        return cls(**{**values, "base": Estimate(**values["base"]), "tuned": Estimate(**values["tuned"]), "paired": paired})


def read_benchmarks(folders: Mapping[str, Path]) -> tuple[BenchmarkChange, ...]:
    """All benchmarks of a run, in its order.

    Args:
        folders: the store entry of each stage by its role.
    """
    changes: list[BenchmarkChange] = []
    for role, folder in folders.items():
        task = role.removesuffix(TUNED)
        if role.endswith(TUNED) and (base := folders.get(task + BASE)) is not None:
            changes += changes_on(task, read_jsonl(base / ITEMS), read_jsonl(folder / ITEMS))
    corrected = iter(holm([change.paired.p_mcnemar for change in changes if change.main]))
    return tuple(replace(change, p_holm=next(corrected)) if change.main else change for change in changes)


def changes_on(task: str, base: Sequence[Mapping[str, Any]], tuned: Sequence[Mapping[str, Any]]) -> list[BenchmarkChange]:
    """Each figure of a benchmark, over the items that both models have a score on."""
    before = {row["id"]: row["scores"] for row in base}
    changes: list[BenchmarkChange] = []
    for figure in tuned[0]["scores"] if tuned else ():
        pairs = [(before[row["id"]][figure], row["scores"][figure]) for row in tuned if figure in before.get(row["id"], {})]
        if pairs:
            changes.append(_change(task, figure, pairs, main=not changes))
    return changes


def _change(task: str, figure: str, pairs: Sequence[tuple[float, float]], *, main: bool) -> BenchmarkChange:
    # On the scale of preferences, 1 to 2, so that the paired comparison is the one that verdicts have.
    paired = compare([1 + after for _, after in pairs], [1 + before for before, _ in pairs])
    base, tuned = (_percent([pair[side] for pair in pairs]) for side in (0, 1))
    return BenchmarkChange(task=task, figure=figure, main=main, items=len(pairs), base=base, tuned=tuned, paired=paired)


def _percent(scores: Sequence[float]) -> Estimate:
    measured = share([(score, 1.0) for score in scores])
    assert measured is not None, "there are items"
    return Estimate(value=100 * measured.share.value, low=100 * measured.share.low, high=100 * measured.share.high)
