"""Batch, then pack: the examples of a step are laid end to end into rows, and the gradient stays that of the examples.

A step always takes exactly the examples the recipe names. They are packed only after that, so neither row length nor the
number of processes changes what is learned. Positions start again at 0 with each example, from which transformers builds
an attention mask that never crosses from one example to the next (given no attention_mask and no cache). Pure but for
the tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from minilima.train.data import IGNORED


@dataclass(frozen=True, kw_only=True)
class Row:
    """Several examples end to end.

    Shapes: input_ids and position_ids (1, tokens); predicting and targets (trained tokens,): the positions whose logits
    are needed and the ids they should predict.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor


def plan_rows(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Divides examples into rows of at most `row_tokens` tokens, first fit on decreasing length; longer ones stand alone.

    Returns:
        Positions in `lengths`, one list a row.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        fitting = next((number for number, room in enumerate(free) if room >= lengths[index]), None)
        if fitting is None:
            rows.append([index])
            free.append(row_tokens - lengths[index])
        else:
            rows[fitting].append(index)
            free[fitting] -= lengths[index]
    return rows


def make_row(examples: Sequence[dict[str, list[int]]]) -> Row:
    """Lays examples end to end; the first token of each is never a target, since nothing of its own precedes it."""
    ids: list[int] = []
    positions: list[int] = []
    predicting: list[int] = []
    targets: list[int] = []
    for example in examples:
        start = len(ids)
        trained = [place for place, label in enumerate(example["labels"]) if label != IGNORED and place > 0]
        predicting += [start + place - 1 for place in trained]
        targets += [example["labels"][place] for place in trained]
        ids += example["input_ids"]
        positions += range(len(example["input_ids"]))
    return Row(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        predicting=torch.tensor(predicting, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
    )


@dataclass(frozen=True, kw_only=True)
class Packer:
    """The Trainer's collator: a process's share of a step's examples, packed into rows."""

    row_tokens: int

    def __call__(self, examples: Sequence[dict[str, list[int]]]) -> dict[str, list[dict[str, torch.Tensor]]]:
        plan = plan_rows([len(example["input_ids"]) for example in examples], self.row_tokens)
        return {"rows": [vars(make_row([examples[index] for index in row])) for row in plan]}
