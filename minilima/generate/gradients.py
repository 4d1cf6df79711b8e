"""How much a training step on each example would lower the loss on target tasks: LESS (Xia et al. 2024, arXiv 2402.04333).

    warm-up ─> after each pass: gradient of each target, and Adam's step for each example ─> projected ─> cosine
                                                                    mean over passes, weighted by their learning rates
Random signs project the gradients of the adapters to 8,192 numbers, which keeps their cosines (section 3.2).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from minilima.formats.files import canonical_json, sha256_text
from minilima.formats.records import OnProgress, Progress
from minilima.generate.warmup import (
    BETA1,
    BETA2,
    EPSILON,
    Checkpoint,
    WarmUp,
    adapter_weights,
    kept_checkpoints,
    load_adapters,
    passage_losses,
    together,
    with_adapters,
)
from minilima.models.kept import KeptNumbers, Numbers
from minilima.models.reader import Passage, Reader

DIMENSIONS = 8192
_BATCH = 64
"""Examples whose gradients are projected at once."""
_BLOCK = 2048
"""Rows of random signs that exist at once."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Random signs, shape (parameters, dimensions), drawn in blocks whenever they are needed."""

    seed: int = 0
    dimensions: int = DIMENSIONS

    def __call__(self, gradients: torch.Tensor) -> torch.Tensor:
        """Gradients, shape (n, parameters), in so many dimensions."""
        projected = torch.zeros(len(gradients), self.dimensions, device=gradients.device)
        for at in range(0, gradients.shape[1], _BLOCK):
            part = gradients[:, at : at + _BLOCK]
            projected += part @ self._signs(at, part.shape[1], gradients.device)
        return projected / math.sqrt(self.dimensions)

    def _signs(self, at: int, rows: int, device: torch.device) -> torch.Tensor:
        if device.type == "cuda":
            on_gpu = torch.Generator(device).manual_seed(self.seed * 1_000_003 + at)
            drawn = torch.randint(0, 2, (rows, self.dimensions), device=device, generator=on_gpu, dtype=torch.int8)
        else:  # bits of bytes: several times faster than torch's draws
            generator = np.random.default_rng([self.seed, at])
            bits = np.unpackbits(generator.integers(0, 256, rows * self.dimensions // 8 + 1, np.uint8))
            drawn = torch.from_numpy(bits[: rows * self.dimensions].view(np.int8).reshape(rows, self.dimensions))
        return drawn.to(torch.float32).mul_(2).sub_(1)


def adam_step(gradient: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The direction in which Adam, with these moments, would go for this gradient (section 2.2; epsilon as in LESS's code)."""
    first = BETA1 * first + (1 - BETA1) * gradient
    second = BETA2 * second + (1 - BETA2) * gradient**2
    return first / torch.sqrt(second + EPSILON)


def weighted(cosines: Sequence[Numbers], rates: Sequence[float]) -> Numbers:
    """The mean over passes, shape (n, targets), weighted by learning rates that are divided by their sum."""
    total = sum(rates)
    shares = [rate / total * each for rate, each in zip(rates, cosines, strict=True)]
    together: Numbers = np.sum(shares, axis=0).astype(np.float32)
    return together


def best_group(cosines: Numbers, groups: Sequence[str]) -> Numbers:
    """Each example's mean over the targets of a group, of the group for which it is highest (section 3.3: subtasks)."""
    members = [[index for index, name in enumerate(groups) if name == wanted] for wanted in sorted(set(groups))]
    means: Numbers = np.stack([cosines[:, member].mean(axis=1) for member in members], axis=1).max(axis=1)
    return means


@dataclass(frozen=True, kw_only=True)
class Influence:
    """What examples are compared with, by which model, after which warm-up."""

    reader: Reader
    how: WarmUp
    targets: Sequence[Passage]
    kept: KeptNumbers
    folder: Path
    on_progress: OnProgress

    def __call__(self, examples: Sequence[Passage]) -> Numbers:
        """Cosines of each example's step and each target's gradient, shape (n, targets); NaN for one without a token to learn."""
        keys = [[self._key(passage, epoch) for epoch in range(self.how.epochs)] for passage in examples]
        known = self.kept.find([key for own in keys for key in own])
        if any(key not in known for own in keys for key in own):
            known |= self._computed(examples, keys, known)
        cosines = [np.stack([known[own[epoch]] for own in keys]) for epoch in range(self.how.epochs)]
        return weighted(cosines, [mean(self.how.rates(epoch)) for epoch in range(self.how.epochs)])

    def _key(self, passage: Passage, epoch: int) -> str:
        return self.reader.key(passage, f"less:{self.how.name}:{epoch}:{self._aim}")

    @cached_property
    def _aim(self) -> str:
        return sha256_text(canonical_json([list(target.ids) for target in self.targets]))[:16]

    def _computed(
        self, examples: Sequence[Passage], keys: Sequence[Sequence[str]], known: Mapping[str, Numbers]
    ) -> dict[str, Numbers]:
        """What is missing, kept batch by batch."""
        model = with_adapters(self.reader.model).eval()
        gradients: dict[str, Numbers] = {}
        for epoch, checkpoint in enumerate(kept_checkpoints(model, self.how, self.folder)):
            load_adapters(model, checkpoint.adapters)
            aims = _unit(_projected(model, self.targets, None))
            missing = [index for index, own in enumerate(keys) if own[epoch] not in known]
            for at in range(0, len(missing), _BATCH):
                batch = missing[at : at + _BATCH]
                steps = _unit(_projected(model, [examples[index] for index in batch], checkpoint))
                cosines = (steps @ aims.T).cpu().numpy()
                self.reader.read_tokens += sum(len(examples[index].ids) for index in batch)
                fresh = {keys[index][epoch]: row for index, row in zip(batch, cosines, strict=True)}
                self.kept.add(fresh)
                gradients |= fresh
                done = epoch * len(examples) + len(examples) - len(missing) + at + len(batch)
                self.on_progress(Progress(done=done, total=self.how.epochs * len(examples), unit="gradients"))
        return gradients


def _projected(model: Any, passages: Sequence[Passage], checkpoint: Checkpoint | None) -> torch.Tensor:
    """The projected gradient of each passage, or Adam's step for it; NaN where it has no token to learn."""
    gradients = per_passage(model, passages)
    if checkpoint is None:
        return Projection()(gradients)
    first, second = checkpoint.first.to(gradients.device), checkpoint.second.to(gradients.device)
    return Projection()(adam_step(gradients, first, second))


def per_passage(model: Any, passages: Sequence[Passage]) -> torch.Tensor:
    """The gradient of each passage's mean loss by the adapters, shape (n, parameters): NaN where it has no token to learn.

    One backward pass serves many passages: each layer's gradient is a product of what came in and what came back,
    and these are multiplied passage by passage.
    """
    weights = adapter_weights(model)
    layers = {module.weight: module for module in model.modules() if isinstance(module, torch.nn.Linear)}
    products: dict[torch.nn.Module, torch.Tensor] = {}

    def watch(layer: torch.nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        came_in = given[0].detach()

        def multiply(came_back: torch.Tensor) -> None:
            products[layer] = (came_back.mT @ came_in).flatten(1).float()

        result.register_hook(multiply)  # type: ignore[no-untyped-call]

    hooks = [layers[weight].register_forward_hook(watch) for weight in weights]
    rows: list[torch.Tensor] = [torch.empty(0)] * len(passages)
    try:
        for batch in together(passages, weights[0].device):
            losses = passage_losses(model, [passages[index] for index in batch])
            torch.autograd.backward(losses.sum())
            gradients = torch.cat([products[layers[weight]] for weight in weights], dim=1)
            gradients[losses.isnan()] = torch.nan
            for index, row in zip(batch, gradients, strict=True):
                rows[index] = row
            model.zero_grad()
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(rows)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=1)
