"""What methods of selection may ask of models, as functions: a method sees examples and numbers, and no model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilima.formats.records import Example

Numbers = NDArray[np.float32]


class Text(StrEnum):
    """What is read of an example; the loss counts on its last answer alone, without the end of the turn."""

    conversation = "conversation"
    """As it is trained on: the model's chat template, what was said before, the answer."""
    answer = "answer"
    """The template's beginning of an answer, and the same tokens of the answer."""
    plain = "plain"
    """The question, a line break and the answer, without a template."""
    plain_answer = "plain_answer"
    """The answer as a text of its own."""


def _missing(*arguments: Any) -> Any:
    raise AssertionError("a method asked for what its row in METHODS does not name")


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a method may ask for; each function takes examples (n of them) and keeps what it computed."""

    seed: int = 0
    targets: Sequence[Example] = ()
    """`dataset.targets`, for methods that choose towards them."""
    embed: Callable[[Sequence[str]], Numbers] = _missing
    """Unit vectors of texts, shape (n, d)."""
    rate: Callable[[Sequence[Example]], list[float | None]] = _missing
    """The generator's rating from 1 to 10; None where there is none."""
    tag: Callable[[Sequence[Example]], list[frozenset[str]]] = _missing
    """What an example asks for, in the generator's words."""
    losses: Callable[[Sequence[Example], Text], Numbers] = _missing
    """Negative log-likelihood of the answer in nats, and its tokens; shape (n, 2)."""
    states: Callable[[Sequence[Example]], Numbers] = _missing
    """The scorer's last hidden states, averaged by position; unit vectors, shape (n, d)."""
    ratings: Callable[[Sequence[Example]], Numbers] = _missing
    """Complexity and quality from 1 to 6, NaN where there is none; shape (n, 2)."""
    influence: Callable[[Sequence[Example]], Numbers] = _missing
    """How much a step on each example would lower the loss on the targets, shape (n,)."""


def mean_losses(losses: Numbers) -> NDArray[np.float64]:
    """Nats a token; NaN where an answer has no token that was read."""
    nats, tokens = losses.astype(np.float64).T
    means = np.full(len(losses), np.nan)
    np.divide(nats, tokens, out=means, where=tokens > 0)
    return means
