"""Model FLOPs: what training needs by the formula, whatever the implementation does; the numerator of MFU. Pure.

Per token 6 N for the weights that multiply (forward 2, backward 4), and 6 L h s for causal attention in a document of s
tokens (12 L h s without the causal half): Chowdhery et al. 2022 (PaLM), appendix B, per document. With frozen weights the
backward pass needs no gradient for them: 4 N.
"""

from collections.abc import Sequence

H100_FLOPS = 989e12
"""Nominal dense bfloat16 FLOP/s of an H100 or H200 SXM."""

# Nominal dense bfloat16 FLOP/s by a part of the device's name, from the makers' data sheets; the first that fits.
_NOMINAL = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": H100_FLOPS, "H200": H100_FLOPS, "A100": 312e12, "A800": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10G": 70e12, "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


def nominal_flops(device: str) -> float | None:
    """What a device of this name computes a second at best; None where it is not known."""
    return next((flops for part, flops in _NOMINAL.items() if part in device), None)


def training_flops(lengths: Sequence[int], *, parameters: int, layers: int, heads_width: int, frozen: bool = False) -> float:
    """FLOPs of one pass, forward and backward, over documents of these lengths in tokens.

    Args:
        parameters: weights that multiply: all but the input embedding (a tied one counts once, as output layer).
        heads_width: heads times head dimension.
        frozen: whether the weights stay as they are (LoRA).
    """
    per_token = (4 if frozen else 6) * parameters
    return float(sum(length * (per_token + 6 * layers * heads_width * length) for length in lengths))
