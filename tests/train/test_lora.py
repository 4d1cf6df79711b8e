"""Adapters: merged into weights that give the same logits, however they were trained."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from minilima.config.choices import Method
from minilima.config.schema import SftConfig
from minilima.errors import MinilimaError
from minilima.models.checkpoint import ADAPTER
from minilima.models.weights import load_model
from minilima.train.model import with_adapters
from minilima.train.saving import merged
from tests.train.test_sft import losses, train

SETTINGS = ("sft=lora", "sft.batch_size=4", "sft.learning_rate=1e-2", "sft.warmup_ratio=0", "sft.lora_dropout=0")
NAME = "model.layers.0.mlp.up_proj.weight"

quantises = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")


def state(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    return weights


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Adapters trained by one process."""
    return train(tmp_path_factory.mktemp("alone"), tiny_model, *SETTINGS)[1]


def test_merged_adapters_are_a_model_like_its_base_that_has_learned(alone: Path, tiny_model: Path) -> None:
    assert losses(alone)[-1] < losses(alone)[0]
    before, after = state(tiny_model), state(alone)
    assert set(before) == set(after)
    assert not torch.equal(before[NAME].bfloat16(), after[NAME].bfloat16())


def test_the_adapters_are_kept_beside_what_they_were_merged_into(alone: Path, tiny_model: Path) -> None:
    from peft import PeftModel

    settings = json.loads((alone / ADAPTER / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == tiny_model.name, "no path of this machine"
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    again = PeftModel.from_pretrained(base, alone / ADAPTER).merge_and_unload().state_dict()
    assert all(torch.allclose(again[name], weights, atol=4e-3) for name, weights in state(alone).items())


@pytest.mark.parametrize("zero", [2, 3])
def test_divided_adapters_are_saved_whole(alone: Path, tmp_path: Path, tiny_model: Path, zero: int) -> None:
    _, divided = train(tmp_path, tiny_model, *SETTINGS, "compute.processes=2", f"compute.zero_stage={json.dumps(zero)}")
    assert losses(divided) == pytest.approx(losses(alone), abs=1e-4)
    one, two = state(alone), state(divided)
    assert all(torch.allclose(one[name], two[name], atol=4e-3) for name in one)


@pytest.mark.parametrize("setting", ["sft.lora_dora=true", pytest.param("sft.quantise=nf4", marks=quantises)])
def test_other_kinds_of_adapters_learn_and_are_merged_into_whole_weights(
    alone: Path, tmp_path: Path, tiny_model: Path, setting: str
) -> None:
    _, work = train(tmp_path, tiny_model, *SETTINGS, setting)
    assert losses(work)[-1] < losses(work)[0]
    assert losses(work) != losses(alone)
    base, other = state(tiny_model), state(work)
    assert set(other) == set(base), "no trace of 4 bits or of adapters"
    # What the base knew is still there: the embedding was neither trained nor quantised.
    assert torch.allclose(base["model.embed_tokens.weight"], other["model.embed_tokens.weight"], atol=1e-3)


def test_adapters_that_are_empty_or_missing_are_refused(tiny_model: Path) -> None:
    sft = SftConfig(method=Method.lora, lora_rank=4)
    fresh = with_adapters(load_model(str(tiny_model), torch.float32, torch.device("cpu")), sft).state_dict()
    with pytest.raises(MinilimaError, match="all of them are zero"):
        merged(str(tiny_model), sft, fresh, [1, 2, 3])
    with pytest.raises(MinilimaError, match="Only 0 of"):
        merged(str(tiny_model), sft, {}, [1, 2, 3])
