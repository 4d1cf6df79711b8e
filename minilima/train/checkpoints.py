"""Checkpoints that are whole or not taken: a mark is written last, and only what bears it is resumed from."""

import os
import shutil
from pathlib import Path

from minilima.files import write_atomic

COMPLETE = "complete"
"""Marks a checkpoint as whole: written last."""


def mark_complete(checkpoint: Path, step: int) -> None:
    """Marks a checkpoint as whole, and removes the older ones beside it."""
    write_atomic(checkpoint / COMPLETE, str(step))
    for older in checkpoint.parent.glob("checkpoint-*"):
        if older != checkpoint:
            shutil.rmtree(older, ignore_errors=True)


def newest_checkpoint(folder: Path) -> str | None:
    """The latest checkpoint that was written whole; what a kill left half-written is removed."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / COMPLETE).is_file():
            whole.append((int(checkpoint.name.split("-")[1]), checkpoint))
        elif int(os.environ.get("RANK", "0")) == 0:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return str(max(whole)[1]) if whole else None
