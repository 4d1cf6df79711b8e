"""Attention by boundaries, with a kernel of plain torch in place of the GPU's: where examples end."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from minilima.models import attention
from minilima.models.packing import make_row


def one_by_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: torch.Tensor, _: Any, longest: int, *__: Any, **given: Any
) -> torch.Tensor:
    """`varlen_attn` without a GPU: tensors of (tokens, heads, d), each example by itself."""
    parts = []
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        assert end - start <= longest
        q, k, v = (item[start:end].transpose(0, 1).unsqueeze(0) for item in (query, key, value))
        parts.append(
            torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=given["scale"], enable_gqa=True)
        )
    return torch.cat(parts, dim=2)[0].transpose(0, 1)


@pytest.mark.parametrize("lengths", [[40, 20, 9, 3], [9, 3], [40, 20], [5, 30, 4]])
def test_examples_of_a_row_are_attended_to_alone(lengths: list[int], tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_kernel", lambda: one_by_one)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    rng = np.random.default_rng(0)
    ids = [rng.integers(5, 100, size) for size in lengths]
    row = make_row([{"input_ids": item, "labels": item.copy()} for item in ids])
    alone = torch.cat([model(input_ids=torch.from_numpy(item).unsqueeze(0), use_cache=False).logits[0] for item in ids])
    attention.use_varlen(model)
    given = {"attention_mask": None, "use_cache": False, **attention.boundaries(vars(row))}
    together = model(input_ids=row.input_ids, position_ids=row.position_ids, **given).logits[0]
    assert torch.allclose(alone.float(), together.float(), atol=0.05)
