"""The figures of a run, from the files of its last stages. Cheap, so computed anew whenever they are shown."""

from dataclasses import dataclass
from pathlib import Path

from minilima.evaluate.statistics import LossChange, WinRate, loss_change, win_rate
from minilima.files import read_jsonl
from minilima.records import ReferenceLoss, Verdict


@dataclass(frozen=True, kw_only=True)
class Results:
    """What an experiment found; a part is None where it cannot be known."""

    win_rate: WinRate | None
    loss_change: LossChange | None


def compute_results(*, verdicts: Path, answers: Path, reference: Path) -> Results:
    """The results of a run.

    Args:
        verdicts: store entry with verdicts.jsonl.
        answers: store entry of the tuned model's answers, with reference_loss.jsonl.
        reference: store entry of the base model's.
    """
    judged = [Verdict(**row) for row in read_jsonl(verdicts / "verdicts.jsonl")]
    tuned = {row["id"]: ReferenceLoss(**row) for row in read_jsonl(answers / "reference_loss.jsonl")}
    base = [ReferenceLoss(**row) for row in read_jsonl(reference / "reference_loss.jsonl")]
    return Results(
        win_rate=win_rate([verdict.preference for verdict in judged], [verdict.orders for verdict in judged]),
        loss_change=loss_change(
            [loss.nats for loss in base], [tuned[loss.id].nats for loss in base], [loss.tokens for loss in base]
        ),
    )
