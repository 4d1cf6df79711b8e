"""What the plan says of a training: the memory it takes and where it fits, its steps, tokens and time. Never imports torch.

The model's shape is read from its config.json, the devices from nvidia-smi; what they do not say is not guessed.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.config.choices import DeviceKind
from minilima.config.schema import ComputeConfig, Config
from minilima.environment import cpu_multiplies_bfloat16, gpus
from minilima.run.gpus import visible_gpus
from minilima.run.graph import Graph
from minilima.run.hosts import machines
from minilima.run.requests import TOKENS_A_WORD
from minilima.store.entries import Store
from minilima.store.sources import ModelSource, Sources
from minilima.train.memory import GIB, USABLE, Device, MemoryLayout, fit, fitting_settings, uses_bf16
from minilima.train.shape import H100_FLOPS, ModelShape, nominal_flops, published_shape, shape_of, training_flops

ASSUMED_MFU = 0.4
ASSUMED_TOKENS = 300
"""Of an example, where the data set is not made yet; LIMA's examples have about 750, Alpaca's about 100."""
LAYER_SECONDS = 0.007
"""A layer of a step takes no less: that long it takes to launch its kernels (benchmarks/results/lima_run.json: 0.22 s for 30)."""


@dataclass(frozen=True, kw_only=True)
class TrainingEstimate:
    """`memory`: (what for, GiB) a row; `notes`: sentences on rows, steps and time, and on what would fit."""

    memory: tuple[tuple[str, str], ...]
    memory_bytes: float
    """Of each process, in all."""
    seconds: float | None
    """Of computing; None where the device's speed or the number of examples is not known."""
    h100_seconds: float | None
    """What it would take one H100."""
    fits: bool | None
    """None where the device's memory is not known."""
    notes: tuple[str, ...]


def estimate_training(config: Config, sources: Sources, graph: Graph, store: Store, device: Device) -> TrainingEstimate | None:
    """What training will take on `device`; None where the model's shape is not known yet."""
    if (shape := _shape(sources.base, graph, store)) is None:
        return None
    laid_out = fit(shape, config.sft, config.compute, device)
    time = _time(shape, config, device, graph, store)
    return TrainingEstimate(
        memory=_table(laid_out, device),
        memory_bytes=laid_out.memory.total,
        seconds=time.seconds,
        h100_seconds=time.h100_seconds,
        fits=laid_out.fits,
        notes=(_layout(shape, config, device, laid_out), time.text),
    )


def device_here(compute: ComputeConfig) -> Device:
    """What each training process would compute on, as nvidia-smi and the kernel report it."""
    listed = [] if compute.device == DeviceKind.cpu or not visible_gpus() else gpus() or []
    if not listed:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Device(bytes=installed, bf16=uses_bf16(compute, cpu_multiplies_bfloat16()), processes=_processes(compute, 1))
    name, size, *_ = (part.strip() for part in listed[0].split(","))
    return Device(
        bytes=int(float(size.removesuffix("MiB")) * 2**20),
        bf16=uses_bf16(compute, hardware=True),
        processes=_processes(compute, len(visible_gpus())),
        flops=nominal_flops(name),
        name=name,
    )


def _processes(compute: ComputeConfig, here: int) -> int:
    each = compute.processes or (here if compute.gpus is None else min(here, compute.gpus))
    return each * max(1, len(machines(compute)))


def _shape(source: ModelSource, graph: Graph, store: Store) -> ModelShape | None:
    file = _config_file(source, graph, store)
    if file is not None and file.is_file():
        return shape_of(json.loads(file.read_text(encoding="utf-8")))
    return published_shape(source.location.partition("@")[0]) if source.kind != "path" else None


def _config_file(source: ModelSource, graph: Graph, store: Store) -> Path | None:
    if source.kind == "path":
        return Path(source.location) / "config.json"
    if source.kind == "packaged":
        return store.root / graph["base"].directory / "config.json"
    from huggingface_hub import try_to_load_from_cache

    name, _, commit = source.location.partition("@")
    cached: Any = try_to_load_from_cache(name, "config.json", revision=commit)
    return Path(cached) if isinstance(cached, str) else None


def _table(laid_out: MemoryLayout, device: Device) -> tuple[tuple[str, str], ...]:
    parts = laid_out.memory
    rows = {
        "weights": parts.weights,
        "gradients": parts.gradients,
        "optimizer": parts.optimizer,
        f"activations of {laid_out.row_tokens:,} tokens": parts.activations,
        "logits": parts.logits,
        "buffers": parts.buffers,
        "in all": parts.total,
    }
    if device.bytes is not None:
        rows[f"usable of {device.name}"] = USABLE * device.bytes
    if parts.host:
        rows["in the machine's memory, each process"] = parts.host
    return tuple((name, f"{value / GIB:,.1f}") for name, value in rows.items() if value)


def _layout(shape: ModelShape, config: Config, device: Device, laid_out: MemoryLayout) -> str:
    blocks = "activation checkpointing" if laid_out.checkpointing else "no activation checkpointing"
    text = f"Training {shape.parameters / 1e6:,.0f} M weights on {device.processes} x {device.name}: rows of "
    text += f"{laid_out.row_tokens:,} tokens, {blocks}."
    if laid_out.fits is False:
        ways = fitting_settings(shape, config.sft, config.compute, device)
        text += f" It does not fit; {' or '.join(ways) if ways else 'none of the usual settings'} would."
    return text


@dataclass(frozen=True, kw_only=True)
class _Time:
    """Of computing, and a sentence that says what it rests on."""

    seconds: float | None
    h100_seconds: float | None
    text: str


def _time(shape: ModelShape, config: Config, device: Device, graph: Graph, store: Store) -> _Time:
    sft = config.sft
    artifact = store.find(graph["dataset"])
    examples, tokens, basis = config.dataset.size, float(ASSUMED_TOKENS), f"assuming {ASSUMED_TOKENS} tokens an example"
    if artifact is not None:
        examples = artifact.metrics["examples"]
        words = artifact.metrics["instruction_words"]["mean"] + artifact.metrics["output_words"]["mean"]
        tokens, basis = TOKENS_A_WORD * words, "by the words of the data set"
    if examples is None:
        return _Time(seconds=None, h100_seconds=None, text="How many steps there are is known once the data set is made.")
    steps = sft.epochs * -(-examples // sft.batch_size)
    text = f"Training takes {steps:,} steps over about {sft.epochs * examples * tokens:,.0f} tokens ({basis})"
    needed = training_flops(
        [round(tokens)] * examples, parameters=shape.multiplying, layers=shape.layers, heads_width=shape.heads_width,
        frozen=sft.method != "full",
    ) * sft.epochs  # fmt: skip
    launching = steps * shape.layers * LAYER_SECONDS
    h100 = max(launching, needed / (H100_FLOPS * ASSUMED_MFU))
    if device.flops is None:
        return _Time(seconds=None, h100_seconds=h100, text=f"{text}.")
    computing = needed / (device.flops * device.processes * ASSUMED_MFU)
    speed = f"assuming {ASSUMED_MFU:.0%} of the {device.flops / 1e12:,.0f} TFLOP/s of each"
    if launching > computing:
        speed = "which is what launching the kernels takes: larger steps would hardly take longer"
    seconds = max(launching, computing)
    return _Time(seconds=seconds, h100_seconds=h100, text=f"{text}; about {seconds / 60:,.1f} min of computing, {speed}.")
