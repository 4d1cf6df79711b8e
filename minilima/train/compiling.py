"""Compiled training: each block of the model by itself, so that thirty equal blocks are compiled once.

The first time costs about a minute; the compiled code is kept in the user's cache and found again by later runs.
"""

import os
from typing import Any

import torch

from minilima.embedded import user_cache


def compile_blocks(model: Any) -> None:
    """Compiles every decoder block, for rows of any length."""
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(user_cache() / "compiled")
    # Would cut the blocks in pieces so that DDP can send gradients early, which the masters do themselves.
    torch._dynamo.config.optimize_ddp = False
    for block in model.get_decoder().layers:
        block.compile(dynamic=True)
