"""Batch, then pack: the examples of a step are laid end to end into rows, and the gradient stays that of the examples.

A step always takes exactly the examples the recipe names. They are divided among processes and packed only after that, so
neither row length nor the number of processes changes what is learned. Every process sees the whole step, so that all know
how many tokens are trained in it without asking each other. Positions start again at 0 with each example, from which
transformers builds an attention mask that never crosses from one example to the next (given no attention_mask and no
cache). Pure but for the tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minilima.train.tokenize import IGNORED

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


def divide(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Divides examples into parts of about equally many tokens, longest first to whoever has least: processes wait for the
    slowest in every step, and as many examples each would differ by several percent.

    Returns:
        Positions in `lengths`, one list a part; a part is empty if there are fewer examples than parts.
    """
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [0] * parts
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += lengths[index]
    return shares


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


def without_targets(row: dict[str, Any]) -> dict[str, Any]:
    """The row with nothing to learn: to pass through the model where others have a row and this process has none."""
    return row | {"predicting": row["predicting"][:0], "targets": row["targets"][:0]}


def _numbered(examples: Sequence[Mapping[str, Tokens]]) -> dict[str, Any]:
    """The fields of a row, and the numbers that its examples have in the data set, where they are given."""
    return {**vars(make_row(examples)), "numbers": [int(example["number"][0]) for example in examples if "number" in example]}


@dataclass(frozen=True, kw_only=True)
class Packer:
    """The Trainer's collator: a process's share of a step's examples, packed into rows."""

    row_tokens: int
    rank: int = 0
    world: int = 1

    def __call__(self, examples: Sequence[Mapping[str, Tokens]]) -> dict[str, Any]:
        """Packs the share of the whole step `examples`.

        Returns:
            rows: this process's, at least one; most_rows: of any process; trained_tokens: of the whole step.
        """
        lengths = [len(example["input_ids"]) for example in examples]
        shares = divide(lengths, self.world)
        plans = [plan_rows([lengths[index] for index in share], self.row_tokens) for share in shares]
        share, plan = [examples[index] for index in shares[self.rank]], plans[self.rank]
        rows = [_numbered([share[index] for index in row]) for row in plan]
        return {
            "rows": rows or [without_targets(_numbered(examples[:1]))],
            "most_rows": max(map(len, plans)),
            "trained_tokens": sum(int((np.asarray(example["labels"])[1:] != IGNORED).sum()) for example in examples),
        }
