"""What training will take is known before it begins: near to what was measured, and with a way out where it does not fit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from minilima.config.choices import Method, Offload, Quantise, Rounding
from minilima.config.schema import ComputeConfig, SftConfig
from minilima.errors import MinilimaError
from minilima.formats.records import Example
from minilima.models.tokenizer import load_tokenizer
from minilima.train.memory import GIB, Device, check_states, fit, fitting_settings, memory, next_settings
from minilima.train.shape import ModelShape, nominal_flops, published_shape, shape_of, training_flops
from minilima.train.tokenize import TokenizedExample, check_tokens, masked_text, tokenize_example

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"
LLAMA_8B = ModelShape(
    layers=32, hidden=4096, feed_forward=14336, heads_width=4096, key_width=1024, vocabulary=128256, tied=False
)  # fmt: skip
LLAMA_1B = ModelShape(
    layers=16, hidden=2048, feed_forward=8192, heads_width=2048, key_width=512, vocabulary=128256, tied=True
)  # fmt: skip
SMOL = ModelShape(layers=30, hidden=576, feed_forward=1536, heads_width=576, key_width=192, vocabulary=49152, tied=True)
H100 = Device(bytes=int(79.6 * GIB), bf16=True, flops=989e12, name="NVIDIA H100 80GB HBM3")
FULL, LORA, COMPILED = SftConfig(), SftConfig(method=Method.lora), ComputeConfig(compile=True)


def test_the_shape_counts_every_weight(tiny_model: Path) -> None:
    shape = shape_of(json.loads((tiny_model / "config.json").read_text()))
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert shape is not None
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert [round(known.parameters / 1e6) for known in (SMOL, LLAMA_1B, LLAMA_8B)] == [135, 1236, 8030]


def test_the_published_shapes_have_as_many_weights_as_their_models() -> None:
    millions = {name: published_shape(name) for name in ("smollm2_135m", "Qwen/Qwen3-0.6B-Base", "meta-llama/Llama-3.2-1B")}
    assert [round(shape.parameters / 1e6) for shape in millions.values() if shape] == [135, 596, 1236]
    assert published_shape("someone/else") is None


def test_a_model_of_another_kind_has_no_shape() -> None:
    assert shape_of({"n_layer": 12, "n_embd": 768}) is None


@pytest.mark.parametrize(
    ("result", "shape", "sft", "compute", "checkpointing"),
    [
        ("135m_full_minilima", SMOL, FULL, COMPILED, False),
        ("135m_lima_minilima", SMOL, FULL, ComputeConfig(), False),
        ("1b_full_minilima", LLAMA_1B, FULL, COMPILED, False),
        ("8b_lora_minilima", LLAMA_8B, LORA, COMPILED, False),
        ("8b_full_minilima", LLAMA_8B, SftConfig(weights=Rounding.stochastic), COMPILED, True),
        ("8b_qlora", LLAMA_8B, SftConfig(method=Method.lora, quantise=Quantise.nf4), ComputeConfig(), True),
        ("135m_full_2gpu", SMOL, FULL, COMPILED, False),
        ("1b_full_2gpu", LLAMA_1B, FULL, COMPILED, False),
        ("8b_lora_2gpu", LLAMA_8B, LORA, COMPILED, False),
        ("8b_full_2gpu", LLAMA_8B, FULL, ComputeConfig(compile=True, zero_stage=3), True),
        ("8b_offload", LLAMA_8B, FULL, ComputeConfig(compile=True, zero_stage=2, offload=Offload.optimizer), True),
    ],
)
def test_memory_is_foretold_within_a_twentieth_of_what_an_h100_took_last(
    result: str, shape: ModelShape, sft: SftConfig, compute: ComputeConfig, checkpointing: bool
) -> None:
    """benchmarks/results/sft_*.json: for the longest first row of a step, and the longest later one."""
    measured = json.loads((RESULTS / f"sft_{result}.json").read_text())
    device = replace(H100, processes=measured["gpus"])
    foretold = memory(
        shape, sft, compute, device, row_tokens=measured["longest_row"], checkpointing=checkpointing,
        later_tokens=measured["later_row"],
    )  # fmt: skip
    assert foretold.total / GIB == pytest.approx(measured["peak_gib"], rel=0.05)


def test_memory_of_weights_rounded_stochastically_is_foretold_within_a_twentieth() -> None:
    """An earlier peak, of shorter rows, whose blocks are computed again."""
    sft = SftConfig(weights=Rounding.stochastic)
    foretold = memory(LLAMA_8B, sft, COMPILED, H100, row_tokens=8_500, checkpointing=True, later_tokens=0)
    assert foretold.total / GIB == pytest.approx(60.12, rel=0.05)


@pytest.mark.parametrize(("dropout", "measured_gib"), [(0.0, 16.83), (0.2, 17.39)])
def test_memory_without_compilation_is_foretold_within_a_tenth(dropout: float, measured_gib: float) -> None:
    """Peaks in experiments/lima_dropout/run_*.json."""
    sft = SftConfig(residual_dropout=dropout)
    foretold = memory(SMOL, sft, ComputeConfig(), H100, row_tokens=18_432, checkpointing=False, later_tokens=0)
    assert foretold.total / GIB == pytest.approx(measured_gib, rel=0.1)


def test_rows_are_as_long_as_the_memory_allows_and_no_longer_than_a_step() -> None:
    roomy, tight = fit(LLAMA_1B, FULL, ComputeConfig(), H100), fit(LLAMA_1B, FULL, ComputeConfig(), replace(H100, bytes=44 * GIB))
    assert roomy.fits and tight.fits
    assert roomy.row_tokens > tight.row_tokens >= FULL.max_tokens
    longer = memory(LLAMA_1B, FULL, ComputeConfig(), H100, row_tokens=roomy.row_tokens + 1024, checkpointing=False)
    assert longer.total > 0.95 * 79.6 * GIB
    assert fit(LLAMA_1B, FULL, ComputeConfig(), H100, most_tokens=5_000).row_tokens == 5_120
    assert fit(LLAMA_1B, FULL, ComputeConfig(micro_batch_tokens=4_096), H100).row_tokens == 4_096


def test_blocks_are_computed_again_only_where_memory_asks_for_it() -> None:
    assert not fit(LLAMA_1B, FULL, ComputeConfig(), H100).checkpointing
    small = replace(H100, bytes=28 * GIB)
    assert fit(LLAMA_1B, FULL, ComputeConfig(), small).checkpointing
    assert not fit(LLAMA_1B, FULL, ComputeConfig(activation_checkpointing=False), small).checkpointing


def test_a_model_of_eight_billion_fits_on_one_gpu_only_by_other_means() -> None:
    alone = fit(LLAMA_8B, FULL, ComputeConfig(), H100)
    assert alone.fits is False
    assert fitting_settings(LLAMA_8B, FULL, ComputeConfig(), H100) == [
        "compute=zero3_offload",
        "sft.weights=stochastic",
        "sft=lora",
    ]
    with pytest.raises(MinilimaError, match=r"does not fit.*compute=zero3_offload or sft\.weights=stochastic or sft=lora"):
        check_states(LLAMA_8B, FULL, ComputeConfig(), H100, alone)
    pair = replace(H100, processes=2)
    assert "compute=zero3" in fitting_settings(LLAMA_8B, FULL, ComputeConfig(), pair)
    assert fit(LLAMA_8B, SftConfig(weights=Rounding.stochastic), ComputeConfig(), H100).fits
    moved = fit(LLAMA_8B, FULL, ComputeConfig(zero_stage=3, offload=Offload.all), H100)
    assert moved.fits and moved.memory.host > 100 * GIB


def test_zero_divides_what_its_stage_divides() -> None:
    def states(stage: int | None) -> tuple[float, float, float]:
        device = replace(H100, processes=4)
        found = memory(LLAMA_1B, FULL, ComputeConfig(zero_stage=stage), device, row_tokens=1024, checkpointing=False)
        return found.weights, found.gradients, found.optimizer

    none, one, two, three = map(states, (0, 1, 2, 3))
    assert one[2] == none[2] / 4 and one[0] == none[0]
    assert two[1] < one[1] and two[0] == one[0]
    assert three[0] == two[0] / 4


def test_what_to_try_when_memory_is_full_begins_with_what_changes_nothing_learned() -> None:
    plain = fit(LLAMA_1B, FULL, ComputeConfig(), H100)
    assert next_settings(FULL, ComputeConfig(), H100, plain)[0] == "compute.activation_checkpointing=true"
    again = fit(LLAMA_1B, FULL, ComputeConfig(activation_checkpointing=True), replace(H100, processes=2))
    ways = next_settings(FULL, ComputeConfig(), replace(H100, processes=2), again)
    assert ways[0].startswith("compute.micro_batch_tokens=") and ways[1] == "compute.zero_stage=2"
    assert "another recipe" in ways[-2]


def test_flops_are_those_that_torch_counts() -> None:
    """Forward and backward, on documents of one length; torch counts attention whole, the formula its causal half."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation="eager",
    )  # fmt: skip
    model, shape = LlamaForCausalLM(config), shape_of(config.to_dict())
    assert shape is not None
    tokens = 96
    ids = torch.randint(0, 64, (1, tokens))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    ours = training_flops([tokens], parameters=shape.multiplying, layers=shape.layers, heads_width=shape.heads_width)
    causal_half = 6 * shape.layers * shape.heads_width * tokens * tokens
    assert counter.get_total_flops() == pytest.approx(ours + causal_half, rel=0.01)


def test_the_speed_of_a_gpu_is_known_by_its_name() -> None:
    assert nominal_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert nominal_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert nominal_flops("CPU") is None


def test_an_example_is_shown_with_what_has_loss(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    example = Example(id="1", instruction="Name the capital of France.", input="", output="Paris.", source="seed")
    pieces = masked_text(tokenize_example(example, tokenizer, 512), tokenizer)
    assert [trained for _, trained in pieces] == [False, True]
    assert pieces[1][0] == "Paris.<|im_end|>"


def test_two_beginnings_are_refused_and_padding_with_the_end_is_not(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    check_tokens([TokenizedExample(input_ids=[1, 1, 5], labels=[1, 1, 5])], tokenizer)
    tokenizer.bos_token = "<|im_start|>"
    with pytest.raises(MinilimaError, match="twice"):
        check_tokens([TokenizedExample(input_ids=[1, 1, 5], labels=[1, 1, 5])], tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    check_tokens([TokenizedExample(input_ids=[1, 5], labels=[1, 5])], tokenizer)  # packed rows have no padding
