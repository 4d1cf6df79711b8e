"""Rows of several examples laid end to end, for training and for scoring.

Positions start again at 0 with each example, from which transformers builds an attention mask that never crosses from one
example to the next (given no attention_mask and no cache). Pure but for the tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

IGNORED = -100
"""Label of tokens without loss (torch's cross_entropy)."""
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
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
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
