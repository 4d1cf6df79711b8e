"""What the loaded model itself shows before its first step: may examples share a row, and what does its output layer give?

    two examples in a row ─┬─> the logits of each alone?  ─> rows of many examples, or one example a row
                           └─> output layer of the last hidden state? ─> the fused loss, or logits
Architectures differ in what they make of positions (ALiBi, recurrence, convolutions, positions read from a mask); asking the
model is right for those that nobody listed.
"""

import inspect
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from minilima.models.packing import make_row

_PROBE_TOKENS = 48
_EXACT, _ROUNDED = 1e-5, 3e-2
"""Differences of logits that are always rounding, and never more than that, as a share of the largest logit."""
_NOISE = 10
"""Times the first example's difference, which can see no other and so shows what rounding makes of this model."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a model can do. `takes`: names of what its forward pass is given."""

    packs: bool = True
    """Whether examples in one row stay apart, by their positions alone."""
    plain_head: bool = True
    """Whether its logits are its output layer's, unchanged and without a bias."""
    takes: frozenset[str] = frozenset({"input_ids", "position_ids", "attention_mask", "use_cache", "logits_to_keep"})


@torch.no_grad()
def probe(model: Any, examples: Sequence[Sequence[int]]) -> Traits:
    """Asks a loaded model with the beginnings of two examples.

    Args:
        model: as it was read, before adapters and kernels of ours.
        examples: token ids of each.
    """
    takes = Traits().takes & set(inspect.signature(model.forward).parameters)
    long = [list(example[:_PROBE_TOKENS]) for example in examples if len(example) > 1]
    if not long:
        return Traits(packs=False, plain_head=False, takes=frozenset(takes))
    pair = [long[0], max(long[1:], key=lambda ids: ids != long[0], default=long[0][::-1])]
    exact = next(model.parameters()).dtype == torch.float32
    apart = 10 * _EXACT if exact else _ROUNDED
    hidden: list[torch.Tensor] = []
    head = model.get_output_embeddings()
    hook = None if head is None else head.register_forward_pre_hook(lambda module, given: hidden.append(given[0]))
    try:
        alone = [_logits(model, takes, [ids]) for ids in pair]
    finally:
        if hook is not None:
            hook.remove()
    plain = hook is not None and _is_plain(head, hidden, alone, apart)
    packs = False
    if "position_ids" in takes:
        with suppress(ValueError, TypeError, RuntimeError):
            packed = _logits(model, takes, pair)
            if exact:
                packs = _stay_apart(packed, alone)
            else:
                first, second = pair
                others = (first[::-1], first[1:] + first[:1], second[: len(first)] + first[len(second) :])
                packs = all(_sees_nothing(packed, _logits(model, takes, [other, second]), alone) for other in others)
    return Traits(packs=packs, plain_head=plain, takes=frozenset(takes))


def _logits(model: Any, takes: frozenset[str], rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits (tokens, vocabulary) of examples in one row, as a training calls the model."""
    row = make_row([{"input_ids": ids, "labels": [0] * len(ids)} for ids in rows])
    device = next(model.parameters()).device
    given = {"input_ids": row.input_ids.to(device), "position_ids": row.position_ids.to(device), "use_cache": False}
    output = model(**{name: value for name, value in given.items() if name in takes})
    logits: torch.Tensor = output.logits[0].float()
    return logits


def _is_plain(head: Any, hidden: Sequence[torch.Tensor], logits: Sequence[torch.Tensor], apart: float) -> bool:
    weight = getattr(head, "weight", None)
    if weight is None or not weight.is_floating_point() or getattr(head, "bias", None) is not None or len(hidden) != len(logits):
        return False
    return all(_same(states[0] @ weight.T, wanted, apart) for states, wanted in zip(hidden, logits, strict=True))


def _stay_apart(packed: torch.Tensor, alone: Sequence[torch.Tensor]) -> bool:
    """Whether the second example's logits in a row are those it has alone, up to the rounding that the first one shows.

    For float32, in which a leak is far larger than rounding.
    """
    first, second = alone
    if packed.shape[0] != len(first) + len(second):
        return False
    scale = float(second.abs().max())
    parts = packed[: len(first)], packed[len(first) :]
    noise, leak = (float((part - own).abs().max()) for part, own in zip(parts, alone, strict=True))
    return leak <= min(max(_EXACT * scale, _NOISE * noise), _ROUNDED * scale)


def _sees_nothing(packed: torch.Tensor, beside_another: torch.Tensor, alone: Sequence[torch.Tensor]) -> bool:
    """Whether the second example has the very same logits beside another first one, and about those that it has alone.

    In bfloat16 the first example may come out exact and the second one rounded, by chance. What is masked adds nothing at all,
    so that the content of a neighbour changes no digit; what is seen changes many.
    """
    second = alone[1]
    if packed.shape != beside_another.shape or packed.shape[0] != len(alone[0]) + len(second):
        return False
    first, other = packed[-len(second) :], beside_another[-len(second) :]
    return torch.equal(first, other) and _same(first, second, _ROUNDED)


def _same(one: torch.Tensor, other: torch.Tensor, apart: float) -> bool:
    if one.shape != other.shape:
        return False
    difference = (one.float() - other.float()).abs().max()
    return bool(difference <= apart * other.float().abs().max())
