"""Rows of fixed length: what fills them up changes neither loss nor gradient. The graphs themselves are in test_gpu.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from minilima.config.choices import Method, Rounding
from minilima.config.schema import ComputeConfig, SftConfig
from minilima.models.loss import fuse_head, loss_and_gradient
from minilima.models.packing import IGNORED, make_row
from minilima.train.recordable import filled_up, is_worth_recording, may_record
from minilima.train.recorded import FixedRow
from minilima.train.shape import shape_of


def examples(*sizes: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    drawn = [random.integers(5, 200, size) for size in sizes]
    return [{"input_ids": ids, "labels": np.where(np.arange(len(ids)) < 3, IGNORED, ids)} for ids in drawn]


def test_a_filled_up_row_has_the_loss_and_the_gradients_of_the_row(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    fuse_head(model)
    head = model.get_output_embeddings()

    def passed(row: dict[str, Any]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        head.predicting, head.targets = row["predicting"], row["targets"]
        loss = model(input_ids=row["input_ids"], position_ids=row["position_ids"], use_cache=False).logits
        return loss, torch.autograd.grad(loss, list(model.parameters()))

    fixed = FixedRow.of(64, examples=4, longest=64, device=torch.device("cpu"))
    for sizes in ((20, 9, 5), (64,), (10, 30)):
        row = vars(make_row(examples(*sizes)))
        fixed.fill(row, 0.5)
        (loss, gradients), (same, others) = passed(row), passed(fixed.fields())
        assert float(same.detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
        for one, other in zip(gradients, others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert fixed.ends.tolist() == [*row["ends"].tolist(), *[64] * (6 - len(row["ends"]))]
        assert float(fixed.scale) == 0.5


@pytest.mark.parametrize(("tokens", "longest"), [(1024, 512), (2048, 512), (2048, 4096), (3072, 2048)])
def test_no_example_is_longer_than_the_attention_kernel_is_told(tokens: int, longest: int) -> None:
    fixed = FixedRow.of(tokens, examples=8, longest=longest, device=torch.device("cpu"))
    for size in (tokens - 1023, tokens - 1):
        row = vars(make_row(examples(*[min(longest, size - start) for start in range(0, size, longest)])))
        fixed.fill(row, 1.0)
        assert int(fixed.ends.diff().max()) <= fixed.longest, "what lies beyond is never written, and so may be anything"


def test_what_fills_a_row_up_takes_no_position_that_the_row_lacks() -> None:
    fixed = FixedRow.of(1024, examples=4, longest=64, device=torch.device("cpu"))
    row = vars(make_row(examples(20, 60)))
    fixed.fill(row, 1.0)
    assert int(fixed.position_ids.max()) == int(row["position_ids"].max()) == 59, "a table of positions may end there"


def test_positions_without_a_target_have_no_loss_and_no_gradient() -> None:
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([3, IGNORED, 7, IGNORED, 0])
    loss, gradient = loss_and_gradient(logits.clone(), targets)
    kept = targets >= 0
    expected, of_kept = loss_and_gradient(logits[kept].clone(), targets[kept])
    assert float(loss) == pytest.approx(float(expected)) and torch.equal(gradient[kept], of_kept)
    assert not gradient[~kept].any()


def test_small_models_and_short_rows_are_worth_recording() -> None:
    def shape(**changed: int) -> Any:
        small = {"num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9}
        small |= {"num_key_value_heads": 3, "vocab_size": 49152}
        found = shape_of({"model_type": "llama", "tie_word_embeddings": True, **small, **changed})
        assert found is not None
        return found

    assert is_worth_recording(shape(), 8_300), "LIMA's steps with SmolLM2-135M"
    assert not is_worth_recording(shape(), 81_920)
    large = {"num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32}
    assert not is_worth_recording(shape(**large, vocab_size=128256), 8_300), "1B keeps a GPU busy"
    assert (filled_up(1), filled_up(1024), filled_up(1025)) == (1024, 1024, 2048)


def test_only_recipes_whose_steps_are_alike_are_recorded() -> None:
    assert may_record(SftConfig(), ComputeConfig())
    others = [
        (SftConfig(method=Method.lora), ComputeConfig()),
        (SftConfig(weights=Rounding.stochastic), ComputeConfig()),
        (SftConfig(), ComputeConfig(compile=True)),
        (SftConfig(), ComputeConfig(zero_stage=2)),
        (SftConfig(), ComputeConfig(cuda_graphs=False)),
    ]
    assert not any(may_record(*other) for other in others)
