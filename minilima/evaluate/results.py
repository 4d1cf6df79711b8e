"""The figures of a run, from the files of its last stages. Cheap, so computed anew whenever they are shown."""

from dataclasses import dataclass
from pathlib import Path

from minilima.evaluate.statistics import LossChange, WinRate, loss_change, win_rate
from minilima.files import read_jsonl
from minilima.records import ReferenceLoss, Verdict


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many of the prompts have a verdict that could be read, and the share that there must be for a win rate."""

    judged: int
    prompts: int
    minimum: float

    @property
    def enough(self) -> bool:
        return 0 < self.judged >= self.minimum * self.prompts

    def __str__(self) -> str:
        return f"{self.judged:,} of {self.prompts:,} prompts judged"

    def refusal(self) -> str:
        """Why there is no win rate, where `enough` is False."""
        share = f"{self.judged / max(1, self.prompts):.1%}, less than judge.min_coverage={self.minimum:g}"
        return f"No win rate: {self} ({share}). What could not be read is rarely a fair sample of the rest."


@dataclass(frozen=True, kw_only=True)
class Results:
    """What an experiment found; a part is None where it cannot be known."""

    coverage: Coverage
    win_rate: WinRate | None
    """None where the coverage is not enough."""
    loss_change: LossChange | None


def compute_results(*, verdicts: Path, answers: Path, reference: Path, min_coverage: float) -> Results:
    """The results of a run.

    Args:
        verdicts: store entry with verdicts.jsonl.
        answers: store entry of the tuned model's answers, with reference_loss.jsonl.
        reference: store entry of the base model's.
        min_coverage: share of the prompts, 0 to 1, that must have a verdict for a win rate to be given.
    """
    judged = [Verdict(**row) for row in read_jsonl(verdicts / "verdicts.jsonl")]
    tuned = {row["id"]: ReferenceLoss(**row) for row in read_jsonl(answers / "reference_loss.jsonl")}
    base = [ReferenceLoss(**row) for row in read_jsonl(reference / "reference_loss.jsonl")]
    preferences = [verdict.preference for verdict in judged]
    read = sum(preference is not None for preference in preferences)
    coverage = Coverage(judged=read, prompts=len(judged), minimum=min_coverage)
    return Results(
        coverage=coverage,
        win_rate=win_rate(preferences, [verdict.orders for verdict in judged]) if coverage.enough else None,
        loss_change=loss_change(
            [loss.nats for loss in base], [tuned[loss.id].nats for loss in base], [loss.tokens for loss in base]
        ),
    )
