"""Stops a training at its first loss or gradient that is no number, and names the step, its rows, and what to lower.

After one such step every weight is lost: without a word the run would end with a model that says nothing.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import torch

from minilima.config.schema import SftConfig
from minilima.errors import MinilimaError

_STEPS_KEPT = 4
"""A GPU's figures are read one step late."""
_SHOWN = 5


class FiniteWatch:
    """Remembers which rows the last steps learned from.

    Args:
        names: id of each row of the data set, by its number there.
        sft: whose settings are shown.
    """

    def __init__(self, names: Sequence[str], sft: SftConfig) -> None:
        self._names, self._sft = names, sft
        self._steps: deque[tuple[int, list[int]]] = deque(maxlen=_STEPS_KEPT)

    def begin(self, step: int, numbers: Iterable[int]) -> None:
        """A step, counted from 1, is about to learn from these rows."""
        self._steps.append((step, list(numbers)))

    def check(self, what: str, value: float, step: int, numbers: Sequence[int] | None = None) -> None:
        """Stops the run where the value is no number.

        Args:
            what: loss or grad_norm.
            value: in that step.
            step: counted from 1.
            numbers: of the rows that it comes from; None = all of the step.

        Raises:
            MinilimaError: names step, rows and settings.
        """
        if math.isfinite(value):
            return
        of_step = next((rows for known, rows in self._steps if known == step), [])
        rows = [self._names[number] for number in numbers or of_step if number < len(self._names)]
        shown = ", ".join(rows[:_SHOWN]) + (f" and {len(rows) - _SHOWN:,} others" if len(rows) > _SHOWN else "")
        sft = self._sft
        raise MinilimaError(
            f"Step {step:,}: the {'loss' if what == 'loss' else 'norm of the gradient'} is {value}, which is no number.",
            f"It comes from {'row' if len(rows) == 1 else 'rows'} {shown or 'of this process'}; "
            "every weight would be lost with it, so the training stopped.",
            f"Lower sft.learning_rate (now {sft.learning_rate:g}), raise sft.warmup_ratio (now {sft.warmup_ratio:g}) or set "
            f"sft.max_grad_norm=1 (now {sft.max_grad_norm:g}); in step 1 look at the row and at the base model's weights.",
        )


def check_weights(weights: Mapping[str, torch.Tensor]) -> None:
    """Refuses to save weights that are no numbers: the last step may have spoilt them after its loss was read.

    Raises:
        MinilimaError: names the first of them.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise MinilimaError(
                f"After the last step the weights {name} hold values that are no numbers.",
                "A gradient was too large; the model would answer nothing.",
                "Lower sft.learning_rate, or set sft.max_grad_norm=1.",
            )
