"""The shape of a model from its config.json: how many weights it has and how many of them multiply. Pure; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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


def shape_of(config: Mapping[str, Any]) -> ModelShape | None:
    """The shape that a config.json tells; None for models with experts and for those that name their sizes otherwise."""
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
