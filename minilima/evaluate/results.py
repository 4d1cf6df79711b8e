"""The figures of a run, from the files of its last stages. Cheap, so computed anew whenever they are shown."""

from dataclasses import dataclass
from pathlib import Path

from minilima.evaluate.cards import JudgeCard
from minilima.evaluate.judge import orders_of
from minilima.evaluate.length_tables import LengthControlled, NotKnown
from minilima.evaluate.statistics import (
    LossChange,
    Positions,
    Share,
    WinRate,
    length_preference,
    loss_change,
    positions,
    win_rate,
)
from minilima.files import read_jsonl
from minilima.records import Answer, ReferenceLoss, Verdict


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
    positions: Positions | None = None
    """What the judge made of the place at which an answer was shown."""
    length_preference: Share | None = None
    """How often the longer answer won."""
    length_controlled: LengthControlled | NotKnown | None = None
    """The win rate if both answers were equally long, or why it is not known; None where it was not asked for."""
    against: str = "its base"
    """What the tuned model was judged against."""
    judge_card: JudgeCard | None = None
    """What was measured of the judge; None = nothing."""


def compute_results(
    *, verdicts: Path, answers: Path, reference: Path, min_coverage: float, random_order: bool = False
) -> Results:
    """The results of a run, without length control and the judge's card.

    Args:
        verdicts: store entry with verdicts.jsonl.
        answers: store entry of the tuned model's answers, with reference_loss.jsonl.
        reference: store entry of the reference model's.
        min_coverage: share of the prompts, 0 to 1, that must have a verdict for a win rate to be given.
        random_order: whether the judge was asked once, in the order that alpaca_eval draws for each instruction.
    """
    judged = [Verdict(**row) for row in read_jsonl(verdicts / "verdicts.jsonl")]
    tuned, base = (_answers(folder) for folder in (answers, reference))
    preferences = [verdict.preference for verdict in judged]
    read = sum(preference is not None for preference in preferences)
    coverage = Coverage(judged=read, prompts=len(judged), minimum=min_coverage)
    lengths = [(len(base[verdict.id].output), len(tuned[verdict.id].output)) for verdict in judged]
    orders = [orders_of(verdict, tuned[verdict.id].instruction if random_order else None) for verdict in judged]
    return Results(
        coverage=coverage,
        win_rate=win_rate(preferences) if coverage.enough else None,
        loss_change=_loss_change(reference, answers),
        positions=positions(orders),
        length_preference=length_preference(lengths, preferences),
    )


def _answers(folder: Path) -> dict[str, Answer]:
    return {row["id"]: Answer(**row) for row in read_jsonl(folder / "answers.jsonl")}


def _loss_change(reference: Path, answers: Path) -> LossChange | None:
    tuned = {row["id"]: ReferenceLoss(**row) for row in read_jsonl(answers / "reference_loss.jsonl")}
    base = [ReferenceLoss(**row) for row in read_jsonl(reference / "reference_loss.jsonl")]
    return loss_change([loss.nats for loss in base], [tuned[loss.id].nats for loss in base], [loss.tokens for loss in base])
