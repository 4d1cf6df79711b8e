"""What was judged: each prompt with both answers and its verdict, and the losses on the reference answers, read once.

verdicts.jsonl, answers.jsonl and model_outputs.json of both models ─> Judged ─> results, report, AlpacaEval's files
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from minilima.formats.files import read_jsonl
from minilima.formats.records import Answer, ReferenceLoss, Verdict


@dataclass(frozen=True, kw_only=True)
class JudgedPrompt:
    """One prompt of the evaluation set: both answers to it, and the verdict on them."""

    verdict: Verdict
    tuned: Answer
    reference: Answer
    category: str | None = None
    """Where the evaluation set sorts its prompts into categories."""

    @property
    def id(self) -> str:
        return self.verdict.id

    @property
    def instruction(self) -> str:
        return self.tuned.instruction


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Everything that the figures of a run are computed from."""

    prompts: tuple[JudgedPrompt, ...]
    """In the order of the evaluation set."""
    tuned_losses: tuple[ReferenceLoss, ...]
    """Of the tuned model on the set's reference answers; empty where the set has none."""
    reference_losses: tuple[ReferenceLoss, ...]
    """The same of the model that it was judged against, or of the base model where that one's answers come from a file."""

    @property
    def preferences(self) -> list[float | None]:
        """Of each prompt, on AlpacaEval's scale; None = the verdict could not be read."""
        return [prompt.verdict.preference for prompt in self.prompts]

    @property
    def weights(self) -> list[float | None]:
        """How often each verdict counts; None = once."""
        return [prompt.verdict.weight for prompt in self.prompts]


Held = TypeVar("Held")

OPPONENTS = ("base_answers", "other_answers", "reference_answers")
"""Roles of the answers that the tuned model's are compared with; the last is both of them in runs of earlier versions."""


def opponent(by_role: Mapping[str, Held]) -> Held:
    """What belongs to these answers, in a mapping by role.

    Raises:
        KeyError: there are none.
    """
    return by_role[next((role for role in OPPONENTS if role in by_role), OPPONENTS[0])]


def read_judged(folders: Mapping[str, Path]) -> Judged | None:
    """Reads the files of a run's last stages; None where nothing was judged.

    Args:
        folders: the store entry of each stage by its role; verdicts, answers and those of the opponent are read.
    """
    if "verdicts" not in folders:
        return None
    tuned, reference = (_answers(folder) for folder in (folders["answers"], opponent(folders)))
    categories = _categories(folders["answers"] / "model_outputs.json")
    verdicts = [Verdict(**row) for row in read_jsonl(folders["verdicts"] / "verdicts.jsonl")]
    return Judged(
        prompts=tuple(
            JudgedPrompt(
                verdict=verdict,
                tuned=tuned[verdict.id],
                reference=reference[verdict.id],
                category=categories.get(tuned[verdict.id].instruction),
            )
            for verdict in verdicts
        ),
        tuned_losses=read_losses(folders["answers"]),
        reference_losses=read_losses(opponent(folders)),
    )


def read_losses(folder: Path) -> tuple[ReferenceLoss, ...]:
    """One model's losses on the reference answers, from a store entry with its answers."""
    return tuple(ReferenceLoss(**row) for row in read_jsonl(folder / "reference_loss.jsonl"))


def _answers(folder: Path) -> dict[str, Answer]:
    return {row["id"]: Answer(**row) for row in read_jsonl(folder / "answers.jsonl")}


def _categories(outputs: Path) -> dict[str, str | None]:
    """The category of each instruction, which AlpacaEval's format calls `dataset`."""
    rows = json.loads(outputs.read_text(encoding="utf-8")) if outputs.is_file() else []
    return {row["instruction"]: row.get("dataset") for row in rows}
