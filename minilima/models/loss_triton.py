"""Cross-entropy and its gradient by the logits in one pass over each row, for GPUs; Triton comes with torch for CUDA.

Measured on an H100 against the same in torch's operations, compiled: see benchmarks/README.md.
"""

import torch
import triton
import triton.language as tl

BLOCK = 8192
"""Logits of a row that are read at once."""


def loss_and_gradient(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed cross-entropy of logits (tokens, vocabulary) with targets `wanted`, and its gradient, written over the logits.

    A negative target has no loss and no gradient.
    """
    losses = torch.empty(len(wanted), dtype=torch.float32, device=logits.device)
    _cross_entropy[(len(wanted),)](logits, wanted, losses, logits.stride(0), logits.shape[1], block=BLOCK, num_warps=32)
    return losses.sum(), logits


@triton.jit  # type: ignore[untyped-decorator]
def _cross_entropy(logits, wanted, losses, stride, vocabulary: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * stride
    target = tl.load(wanted + row)
    trained = target >= 0
    chosen = tl.load(start + target, mask=trained, other=0.0).to(tl.float32)
    highest = -float("inf")
    total = 0.0
    for first in range(0, vocabulary, block):
        places = first + tl.arange(0, block)
        values = tl.load(start + places, mask=places < vocabulary, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(values, axis=0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(values - higher), axis=0)
        highest = higher
    normaliser = highest + tl.log(total)
    tl.store(losses + row, tl.where(trained, normaliser - chosen, 0.0))
    normaliser = tl.where(trained, normaliser, float("inf"))  # of which the gradient comes out as 0
    for first in range(0, vocabulary, block):
        places = first + tl.arange(0, block)
        values = tl.load(start + places, mask=places < vocabulary, other=-float("inf")).to(tl.float32)
        gradient = tl.exp(values - normaliser) - tl.where(places == target, 1.0, 0.0)
        tl.store(start + places, gradient.to(logits.dtype.element_ty), mask=places < vocabulary)
