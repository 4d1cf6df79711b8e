"""What a stage will take: requests, tokens and USD by guess, time as earlier builds on this machine took, disk by its weights.

    config ─> (kind of work, units) ─> median of seconds a unit over manifests of that kind ─> seconds
Nothing is known without an earlier build of the kind, and nothing is made up then. Pure but for reading manifests and sizes.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from minilima import environment
from minilima.config.choices import DataKind, GeneratorKind, JudgeKind, Method, Orders
from minilima.config.schema import Config
from minilima.formats.files import canonical_json
from minilima.models.packaged import PACKAGED
from minilima.run.requests import count_prompts, estimate
from minilima.store.sources import BASES, ModelSource, Sources
from minilima.train.shape import published_shape

Number = TypeVar("Number", int, float)
Manifests = Mapping[str, Mapping[str, Any]]
"""The manifests of a store by their directories."""

_CHECKPOINT_TIMES = 7
"""A checkpoint of full fine-tuning beside the bfloat16 result: weights (2 bytes), float32 masters and two moments (12)."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Guesses for one stage, or sums of them; None where nothing is known, or nothing of the kind is taken."""

    requests: int | None = None
    tokens: int | None = None
    usd: float | None = None
    prices_of: str | None = None
    """Date of the price list."""
    seconds: float | None = None
    h100_seconds: float | None = None
    """Of training on one H100, where this machine's own time is not known."""
    memory_bytes: float | None = None
    """Of each training process, on its GPU or, without one, in the machine."""
    disk_bytes: int | None = None
    scratch_bytes: int | None = None
    """On the disk while it is built, beside the result."""

    def __add__(self, other: "Needs") -> "Needs":
        return Needs(
            requests=_sum(self.requests, other.requests),
            tokens=_sum(self.tokens, other.tokens),
            usd=_sum(self.usd, other.usd),
            prices_of=self.prices_of or other.prices_of,
            seconds=_sum(self.seconds, other.seconds),
            h100_seconds=_sum(self.h100_seconds, other.h100_seconds),
            disk_bytes=_sum(self.disk_bytes, other.disk_bytes),
            # One stage is built at a time.
            memory_bytes=max(self.memory_bytes or 0, other.memory_bytes or 0) or None,
            scratch_bytes=max(self.scratch_bytes or 0, other.scratch_bytes or 0) or None,
        )


def _sum(one: Number | None, other: Number | None) -> Number | None:
    return other if one is None else one if other is None else one + other


def read_manifests(root: Path) -> Manifests:
    """What is finished in the store `root`; entries that cannot be read are left out."""
    found = {}
    for file in root.glob("*/manifest.json"):
        try:
            found[file.parent.name] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    return found


def needs(role: str, config: Config, sources: Sources, manifests: Manifests, inputs: Mapping[str, str]) -> Needs:
    """What building a stage will take.

    Args:
        manifests: earlier builds, of the same store.
        inputs: the directories of what the stage is made from, by their roles.
    """
    asked = estimate(role, config, sources)
    weights = weights_bytes(sources.converted(role)) if role in (*BASES, "model", "epochs") else None
    # A chosen epoch shares its files with the stage of all epochs.
    trains_all = role in ("model", "epochs") and "epochs" not in inputs and config.sft.method == Method.full
    return Needs(
        requests=asked.requests if asked else None,
        tokens=asked.prompt_tokens + asked.completion_tokens if asked else None,
        usd=asked.usd if asked else None,
        prices_of=asked.as_of if asked else None,
        seconds=_seconds(_planned(role, config, sources, manifests, inputs), manifests),
        disk_bytes=weights and weights * {"epochs": config.sft.epochs, "model": 0 if "epochs" in inputs else 1}.get(role, 1),
        scratch_bytes=_CHECKPOINT_TIMES * weights if weights and trains_all else None,
    )


@dataclass(frozen=True, kw_only=True)
class Work:
    """What kind of work it is, and how much: builds of one kind take about as long a unit."""

    kind: str
    units: float


def _work(kind: Sequence[Any], units: float | None) -> Work | None:
    return Work(kind=canonical_json(kind), units=units) if units else None


def _planned(role: str, config: Config, sources: Sources, manifests: Manifests, inputs: Mapping[str, str]) -> Work | None:
    base = sources.base.recipe()
    if role == "model":
        made = manifests.get(inputs.get("dataset", ""), {}).get("metrics", {})
        examples = made.get("examples", config.dataset.size)
        return _work(["model", base, config.sft.method], config.sft.epochs * examples if examples else None)
    if role == "reference_answers" and sources.reference is not None:
        return _work(["references"], 1)
    if role in ("answers", "reference_answers"):
        prompts = count_prompts(sources.eval_set, config.eval_set.size)
        return _work(["answers", base], prompts * config.eval.max_tokens if prompts else None)
    if role == "verdicts":
        own = (sources.judge or sources.base).recipe() if config.judge.kind == JudgeKind.local else config.judge.model
        asked = own if config.judge.kind != JudgeKind.reference else None
        prompts = count_prompts(sources.eval_set, config.eval_set.size)
        return _work(["verdicts", config.judge.kind, asked], prompts * _orders(config.judge.orders) if prompts else None)
    if role == "pool" and config.data.kind != DataKind.file:
        local = config.generator.kind == GeneratorKind.local
        writer = (sources.generator or sources.base).recipe() if local else config.generator.model
        return _work(["pool", config.data.kind, writer], config.data.instructions)
    return _work(["base" if role in BASES else role], 1)


def _built(manifest: Mapping[str, Any], manifests: Manifests) -> Work | None:
    stage, recipe, metrics = manifest["stage"], manifest["recipe"], manifest["metrics"]
    if stage == "model":
        examples = manifests.get(manifest["inputs"]["dataset"], {}).get("metrics", {}).get("examples")
        return _work([stage, recipe["base"], recipe["method"]], recipe["epochs"] * examples if examples else None)
    if stage == "answers":
        made_by = manifests.get(manifest["inputs"].get("model", ""), {}).get("recipe", {})
        return _work([stage, recipe.get("model") or made_by.get("base")], metrics["answers"] * recipe["max_tokens"])
    if stage == "verdicts":
        return _work([stage, recipe["kind"], recipe.get("model")], metrics["prompts"] * _orders(recipe.get("orders")))
    if stage == "pool" and "instructions" in recipe:
        return _work([stage, recipe.get("kind"), recipe.get("model")], recipe["instructions"])
    return _work([stage], 1)


def _orders(orders: Orders | str | None) -> int:
    return 1 if orders == Orders.random else 2


def _seconds(work: Work | None, manifests: Manifests) -> float | None:
    if work is None:
        return None
    here = [manifest for manifest in manifests.values() if manifest.get("host") == environment.host()]
    paces = []
    for manifest in here:
        done = _built(manifest, manifests)
        if done is not None and done.kind == work.kind:
            paces.append(manifest["seconds"] / done.units)
    return statistics.median(paces) * work.units if paces else None


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
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    is_float32 = told.get("dtype", told.get("torch_dtype")) == "float32"
    return sum(file.stat().st_size for file in files) // (2 if is_float32 else 1)


def _snapshot(location: str) -> Path | None:
    """Where the hub's client keeps `owner/name@commit`."""
    from huggingface_hub.constants import HF_HUB_CACHE

    name, _, commit = location.partition("@")
    return Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "snapshots" / commit if commit else None
