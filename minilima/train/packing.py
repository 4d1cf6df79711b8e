"""Batch, then pack: the examples of a step are laid end to end into rows, and the gradient stays that of the examples.

A step always takes exactly the examples the recipe names. They are divided among processes and packed only after that
(models/packing.py), so neither row length nor the number of processes changes what is learned. Every process sees the whole
step, so that all know how many tokens are trained in it without asking each other. Pure but for the tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilima.models.packing import IGNORED, Tokens, make_row, plan_rows


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
