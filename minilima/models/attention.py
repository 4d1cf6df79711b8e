"""Attention of our own: over rows of several examples while training, and of one new token a row while answering.

Training: variable-length flash attention on a GPU, a block mask elsewhere. Both keep examples apart. On a GPU
`torch.nn.attention.varlen` reads only the boundaries, so that a row costs what its examples cost; the mask that transformers
builds from the positions is a square of the row. Answering: the queries that share a key head are read as its queries, so that
keys and values are not copied for each of them, which some versions of transformers do, and of the cache only what a row sees.
"""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "minilima_varlen"
_GROUPED = "minilima_grouped"
_LONGEST = 512
"""Tokens that an example may have at least where the kernel is told how many the longest has."""


def is_available() -> bool:
    """True where torch has variable-length attention and a GPU for it (compute capability 8.0, for bfloat16)."""
    if not torch.cuda.is_available() or not _has_bfloat16(torch.device("cuda")):
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401
    except ImportError:
        return False
    return True


def fits(model: Any, longest: int) -> bool:
    """Whether the kernel gives this model's own attention: full, causal, with scores as they are, for examples of so many
    tokens. Others keep transformers' mask."""
    config = model.config.get_text_config()
    changed = any(getattr(config, name, None) for name in ("attn_logit_softcapping", "alibi"))
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    sinks = any(name.endswith("sinks") for name, _ in model.named_parameters())
    narrow = isinstance(window, int) and window < longest
    return bool(model._supports_attention_backend) and not (changed or narrow or sinks)


def use_varlen(model: Any) -> None:
    """Makes a model attend by boundaries, which every call then has to pass (see `boundaries`)."""
    AttentionInterface.register(NAME, _varlen_by(_kernel()))
    AttentionMaskInterface.register(NAME, lambda *arguments, **settings: None)
    model.set_attn_implementation(NAME)


def boundaries(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the model is to be called with beside a row: where its examples end, and how long the longest is.

    Args:
        row: the fields of a `packing.Row`. The longest is rounded up to a power of two, which the kernel does not mind and
            for which compiled code need not be compiled again.
    """
    return {"ends": row["ends"], "longest": max(_LONGEST, 1 << (row["longest"] - 1).bit_length())}


def _kernel() -> Callable[..., Any]:
    """torch's `varlen_attn` for any number of key heads: 2.11 accepts fewer of them as they are, later versions by a flag."""
    from torch.nn.attention.varlen import varlen_attn

    return partial(varlen_attn, enable_gqa=True) if "enable_gqa" in signature(varlen_attn).parameters else varlen_attn


def _varlen_by(kernel: Callable[..., Any]) -> Callable[..., Any]:
    def varlen(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        **settings: Any,
    ) -> tuple[torch.Tensor, None]:
        """transformers' attention interface: query (1, heads, tokens, d), key and value (1, key heads, tokens, d)."""
        kind = value.dtype if value.dtype in (torch.bfloat16, torch.float16) else torch.bfloat16
        given = (item[0].transpose(0, 1).to(kind) for item in (query, key, value))
        ends, longest = settings["ends"], settings["longest"]
        attended: torch.Tensor = kernel(*given, ends, ends, longest, longest, scale=scaling, window_size=(-1, 0))
        return attended.unsqueeze(0), None

    return varlen


def use_grouped(model: Any) -> None:
    """Makes a model whose query heads share key heads attend without copies of keys and values when it writes a token."""
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        AttentionInterface.register(_GROUPED, grouped)
        AttentionMaskInterface.register(_GROUPED, sdpa_mask)
        model.set_attn_implementation(_GROUPED)


def grouped(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query (rows, heads, tokens, d), key and value (rows, key heads, slots, d).

    One token a row sees what the mask (rows, 1, 1, slots) shows, in every head alike. On a GPU with bfloat16 a kernel of our own
    reads only that; elsewhere the heads of a group are given as the tokens of their key head. Longer texts go to transformers'.
    """
    rows, heads, tokens, width = query.shape
    shared = key.shape[1]
    if tokens == 1 and attention_mask is not None and _is_of_rows(attention_mask) and _has_bfloat16(query.device):
        from minilima.models.attention_triton import attend

        scale = width**-0.5 if scaling is None else scaling
        return attend(query, key, value, attention_mask, scale).transpose(1, 2), None
    if tokens > 1 or heads == shared:
        attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **settings)
        return attended, None
    by_key = query.reshape(rows, shared, heads // shared, width)
    attended = torch.nn.functional.scaled_dot_product_attention(by_key, key, value, attn_mask=attention_mask, scale=scaling)
    return attended.reshape(rows, 1, heads, value.shape[-1]), None


def _has_bfloat16(device: torch.device) -> bool:
    """Whether it is a GPU that multiplies bfloat16 (compute capability 8.0), as the kernels do."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _is_of_rows(mask: torch.Tensor) -> bool:
    """Whether a mask says what a row sees, in every head alike."""
    return mask.dtype == torch.bool and mask.shape[1] == 1
