"""Checkpoints that are whole or not taken: a list of their files is written last, and only what agrees with it is resumed.

The files are synced before the list is written, so that not even a power failure leaves a list without its files.
"""

import json
import os
import shutil
from pathlib import Path

from minilima.files import sizes, sync, write_atomic

COMPLETE = "complete"
"""Holds the sizes of a checkpoint's files; it is there once all of them are."""


def mark_complete(checkpoint: Path) -> None:
    """Marks a checkpoint, to which no process writes any more, as whole, and removes the older ones beside it."""
    written = sizes(checkpoint)
    for name in written:
        sync(checkpoint / name)
    write_atomic(checkpoint / COMPLETE, json.dumps(written))
    for older in checkpoint.parent.glob("checkpoint-*"):
        if older != checkpoint:
            shutil.rmtree(older, ignore_errors=True)


def newest_checkpoint(folder: Path) -> str | None:
    """The latest checkpoint that was written whole; what a kill left half-written is removed."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if _is_whole(checkpoint):
            whole.append((int(checkpoint.name.split("-")[1]), checkpoint))
        elif int(os.environ.get("RANK", "0")) == 0:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return str(max(whole)[1]) if whole else None


def _is_whole(checkpoint: Path) -> bool:
    if not (checkpoint / COMPLETE).is_file():
        return False
    wanted = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
    found = sizes(checkpoint)
    return isinstance(wanted, dict) and all(found.get(name) == size for name, size in wanted.items())
