"""What came out of a run, as values: its stages, the files that it was made from, and the figures."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minilima.evaluate.benchmark_scores import BenchmarkChange
from minilima.evaluate.results import Results
from minilima.report.panel import Panel


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """What one stage did in this run. `seconds` is the time it took here: 0 if it was reused."""

    role: str
    how: str
    seconds: float
    directory: str
    metrics: dict[str, Any]
    usage: dict[str, Any]
    outcome: str = ""
    """What came out, in a few words."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file from outside that stages of the run were made from."""

    what: str
    """seeds, data, eval_set, dev_set, reference or annotators."""
    name: str
    path: str
    sha256: str
    """As it entered the stages' keys."""
    stages: tuple[str, ...]
    """Their roles."""
    hub: str | None = None
    """owner/name:split@commit of a split on the hub."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came out of a run; `run.json` holds the same."""

    name: str
    folder: Path
    stages: tuple[StageEntry, ...]
    results: Results | None
    judge: str
    sources: tuple[SourceFile, ...] = ()
    notes: tuple[str, ...] = ()
    benchmarks: tuple[BenchmarkChange, ...] = ()
    """What alignment cost or gained, without a judge."""

    panel: Panel | None = None
    """What all judges say on all evaluation sets, where there are several."""

    @property
    def score(self) -> float | None:
        """The win rate in percent, the objective of a search; None where there is none."""
        rate = self.results.win_rate if self.results else None
        return rate.win_rate.value if rate else None

    @property
    def built(self) -> bool:
        """Whether anything was built in this run."""
        return any(stage.how == "built" for stage in self.stages)


def with_note(summary: Summary, note: str) -> Summary:
    """The summary with one more line for its end."""
    return replace(summary, notes=(*summary.notes, note))
