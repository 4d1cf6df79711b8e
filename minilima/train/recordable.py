"""Which steps are worth being recorded (train/recorded.py), and how long a recorded row is. Pure; no torch."""

import math

from minilima.config.choices import Method, Rounding
from minilima.config.schema import ComputeConfig, SftConfig
from minilima.train.shape import ModelShape

FILLED = 1024
"""A recorded row is filled up to a multiple of so many tokens; each multiple that occurs is recorded once."""
MOST_TOKENS = 16_384
"""Of a row that is recorded: what the longest one needs is kept beside what plain rows need."""
_FLOPS_A_LAYER = 1e12
"""A row with less to multiply in each layer waits for its kernels to be started. The 30 layers of 135M have 2e11 each in a step
of LIMA's, in which an H100 is busy for 18 % of the time without recording."""


def may_record(sft: SftConfig, compute: ComputeConfig) -> bool:
    """Whether a recipe's steps may be recorded on a GPU with bfloat16: all weights are trained, as copies that our optimizer
    keeps, and nothing is compiled."""
    masters = compute.zero_stage is None and sft.weights == Rounding.masters
    return masters and sft.method == Method.full and compute.cuda_graphs and not compute.compile


def is_worth_recording(shape: ModelShape, tokens: int) -> bool:
    """Whether a GPU takes longer to start the kernels of a row of so many tokens than to run them."""
    return tokens <= MOST_TOKENS and 6 * shape.parameters * tokens < _FLOPS_A_LAYER * shape.layers


def filled_up(tokens: int) -> int:
    """The length to which a row of so many tokens is filled up before it is recorded."""
    return FILLED * math.ceil(tokens / FILLED)
