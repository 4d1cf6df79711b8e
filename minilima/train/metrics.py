"""What training does a second: tokens, share of the hardware's arithmetic (MFU), waiting for data, memory.

Rows hold no padding, so every token that passes through the model is one of the data: useful and padded throughput are
the same. A row made only to keep processes in step repeats one, and is not counted.
"""

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from minilima.config.choices import Method
from minilima.config.schema import Config
from minilima.train.memory import Device
from minilima.train.shape import ModelShape, training_flops
from minilima.train.tokenize import TokenizedExample


@dataclass(kw_only=True)
class Meter:
    """Counts between two readings; the figures of all processes are this one's times their number.

    `flops_per_token` is the mean over the data set (`flops.py`), None where the model's shape is not known.
    """

    device: Device
    flops_per_token: float | None
    tokens: int = 0
    waited_seconds: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, examples: Sequence[TokenizedExample], shape: ModelShape | None, config: Config, device: Device) -> "Meter":
        """A meter for a training on these examples."""
        if shape is None:
            return cls(device=device, flops_per_token=None)
        lengths = [len(example.input_ids) for example in examples]
        frozen = config.sft.method == Method.lora
        needed = training_flops(
            lengths, parameters=shape.multiplying, layers=shape.layers, heads_width=shape.heads_width, frozen=frozen
        )
        return cls(device=device, flops_per_token=needed / sum(lengths))

    def read(self) -> dict[str, float]:
        """The figures since the last reading; mfu only where the hardware's speed is known."""
        now = time.monotonic()
        seconds, self._since = max(now - self._since, 1e-9), now
        speed = self.tokens * self.device.processes / seconds
        figures = {"tokens_per_second": round(speed, 1), "data_wait_seconds": round(self.waited_seconds, 4)}
        if self.flops_per_token is not None and self.device.flops is not None:
            figures["mfu"] = round(speed * self.flops_per_token / (self.device.flops * self.device.processes), 4)
        self.tokens, self.waited_seconds = 0, 0.0
        return {**figures, "memory_gib": peak_gib()}


def peak_gib() -> float:
    """The most memory that was in use: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, but bytes on macOS
    return round(used / (2**30 if sys.platform == "darwin" else 2**20), 2)


@dataclass(kw_only=True)
class Lagging:
    """Holds the figures of one step while they are copied to the host."""

    _held: tuple[torch.Tensor, torch.cuda.Event, dict[str, Any]] | None = field(default=None, init=False)

    def hold(self, values: torch.Tensor, **details: Any) -> None:
        """Begins the copy; `details` come back with the values."""
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        self._held = (host, copied, details)

    def release(self) -> tuple[list[float], dict[str, Any]] | None:
        """The values held, once the GPU has come that far; None if there are none."""
        if self._held is None:
            return None
        host, copied, details = self._held
        self._held = None
        copied.synchronize()
        return host.tolist(), details
