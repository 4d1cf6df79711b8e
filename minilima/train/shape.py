"""The shape of a model from its config.json: how many weights it has and how many of them multiply. Pure; no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minilima.models.checkpoint import text_config


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder with gated feed-forward layers (Llama, Mistral, Qwen, SmolLM and their like)."""

    layers: int
    hidden: int
    feed_forward: int
    heads_width: int
    """Query heads times head dimension."""
    key_width: int
    """Key heads times head dimension; values are as wide."""
    vocabulary: int
    tied: bool
    """Whether the input embedding is the output layer too."""

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def linear(self) -> int:
        """Weights of the linear layers of all blocks."""
        attention = 2 * self.hidden * self.heads_width + 2 * self.hidden * self.key_width
        return self.layers * (attention + 3 * self.hidden * self.feed_forward)

    @property
    def parameters(self) -> int:
        """All weights, but for biases and the norms of single heads."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.linear + norms + self.embedding * (1 if self.tied else 2)

    @property
    def multiplying(self) -> int:
        """Weights that multiply each token: all but the input embedding."""
        return self.linear + self.embedding

    def adapters(self, rank: int) -> int:
        """Weights of adapters of this rank on all linear layers of the blocks."""
        ends = 2 * (self.hidden + self.heads_width) + 2 * (self.hidden + self.key_width) + 3 * (self.hidden + self.feed_forward)
        return self.layers * rank * ends


_SMOLLM2 = {
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
_QWEN3 = {
    "num_hidden_layers": 28,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
_LLAMA_1B = {
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
_LLAMA_8B = {"num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
             "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "tie_word_embeddings": False}  # fmt: skip
_PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "smollm2_135m": _SMOLLM2,
    "Qwen/Qwen3-0.6B-Base": _QWEN3,
    "meta-llama/Llama-3.2-1B": _LLAMA_1B,
    "meta-llama/Llama-3.1-8B": _LLAMA_8B,
}
"""From the config.json of the models in conf/model/, so that a plan knows them before they are fetched."""


def published_shape(name: str) -> ModelShape | None:
    """The shape of a model of conf/model/ by its name there; None for any other."""
    return shape_of(_PUBLISHED[name]) if name in _PUBLISHED else None


def shape_of(config: Mapping[str, Any]) -> ModelShape | None:
    """The shape by a config.json; None for models with experts and for those that name their sizes otherwise."""
    config = text_config(config)
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
    experts = config.get("num_experts") or config.get("num_local_experts")
    if experts or any(not isinstance(config.get(name), int) for name in names):
        return None
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    return ModelShape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        feed_forward=config["intermediate_size"],
        heads_width=heads * width,
        key_width=(config.get("num_key_value_heads") or heads) * width,
        vocabulary=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
    )


H100_FLOPS = 989e12
"""Nominal dense bfloat16 FLOP/s of an H100 or H200 SXM."""


# Nominal dense bfloat16 FLOP/s by a part of the device's name, from the makers' data sheets; the first that fits.
_NOMINAL = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": H100_FLOPS, "H200": H100_FLOPS, "A100": 312e12, "A800": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10G": 70e12, "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


def nominal_flops(device: str) -> float | None:
    """What a device of this name computes a second at best; None where it is not known."""
    return next((flops for part, flops in _NOMINAL.items() if part in device), None)


def training_flops(lengths: Sequence[int], *, parameters: int, layers: int, heads_width: int, frozen: bool = False) -> float:
    """FLOPs of one pass, forward and backward, over documents of these lengths in tokens.

    Args:
        parameters: weights that multiply: all but the input embedding (a tied one counts once, as output layer).
        heads_width: heads times head dimension.
        frozen: whether the weights stay as they are (LoRA).
    """
    per_token = (4 if frozen else 6) * parameters
    return float(sum(length * (per_token + 6 * layers * heads_width * length) for length in lengths))
