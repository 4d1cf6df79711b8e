"""A short training of a scorer with low-rank adapters before it scores: its adapters and Adam's moments after each pass.

It serves scores alone and makes no model to keep, so it is not the experiment's training (train/): float32 adapters on the
attention layers (Xia et al. 2024, section 3.1), AdamW, eight examples a step, a learning rate that falls to 0.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from minilima.errors import MinilimaError
from minilima.formats.files import canonical_json, sha256_text
from minilima.models.local import inference_dtype
from minilima.models.reader import Passage
from minilima.models.weights import load_model

RANK, ALPHA = 8, 32
BATCH = 8
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
_GPU_TOKENS = 2048
"""Tokens, padding included, that pass through the model with gradients at once: their logits are what fills the memory."""


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """What a scorer is trained on, and how."""

    passages: Sequence[Passage]
    epochs: int
    learning_rate: float
    seed: int

    @cached_property
    def name(self) -> str:
        """Stands for all of it in the keys of scores, of which each example has one for each pass."""
        read = [(list(passage.ids), passage.start, passage.end) for passage in self.passages]
        how = (self.epochs, self.learning_rate, self.seed, RANK, ALPHA, BATCH)
        return sha256_text(canonical_json([read, how]))[:16]

    def rates(self, epoch: int) -> list[float]:
        """The learning rate of each step of a pass."""
        steps = -(-len(self.passages) // BATCH)
        return [self.learning_rate * (1 - (epoch * steps + number) / (steps * self.epochs)) for number in range(steps)]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The adapters after a pass, and Adam's moments, all flat."""

    adapters: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor


def with_adapters(model: Any) -> Any:
    """The model with new adapters on its attention layers, or on all linear ones where none is called so; the same each time.

    Raises:
        MinilimaError: peft has none for this architecture.
    """
    from peft import LoraConfig, get_peft_model

    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "attn" in name]
    torch.manual_seed(0)
    adapters = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=linear or "all-linear", task_type="CAUSAL_LM")
    try:
        return get_peft_model(model, adapters)
    except ValueError as error:
        raise MinilimaError(
            f"There are no adapters for {type(model).__name__}.",
            f"peft says: {' '.join(str(error).split())[:300]}",
            "Choose another dataset.scorer, or a method without a warm-up: dataset.select=rds or superfiltering.",
        ) from None


def adapter_weights(model: Any) -> list[torch.nn.Parameter]:
    """What is trained."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def passage_losses(model: Any, passages: Sequence[Passage]) -> torch.Tensor:
    """Nats a token of what counts in each passage, shape (n,), with their gradients; NaN where nothing counts.

    The passages are padded at their ends, which no token before them sees.
    """
    device = next(model.parameters()).device
    rows = [torch.tensor(list(passage.ids)) for passage in passages]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
    logits = model(input_ids=ids, use_cache=False).logits
    losses = [
        torch.nn.functional.cross_entropy(
            logits[row, max(0, passage.start - 1) : passage.end - 1].float(), ids[row, max(1, passage.start) : passage.end]
        )
        for row, passage in enumerate(passages)
    ]
    return torch.stack(losses)


def together(passages: Sequence[Passage], device: torch.device) -> list[list[int]]:
    """Positions of the passages that pass through the model at once, the longest first.

    A CPU, which gains nothing by it, takes one at a time.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(passages)), key=lambda index: -len(passages[index].ids)):
        if not batches or device.type == "cpu" or longest * (len(batches[-1]) + 1) > _GPU_TOKENS:
            batches.append([])
            longest = len(passages[index].ids)
        batches[-1].append(index)
    return batches


def warm_up(model: Any, how: WarmUp) -> Iterator[Checkpoint]:
    """Trains the adapters of `model`; yields them after each pass."""
    weights = adapter_weights(model)
    optimizer = torch.optim.AdamW(weights, lr=how.learning_rate, betas=(BETA1, BETA2), eps=EPSILON, weight_decay=0.0)
    for epoch in range(how.epochs):
        order = list(how.passages)
        random.Random(f"{how.seed}:{epoch}").shuffle(order)
        for number, rate in enumerate(how.rates(epoch)):
            optimizer.param_groups[0]["lr"] = rate
            batch = order[number * BATCH : (number + 1) * BATCH]
            for group in together(batch, weights[0].device):
                torch.autograd.backward(passage_losses(model, [batch[index] for index in group]).sum() / len(batch))
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        state = [optimizer.state[weight] for weight in weights]
        yield Checkpoint(
            adapters=_flat(weights),
            first=_flat([each["exp_avg"] for each in state]),
            second=_flat([each["exp_avg_sq"] for each in state]),
        )


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten().float().cpu() for tensor in tensors])


def load_adapters(model: Any, flat: torch.Tensor) -> None:
    """Puts the adapters of a checkpoint into the model."""
    at = 0
    with torch.no_grad():
        for weight in adapter_weights(model):
            weight.copy_(flat[at : at + weight.numel()].view_as(weight))
            at += weight.numel()


def kept_checkpoints(model: Any, how: WarmUp, folder: Path) -> list[Checkpoint]:
    """The warm-up's checkpoints, from `folder` where a killed build left all of them there."""
    file = folder / f"warmup-{how.name}.pt"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        begun = file.with_suffix(".begun")
        torch.save([vars(checkpoint) for checkpoint in warm_up(model, how)], begun)
        begun.replace(file)
    return [Checkpoint(**values) for values in torch.load(file, weights_only=True)]


def warmed(location: str, how: WarmUp, device: torch.device, folder: Path) -> Any:
    """The model of `location` after the warm-up, its adapters merged into it."""
    model = with_adapters(load_model(location, torch.float32, device)).eval()
    load_adapters(model, kept_checkpoints(model, how, folder)[-1].adapters)
    return model.merge_and_unload().to(inference_dtype(device))
