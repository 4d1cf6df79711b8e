"""LoRA's layers with less traffic to memory: the adapter's product is added to the base layer's output in place.

peft computes `linear(x) + up(down(x)) * scale` as two products and a sum of three tensors as large as the output; here the
second product adds to the first (the `beta` of a matrix product), forwards to the output and backwards to the gradient.
"""

from typing import Any

import torch


def fuse_adapters(model: Any) -> int:
    """Replaces the forward pass of every plain LoRA layer without dropout or bias, also of one over 4-bit weights; names stay.

    Returns:
        How many layers were replaced.
    """
    from peft.tuners.lora.layer import LoraLayer

    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and _is_plain(layer)]
    for layer in layers:
        layer.forward = _over_quantised(layer) if _is_quantised(layer) else _forward(layer)
    return len(layers)


def _is_plain(layer: Any) -> bool:
    base, name = layer.get_base_layer(), layer.active_adapters[0]
    known = type(base) is torch.nn.Linear or _is_quantised(layer)
    dropout = getattr(layer.lora_dropout[name], "p", 0.0) if name in layer.lora_dropout else 0.0
    alone = len(layer.active_adapters) == 1 and name not in layer.lora_variant
    return known and base.bias is None and dropout == 0 and alone


def _is_quantised(layer: Any) -> bool:
    """Whether the weights are in 4 bits; bitsandbytes is not imported to ask."""
    return type(layer.get_base_layer()).__name__ == "Linear4bit"


def _over_quantised(layer: Any) -> Any:
    """Its weights are unpacked by the base layer, whose output the second product is added to as it is made."""
    name = layer.active_adapters[0]
    base, down, up, scale = layer.get_base_layer(), layer.lora_A[name], layer.lora_B[name], float(layer.scaling[name])

    def forward(x: torch.Tensor) -> torch.Tensor:
        output = base(x)
        low = torch.nn.functional.linear(x.reshape(-1, x.shape[-1]), down.weight)
        added = torch.addmm(output.reshape(-1, output.shape[-1]), low, up.weight.T, alpha=scale)
        return added.view(output.shape)

    return forward


def _forward(layer: Any) -> Any:
    name = layer.active_adapters[0]
    base, down, up, scale = layer.get_base_layer(), layer.lora_A[name], layer.lora_B[name], float(layer.scaling[name])

    def forward(x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor
        output, _ = _adapted(x.view(-1, x.shape[-1]), base.weight, down.weight, up.weight, scale)
        return output.view(*x.shape[:-1], -1)

    return forward


@torch.library.custom_op("minilima::adapted", mutates_args=())
def _adapted(
    x: torch.Tensor, weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """x (tokens, in) through weight (out, in) and adapters down (rank, in) and up (out, rank): output, and x through down."""
    low = x @ down.T
    output = x @ weight.T
    return output.addmm_(low, up.T, alpha=scale), low


@_adapted.register_fake
def _(
    x: torch.Tensor, weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_empty(x.shape[0], weight.shape[0]), x.new_empty(x.shape[0], down.shape[0])


@torch.library.custom_op("minilima::adapted_backward", mutates_args=())
def _backward(
    gradient: torch.Tensor, x: torch.Tensor, low: torch.Tensor, weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    into_low = (gradient @ up).mul_(scale)
    into_x = gradient @ weight
    return into_x.addmm_(into_low, down), into_low.T @ x, (gradient.T @ low).mul_(scale)


@_backward.register_fake
def _(
    gradient: torch.Tensor, x: torch.Tensor, low: torch.Tensor, weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    return torch.empty_like(x), torch.empty_like(down), torch.empty_like(up)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, weight, down, up, ctx.scale = inputs
    ctx.save_for_backward(x, output[1], weight, down, up)


def _derive(context: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[Any, ...]:
    x, low, weight, down, up = context.saved_tensors
    into_x, into_down, into_up = _backward(gradient.contiguous(), x, low, weight, down, up, context.scale)
    return into_x, None, into_down, into_up, None


_adapted.register_autograd(_derive, setup_context=_keep)
