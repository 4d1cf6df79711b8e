"""Residual dropout that grows with depth: 0 at the bottom layer, `top` at the top one (LIMA, section 3)."""

import inspect
from typing import Any

import torch
from torch.nn.functional import dropout

from minilima.errors import MinilimaError

_PARTS = ("self_attn", "attn", "attention", "self_attention"), ("mlp", "feed_forward", "ffn")
"""Names of a block's attention and of its feed-forward part."""


def decoder_blocks(model: Any) -> list[torch.nn.Module]:
    """The model's blocks, bottom first: its list of as many modules as it has layers.

    Raises:
        MinilimaError: there is no such list.
    """
    config = model.config.get_text_config()
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.num_hidden_layers:
            return list(module)
    raise _unknown(model, "It has no list of as many blocks as layers.")


def branches(model: Any) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
    """Attention and feed-forward part of each block, whose outputs are added to the residual stream.

    Raises:
        MinilimaError: a block names its parts otherwise, or a part adds the residual stream itself.
    """
    pairs = []
    for block in decoder_blocks(model):
        parts = [next((getattr(block, name) for name in names if hasattr(block, name)), None) for names in _PARTS]
        attention, feed_forward = parts
        if attention is None or feed_forward is None:
            raise _unknown(model, f"Its {type(block).__name__} names no attention and feed-forward part that minilima knows.")
        if any("residual" in inspect.signature(part.forward).parameters for part in (attention, feed_forward)):
            raise _unknown(model, f"Its {type(block).__name__} adds the residual stream inside its parts.")
        pairs.append((attention, feed_forward))
    return pairs


def add_residual_dropout(model: Any, top: float) -> list[float]:
    """Drops parts of what attention and MLP add to the residual stream, while training only.

    Forward hooks leave the modules and the names of their weights as they are.

    Args:
        model: a causal language model.
        top: probability at the top layer, 0 to 1.

    Returns:
        The probability at each layer.

    Raises:
        MinilimaError: its blocks are none that this dropout knows.
    """
    blocks = branches(model)
    rates = rates_of(len(blocks), top)
    for parts, rate in zip(blocks, rates, strict=True):
        for part in parts:
            part.register_forward_hook(_hook(rate))
    return rates


def rates_of(layers: int, top: float) -> list[float]:
    """The probability at each of so many layers."""
    return [top * depth / max(1, layers - 1) for depth in range(layers)]


def _hook(rate: float) -> Any:
    def drop(module: torch.nn.Module, inputs: object, output: Any) -> Any:
        if isinstance(output, tuple):  # attention returns its weights too
            return (dropout(output[0], rate, module.training), *output[1:])
        return dropout(output, rate, module.training)

    return drop


def _unknown(model: Any, why: str) -> MinilimaError:
    return MinilimaError(
        f"sft.residual_dropout does not fit {type(model).__name__}.", why, "Set sft.residual_dropout=0, or use another model."
    )
