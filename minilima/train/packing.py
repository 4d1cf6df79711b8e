"""Batch, then pack: the examples of a step are laid end to end into rows, and the gradient stays that of the examples.

A step always takes exactly the examples the recipe names. They are packed only after that, so neither row length nor the
number of processes changes what is learned. Positions start again at 0 with each example, from which transformers builds
an attention mask that never crosses from one example to the next (given no attention_mask and no cache). Pure but for
the tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minilima.train.data import IGNORED

Tokens = Sequence[int] | NDArray[np.int64]
"""Ids or labels of one example; arrays are laid end to end faster."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Several examples end to end.

    Shapes: input_ids and position_ids (1, tokens); predicting and targets (trained tokens,): the positions whose logits
    are needed and the ids they should predict; ends (examples + 1,): 0, and where each example ends.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor
    ends: torch.Tensor
    longest: int
    """Tokens of the longest example."""


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


def make_row(examples: Sequence[Mapping[str, Tokens]]) -> Row:
    """Lays examples end to end; the first token of each is never a target, since nothing of its own precedes it."""
    lengths = [len(example["input_ids"]) for example in examples]
    ends = np.cumsum([0, *lengths])
    labels = np.concatenate([example["labels"] for example in examples])
    labels[ends[:-1]] = IGNORED
    trained = np.flatnonzero(labels != IGNORED)
    return Row(
        input_ids=torch.from_numpy(np.concatenate([example["input_ids"] for example in examples])).unsqueeze(0),
        position_ids=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])).unsqueeze(0),
        predicting=torch.from_numpy(trained - 1),
        targets=torch.from_numpy(labels[trained]),
        ends=torch.from_numpy(ends.astype(np.int32)),
        longest=max(lengths),
    )


@dataclass(frozen=True, kw_only=True)
class Packer:
    """The Trainer's collator: a process's share of a step's examples, packed into rows."""

    row_tokens: int

    def __call__(self, examples: Sequence[Mapping[str, Tokens]]) -> dict[str, list[dict[str, Any]]]:
        plan = plan_rows([len(example["input_ids"]) for example in examples], self.row_tokens)
        return {"rows": [vars(make_row([examples[index] for index in row])) for row in plan]}
