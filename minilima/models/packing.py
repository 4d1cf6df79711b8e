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
SHORT = 512
"""Tokens up to which an example is a short one for attention."""


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
    short_from: int
    """Where the examples of at most SHORT tokens begin that the row ends with."""
    long_ends: torch.Tensor
    """As `ends`, of the examples before that."""
    short_ends: torch.Tensor
    """As `ends`, of the examples from there on, counted from there."""


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
    long = max((index + 1 for index, length in enumerate(lengths) if length > SHORT), default=0)
    return Row(
        input_ids=torch.from_numpy(np.concatenate([example["input_ids"] for example in examples])).unsqueeze(0),
        position_ids=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])).unsqueeze(0),
        predicting=torch.from_numpy(trained - 1),
        targets=torch.from_numpy(labels[trained]),
        ends=torch.from_numpy(ends.astype(np.int32)),
        longest=max(lengths),
        short_from=int(ends[long]),
        long_ends=torch.from_numpy(ends[: long + 1].astype(np.int32)),
        short_ends=torch.from_numpy((ends[long:] - ends[long]).astype(np.int32)),
    )
