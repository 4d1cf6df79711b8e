"""Fused adapters: the same output and gradients as peft's own layers."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from minilima.config.choices import Method, Quantise
from minilima.config.schema import Config, SftConfig
from minilima.train.adapters import fuse_adapters
from minilima.train.model import load_base, with_adapters

IDS = torch.arange(10, 30).unsqueeze(0)


def adapted(tiny_model: Path, **settings: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    made = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **settings))
    for name, weight in made.named_parameters():
        if "lora_B" in name:  # zero at the start, with which the adapters would do nothing
            torch.nn.init.normal_(weight, std=0.05)
    return made


def results(model: Any) -> dict[str, torch.Tensor]:
    logits = model(input_ids=IDS).logits
    logits.square().mean().backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {"logits": logits.detach(), **gradients}


@pytest.mark.parametrize("compiled", [False, True])
def test_fused_adapters_give_what_separate_ones_give(tiny_model: Path, compiled: bool) -> None:
    plain, fused = adapted(tiny_model), adapted(tiny_model)
    fused.load_state_dict(plain.state_dict())
    assert fuse_adapters(fused) == 14, "seven layers in each of two blocks"
    if compiled:
        for block in fused.get_decoder().layers:
            block.compile(dynamic=True, backend="aot_eager")
    wanted, got = results(plain), results(fused)
    assert wanted.keys() == got.keys()
    for name, value in wanted.items():
        assert torch.allclose(value, got[name], atol=1e-6, rtol=1e-4), name


def test_adapters_with_dropout_are_left_to_peft(tiny_model: Path) -> None:
    assert fuse_adapters(adapted(tiny_model, lora_dropout=0.1)) == 0


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_fused_adapters_over_4_bit_weights_give_what_separate_ones_give(tiny_model: Path) -> None:
    def quantised() -> Any:
        torch.manual_seed(0)
        config = Config(sft=SftConfig(method=Method.lora, quantise=Quantise.nf4, lora_rank=4))
        model = with_adapters(load_base(str(tiny_model), config), config.sft, in_float32=False)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
        return model

    plain, fused = quantised(), quantised()
    trained = [weight for weight in plain.parameters() if weight.requires_grad]
    assert {weight.dtype for weight in trained} == {torch.bfloat16}, "of one precision with what they are added to"
    assert fuse_adapters(fused) == 14
    wanted, got = results(plain), results(fused)
    assert wanted.keys() == got.keys()
    for name, value in wanted.items():
        assert float((value - got[name]).float().norm()) < 0.03 * float(value.float().norm()), name
