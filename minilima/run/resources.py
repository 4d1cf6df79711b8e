"""What building stages will take: requests, tokens, USD, time, memory and disk; and how large a model's weights are."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from minilima.models.packaged import PACKAGED
from minilima.store.sources import ModelSource
from minilima.train.shape import published_shape

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one stage, or several together, will take; None where that is not known or the stage takes none of it."""

    requests: int | None = None
    tokens: int | None = None
    usd: float | None = None
    prices_of: str | None = None
    """Date of the price list."""
    seconds: float | None = None
    measured_on: str | None = None
    """The other machine that the seconds were measured on, where nothing of the kind was built here."""
    h100_seconds: float | None = None
    """Of training on one H100, where this machine's own time is not known."""
    memory_bytes: float | None = None
    """Of each training process, on its GPU or, without one, in the machine."""
    disk_bytes: int | None = None
    scratch_bytes: int | None = None
    """On the disk while it is built, beside the result."""

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(
            requests=_sum(self.requests, other.requests),
            tokens=_sum(self.tokens, other.tokens),
            usd=_sum(self.usd, other.usd),
            prices_of=self.prices_of or other.prices_of,
            seconds=_sum(self.seconds, other.seconds),
            measured_on=self.measured_on or other.measured_on,
            h100_seconds=_sum(self.h100_seconds, other.h100_seconds),
            disk_bytes=_sum(self.disk_bytes, other.disk_bytes),
            # One stage is built at a time.
            memory_bytes=max(self.memory_bytes or 0, other.memory_bytes or 0) or None,
            scratch_bytes=max(self.scratch_bytes or 0, other.scratch_bytes or 0) or None,
        )


def _sum(one: Number | None, other: Number | None) -> Number | None:
    return other if one is None else one if other is None else one + other


@cache
def weights_bytes(source: ModelSource) -> int | None:
    """Bytes of a model's weights in bfloat16, as every result has them; None where it is not on this machine nor well known."""
    if source.kind == "packaged":
        return PACKAGED[source.location].unpacked_megabytes * 1_000_000
    folder = Path(source.location) if source.kind == "path" else _snapshot(source.location)
    files = list(folder.glob("*.safetensors")) if folder is not None and folder.is_dir() else []
    if folder is None or not files:
        shape = published_shape(source.location.partition("@")[0])
        return 2 * shape.parameters if shape is not None else None
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    is_float32 = settings.get("dtype", settings.get("torch_dtype")) == "float32"
    return sum(file.stat().st_size for file in files) // (2 if is_float32 else 1)


def _snapshot(location: str) -> Path | None:
    """Where the hub's client keeps `owner/name@commit`."""
    from huggingface_hub.constants import HF_HUB_CACHE

    name, _, commit = location.partition("@")
    return Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "snapshots" / commit if commit else None
