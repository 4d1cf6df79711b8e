"""What happens beside the steps of a training: it reports progress, writes checkpoints and keeps epochs."""

import json
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from minilima.formats.files import remembered, sizes, sync, write_atomic
from minilima.formats.records import OnProgress, Progress

_STEPS_AVERAGED = 20
"""Of one step the loss is that of a few examples; the mean of so many shows where it goes."""
_STEPS_TIMED = 5
"""After so many steps it is known how long one takes."""


class KeepEpochs(TrainerCallback):  # type: ignore[misc]
    """Has the weights saved after each epoch: at its last step, before a checkpoint that would resume behind it."""

    def __init__(self, epochs: int, keep: Callable[[int], None]) -> None:
        self.epochs = epochs
        self.keep = keep

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        steps = state.max_steps // self.epochs
        if state.global_step % steps == 0:
            self.keep(state.global_step // steps)


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Tells how the training goes, and asks for a checkpoint when enough seconds have passed."""

    def __init__(self, on_progress: OnProgress, checkpoint_seconds: float) -> None:
        self.on_progress = on_progress
        self.checkpoint_seconds = checkpoint_seconds
        self.saved_at = time.monotonic()
        self.steps_seen = 0
        self.interval: int | None = None
        """Steps between checkpoints where several processes have to agree on them."""
        self.losses: deque[float] = deque(maxlen=_STEPS_AVERAGED)

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])
        speed = f", {logs['tokens_per_second']:,.0f} tokens/s" if logs and "tokens_per_second" in logs else ""
        some = len(self.losses)
        loss = f"loss {sum(self.losses) / some:.3f} ({f'mean of {some} steps' if some > 1 else '1 step'})" if some else ""
        note = f"{loss}{speed}"
        self.on_progress(Progress(done=state.global_step, total=state.max_steps, unit="steps", note=note))

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.steps_seen += 1
        due = self._is_due_together(args, state) if args.world_size > 1 else self._elapsed() > self.checkpoint_seconds
        if due and state.global_step < state.max_steps:
            control.should_save = True
            self.saved_at = time.monotonic()

    def _elapsed(self) -> float:
        return time.monotonic() - self.saved_at

    def _is_due_together(self, args: Any, state: TrainerState) -> bool:
        """With several processes each has its own clock: once they know how long a step takes they agree on an interval."""
        if self.interval is None and (self.steps_seen == _STEPS_TIMED or self.checkpoint_seconds == 0):
            wanted = self.checkpoint_seconds * self.steps_seen / self._elapsed()
            agreed = torch.tensor(max(1.0, wanted), device=args.device)
            torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MAX)
            self.interval = math.ceil(float(agreed))
        return self.interval is not None and state.global_step % self.interval == 0


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
    wanted = remembered(checkpoint / COMPLETE, lambda written: list(written.items()))
    return wanted is not None and all(_size(checkpoint / name) == size for name, size in wanted)


def _size(file: Path) -> int | None:
    """In bytes; None where rank 0 is removing it, which it does only with a checkpoint that is not whole."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None
