"""Residual dropout that grows with depth: 0 at the bottom layer, `top` at the top one (LIMA, section 3)."""

from typing import Any

import torch
from torch.nn.functional import dropout


def add_residual_dropout(layers: Any, top: float) -> list[float]:
    """Drops parts of what attention and MLP add to the residual stream, while training only.

    Forward hooks leave the modules and the names of their weights as they are.

    Args:
        layers: the decoder layers, bottom first, each with `self_attn` and `mlp`.
        top: probability at the top layer, 0 to 1.

    Returns:
        The probability at each layer.
    """
    last = max(1, len(layers) - 1)
    rates = [top * depth / last for depth in range(len(layers))]
    for layer, rate in zip(layers, rates, strict=True):
        for block in (layer.self_attn, layer.mlp):
            block.register_forward_hook(_hook(rate))
    return rates


def _hook(rate: float) -> Any:
    def drop(module: torch.nn.Module, inputs: object, output: Any) -> Any:
        if isinstance(output, tuple):  # attention returns its weights too
            return (dropout(output[0], rate, module.training), *output[1:])
        return dropout(output, rate, module.training)

    return drop
