"""What a step measured on the GPU, read one step later: asking at once would let the GPU wait for the host after every step."""

from dataclasses import dataclass, field
from typing import Any

import torch


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
