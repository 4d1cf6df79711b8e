"""The figures of a run, from the files of its last stages. Cheap, so computed anew whenever they are shown."""

from dataclasses import dataclass
from pathlib import Path

from minilima.evaluate.judge import orders_of
from minilima.evaluate.judge_cards import JudgeCard
from minilima.evaluate.length_control_tables import LengthControlled, NotKnown
from minilima.evaluate.significance import Paired, against_half
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
from minilima.formats.files import read_jsonl
from minilima.formats.records import Answer, ReferenceLoss, Verdict


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
    other: str = "base"
    """The same where there is little room."""
    paired: Paired | None = None
    """The win rate tested against 50 %, prompt by prompt; None where it is not given."""
    loss_against: LossChange | None = None
    """From the loss of the run it was judged against, if it was one, to the tuned model's on the set's reference answers."""
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
        paired=against_half([value for value in preferences if value is not None]) if coverage.enough else None,
        loss_change=change_of_loss(reference, answers),
        positions=positions(orders),
        length_preference=length_preference(lengths, preferences),
    )


def _answers(folder: Path) -> dict[str, Answer]:
    return {row["id"]: Answer(**row) for row in read_jsonl(folder / "answers.jsonl")}


def change_of_loss(reference: Path, answers: Path) -> LossChange | None:
    """From one entry of answers to another; None where the set has no reference answers."""
    tuned = {row["id"]: ReferenceLoss(**row) for row in read_jsonl(answers / "reference_loss.jsonl")}
    base = [ReferenceLoss(**row) for row in read_jsonl(reference / "reference_loss.jsonl")]
    return loss_change([loss.nats for loss in base], [tuned[loss.id].nats for loss in base], [loss.tokens for loss in base])


def loss_against(reference: Path | None, answers: Path) -> LossChange | None:
    """How the tuned model's loss differs from that of the run it was judged against, on the reference answers that both read.

    Args:
        reference: the other run's model_outputs.json in the store; any other file has no losses beside it.
        answers: store entry of the tuned model's answers.
    """
    if reference is None or not (reference.parent / "reference_loss.jsonl").is_file():
        return None
    theirs = {row["id"]: row for row in read_jsonl(reference.parent / "reference_loss.jsonl")}
    ours = read_jsonl(answers / "reference_loss.jsonl")
    # Another tokenizer divides the same answer into other tokens: per token the losses would not be comparable.
    if any(row["tokens"] != theirs.get(row["id"], {}).get("tokens") for row in ours):
        return None
    return loss_change(
        [theirs[row["id"]]["nats"] for row in ours], [row["nats"] for row in ours], [row["tokens"] for row in ours]
    )
