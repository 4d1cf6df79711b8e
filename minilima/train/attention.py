"""Attention over rows of several examples: variable-length flash attention on a GPU, a block mask elsewhere.

Both keep examples apart. On a GPU `torch.nn.attention.varlen` reads only the boundaries, so that a row costs what its
examples cost; the mask that transformers builds from the positions is a square of the row.
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "minilima_varlen"


def is_available() -> bool:
    """True where torch has variable-length attention and a GPU for it (compute capability 8.0, for bfloat16)."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401
    except ImportError:
        return False
    return True


def use_varlen(model: Any) -> None:
    """Makes a model attend by boundaries, which every call then has to pass (see `boundaries`)."""
    AttentionInterface.register(NAME, _varlen)
    AttentionMaskInterface.register(NAME, lambda *arguments, **settings: None)
    model.set_attn_implementation(NAME)


def boundaries(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the model is to be called with beside a row: where its examples end, and how long the longest is.

    Args:
        row: the fields of a `packing.Row`. Its longest example is rounded up to a power of two, which the kernel does not
            mind and for which compiled code need not be compiled anew.
    """
    longest = max(128, 1 << (row["longest"] - 1).bit_length())
    return {"cu_seq_lens_q": row["ends"], "cu_seq_lens_k": row["ends"], "max_length_q": longest, "max_length_k": longest}


def _varlen(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query (1, heads, tokens, d), key and value (1, key heads, tokens, d)."""
    from torch.nn.attention.varlen import varlen_attn

    kind = value.dtype if value.dtype in (torch.bfloat16, torch.float16) else torch.bfloat16
    query, key, value = (item[0].transpose(0, 1).to(kind) for item in (query, key, value))
    if key.shape[1] != query.shape[1]:  # grouped queries: torch 2.11 wants as many key heads as query heads
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    ends, longest = settings["cu_seq_lens_q"], settings["max_length_q"]
    output: Any = varlen_attn(query, key, value, ends, ends, longest, longest, scale=scaling, window_size=(-1, 0))
    return output.unsqueeze(0), None
