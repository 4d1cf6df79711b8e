"""The cases of sft_throughput.py: shapes and settings, and what the memory preflight foretells of them."""

import os

import torch
from transformers import LlamaConfig

from benchmarks.shapes import SHAPES
from minilima.config.choices import Method, Offload, Quantise, Rounding
from minilima.config.schema import ComputeConfig, Config, SftConfig
from minilima.train.memory import GIB, Device, memory
from minilima.train.shape import ModelShape, shape_of

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
"""GPUs, under torchrun; a step takes as many times the examples."""

CASES = {
    # case: shape, method, examples a step, row tokens
    "135m_full": ("135m", Method.full, 256, 81_920),
    "135m_lima": ("135m", Method.full, 32, 81_920),  # steps as small as LIMA's recipe has them
    "1b_full": ("1b", Method.full, 128, 38_912),
    "8b_lora": ("8b", Method.lora, 64, 10_240),
    "8b_full": ("8b", Method.full, 32, 10_240),
    "8b_qlora": ("8b", Method.lora, 64, 10_240),
    "8b_offload": ("8b", Method.full, 64, 10_240),
    "tiny_full": ("tiny", Method.full, 8, 2_048),
    "tiny_lora": ("tiny", Method.lora, 8, 2_048),
}


TIGHT, QUANTISED, OFFLOADED, SMALL_STEPS = "8b_full", "8b_qlora", "8b_offload", "135m_lima"
"""The case whose states fill a GPU, the one in 4 bits, the one whose states lie in the machine's memory, and the one whose steps
are recorded and not compiled."""


def ours(case: str, *, plain: bool = False, on_gpu: bool = torch.cuda.is_available()) -> tuple[Config, int]:
    """Our settings for a case, and how many tokens a row may have: divided, as many as a step has, so that one is enough."""
    _, method, batch, row_tokens = CASES[case]
    alone, divided = case == TIGHT and WORLD == 1, case == TIGHT and WORLD > 1
    sft = SftConfig(
        method=method, epochs=1, batch_size=batch * WORLD, learning_rate=1e-5, beta2=0.95, weight_decay=0.1,
        weights=Rounding.stochastic if alone else Rounding.masters,
        quantise=Quantise.nf4 if case == QUANTISED else None,
    )  # fmt: skip
    compiled = on_gpu and case not in (QUANTISED, SMALL_STEPS)
    compute = ComputeConfig(
        checkpoint_seconds=1e9, compile=compiled, zero_stage=3 if divided else 2 if case == OFFLOADED else None,
        offload=Offload.optimizer if case == OFFLOADED else Offload.none, cuda_graphs=not plain,
        activation_checkpointing=case in (TIGHT, QUANTISED, OFFLOADED) or None,
    )  # fmt: skip
    return Config(sft=sft, compute=compute), 8_960 if divided else row_tokens


def shape_of_case(case: str) -> ModelShape:
    known = shape_of(LlamaConfig(**SHAPES[CASES[case][0]]).to_dict())
    assert known is not None
    return known


def predicted_gib(case: str, longest: int, later: int) -> float:
    """What the preflight foretells of the peak on each GPU, of steps with first rows and later ones of at most so many tokens."""
    config, _ = ours(case, on_gpu=True)
    foretold = memory(
        shape_of_case(case), config.sft, config.compute, Device(bytes=None, bf16=True, processes=WORLD, name="GPU"),
        row_tokens=longest, checkpointing=bool(config.compute.activation_checkpointing), later_tokens=later,
    )  # fmt: skip
    return foretold.total / GIB
