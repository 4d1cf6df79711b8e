"""Cross-entropy fused with the output layer: logits exist for a few thousand tokens at a time, forwards and backwards.

The gradient of a chunk is computed right after its loss, as in Liger (Hsu et al. 2024, section 3.2), so no logits are kept:
for a vocabulary of 128,000 and a row of 16,000 tokens they would take 8 GiB in float32.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch.autograd import Function

Kernel = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""From logits (tokens, vocabulary), which it may overwrite, and targets to the summed loss and its gradient by the logits."""

CHUNK = 8192
"""Tokens whose logits exist at once."""
_LOGITS = 2**27
"""Logits that exist at once where only the losses are wanted: 512 MiB in float32."""


def can_fuse(config: Any) -> bool:
    """False for models that change their logits after the output layer (Gemma, Cohere, Granite)."""
    config = config.get_text_config()
    return not any(getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"))


def fuse_head(model: Any, *, compiled: bool = False) -> None:
    """Makes the model return the summed loss in place of logits, for `head.targets` at the positions `head.predicting`.

    The output layer stays the same module with the same weights, so wrappers, adapters and saving see nothing of it.
    """
    head = model.get_output_embeddings()
    kernel = _fastest(head.weight, compiled)

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor
        loss = _SummedLoss.apply(hidden[0], head.weight, head.predicting, head.targets, kernel)  # type: ignore[no-untyped-call]
        return loss

    head.forward = forward


def _fastest(weight: torch.Tensor, compiled: bool) -> Kernel:
    """The kernel for NVIDIA GPUs with Triton, or else torch's operations, compiled if that is asked for."""
    if weight.is_cuda:
        with suppress(ImportError):
            from minilima.models.loss_triton import loss_and_gradient as fused

            return fused
    return torch.compile(loss_and_gradient, dynamic=True) if compiled else loss_and_gradient


class _SummedLoss(Function):
    """Sum of the cross-entropies in nats of hidden (tokens, d) through weight (vocabulary, d), where `predicting` says.

    Positions without loss are passed over here and not before: to index a tensor and to add its gradient back takes longer.
    """

    @staticmethod
    def forward(
        context: Any, hidden: torch.Tensor, weight: torch.Tensor, predicting: torch.Tensor, targets: torch.Tensor, kernel: Kernel
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        into_hidden = torch.zeros_like(hidden)
        into_weight: torch.Tensor | None = None
        starts = range(0, len(targets), CHUNK)
        for start in starts:
            places, wanted = predicting[start : start + CHUNK], targets[start : start + CHUNK]
            part = hidden.index_select(0, places)
            loss, gradient = kernel(part @ weight.T, wanted)
            total += loss
            into_hidden.index_copy_(0, places, gradient @ weight)
            if weight.requires_grad:
                into_weight = gradient.T @ part if len(starts) == 1 else _with_product(into_weight, gradient.T, part)
            del gradient  # before the next chunk's logits are made: two would be there at once
        context.save_for_backward(into_hidden, into_weight)
        context.kind = weight.dtype
        return total

    @staticmethod
    def backward(context: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None, None, None]:
        into_hidden, into_weight = context.saved_tensors
        scale = outer[0]
        if into_weight is not None:
            scaled = into_weight if into_weight.dtype == context.kind else torch.empty_like(into_weight, dtype=context.kind)
            # In two dimensions the scale stays in float32 beside bfloat16; a scalar would be rounded first.
            into_weight = torch.mul(into_weight, scale.reshape(1, 1), out=scaled)
        return into_hidden * scale.to(into_hidden.dtype), into_weight, None, None, None


def _with_product(total: torch.Tensor | None, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left @ right in float32, added to the total in its place if there is one; a GPU multiplies straight into it."""
    if not left.is_cuda or left.dtype == torch.float32:
        product = left @ right
        return product.float() if total is None else total.add_(product)
    if total is None:
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.addmm(total, left, right, out_dtype=torch.float32, out=total)


def loss_and_gradient(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed cross-entropy of logits (tokens, vocabulary), and its gradient by them in their own precision.

    A negative target has no loss and no gradient.
    """
    exact, without = logits.float(), wanted < 0
    normaliser = torch.logsumexp(exact, dim=-1, keepdim=True)
    losses = normaliser - exact.gather(1, wanted.clamp(min=0).unsqueeze(1))
    loss = losses.squeeze(1).masked_fill(without, 0.0).sum()
    normaliser = normaliser.masked_fill(without.unsqueeze(1), float("inf"))  # of which the gradient comes out as 0
    chosen = torch.arange(logits.shape[1], device=logits.device) == wanted.unsqueeze(1)
    gradient = exact.sub_(normaliser).exp_().add_(chosen, alpha=-1)
    return loss, gradient.to(logits.dtype)


def token_losses(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats, float32 (tokens,), of each of hidden (tokens, d) through weight (vocabulary, d); no gradients."""
    chunk = max(1, _LOGITS // weight.shape[0])
    parts = zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
    losses = [torch.nn.functional.cross_entropy((part @ weight.T).float(), wanted, reduction="none") for part, wanted in parts]
    return torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)
