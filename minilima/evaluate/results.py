"""The figures of a run, from what was judged. Cheap, so computed again whenever they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minilima.evaluate.judge import orders_of
from minilima.evaluate.judge_cards import JudgeCard
from minilima.evaluate.judged import Judged, read_losses
from minilima.evaluate.length_control_tables import LengthControlled, NotKnown
from minilima.evaluate.significance import Paired, against_half
from minilima.evaluate.statistics import (
    LossChange,
    Positions,
    ScoreChange,
    Share,
    WinRate,
    length_preference,
    loss_change,
    positions,
    score_change,
    win_rate,
)
from minilima.formats.records import Verdict


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
        return f"No win rate: {self} ({share}). Verdicts that cannot be read are rarely a fair sample of all."


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of an experiment; a part is None where it is not known."""

    coverage: Coverage
    win_rate: WinRate | None
    """None where the coverage is not enough."""
    loss_change: LossChange | None
    positions: Positions | None = None
    """What the position of an answer had to do with the verdicts."""
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
    cut: int = 0
    """Pairs in which an answer ended at the token limit."""
    judge_card: JudgeCard | None = None
    """What was measured of the judge; None = nothing."""
    scores: ScoreChange | None = None
    """The mean scores of both models, where the judge saw each answer alone."""
    turn_scores: tuple[ScoreChange, ...] = ()
    """The same turn by turn, where conversations were judged so."""


def compute_results(judged: Judged, *, min_coverage: float, random_order: bool = False) -> Results:
    """The results of a run, without length control and the judge's card.

    Args:
        judged: what was judged.
        min_coverage: share of the prompts, 0 to 1, that must have a verdict for a win rate to be given.
        random_order: whether the judge was asked once, in the order that alpaca_eval draws for each instruction.
    """
    preferences, weights = judged.preferences, judged.weights
    read = [preference for preference in preferences if preference is not None]
    often = [weight or 1.0 for weight, preference in zip(weights, preferences, strict=True) if preference is not None]
    coverage = Coverage(judged=len(read), prompts=len(preferences), minimum=min_coverage)
    verdicts = [prompt.verdict for prompt in judged.prompts]
    lengths = [(len(prompt.reference.text), len(prompt.tuned.text)) for prompt in judged.prompts]
    orders = [orders_of(prompt.verdict, prompt.instruction if random_order else None) for prompt in judged.prompts]
    return Results(
        coverage=coverage,
        win_rate=win_rate(preferences, weights) if coverage.enough else None,
        paired=against_half(read, often if any(weights) else None) if coverage.enough else None,
        loss_change=change_of_loss(judged),
        positions=positions(orders),
        cut=sum(prompt.tuned.truncated or prompt.reference.truncated for prompt in judged.prompts),
        length_preference=length_preference(lengths, preferences),
        scores=score_change([verdict.scores for verdict in verdicts if verdict.scores is not None]) if coverage.enough else None,
        turn_scores=_by_turn(verdicts) if coverage.enough else (),
    )


def _by_turn(verdicts: Sequence[Verdict]) -> tuple[ScoreChange, ...]:
    """The scores of the first turns, of the second, and so on, over the conversations that have so many."""
    talks = [verdict.turn_scores for verdict in verdicts if verdict.turn_scores is not None]
    longest = max(map(len, talks), default=0)
    changes = (score_change([talk[turn] for talk in talks if len(talk) > turn]) for turn in range(longest))
    return tuple(change for change in changes if change is not None)


def change_of_loss(judged: Judged) -> LossChange | None:
    """From the reference model to the tuned one; None where the set has no reference answers."""
    tuned = {loss.id: loss for loss in judged.tuned_losses}
    base = judged.reference_losses
    return loss_change([loss.nats for loss in base], [tuned[loss.id].nats for loss in base], [loss.tokens for loss in base])


def loss_against(reference: Path | None, judged: Judged) -> LossChange | None:
    """How the tuned model's loss differs from that of the run it was judged against, on the reference answers that both read.

    Args:
        reference: the other run's model_outputs.json in the store; any other file has no losses beside it.
        judged: what was judged in this run.
    """
    if reference is None or not (reference.parent / "reference_loss.jsonl").is_file():
        return None
    theirs = {loss.id: loss for loss in read_losses(reference.parent)}
    pairs = [(theirs.get(ours.id), ours) for ours in judged.tuned_losses]
    # Another tokenizer divides the same answer into other tokens: per token the losses would not be comparable.
    same = [(their, ours) for their, ours in pairs if their is not None and their.tokens == ours.tokens]
    if len(same) < len(pairs):
        return None
    return loss_change([their.nats for their, _ in same], [ours.nats for _, ours in same], [ours.tokens for _, ours in same])
