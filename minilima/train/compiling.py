"""Compiled training: each block of the model by itself, so that thirty equal blocks are compiled once.

The first time costs about a minute; the compiled code is kept in the user's cache and found again by later runs.
"""

import os
from typing import Any

from minilima.embedded import user_cache


def compile_blocks(model: Any) -> None:
    """Compiles every decoder block, for rows of any length."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(user_cache() / "compiled"))
    for block in model.get_decoder().layers:
        block.compile(dynamic=True)
