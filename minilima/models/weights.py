"""A model's weights, read from safetensors: all of them and nothing else, or a refusal. No code of a model's own is run."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from minilima.errors import MinilimaError
from minilima.models.checkpoint import context_tokens
from minilima.models.tokenizer import split_location

_SHOWN = 4


def load_model(location: str, dtype: torch.dtype, device: torch.device, **settings: Any) -> Any:
    """The weights (of a folder, or owner/name@commit) in a causal language model.

    Raises:
        MinilimaError: tensors are missing, which transformers would draw at random, or there are some of another model.
    """
    name, revision = split_location(location)
    try:
        model, loading_info = AutoModelForCausalLM.from_pretrained(
            name, revision=revision, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
            **settings,
        )  # fmt: skip
    except (ValueError, OSError, RuntimeError, KeyError, ImportError, AttributeError, TypeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise MinilimaError(
            f"The model in {name} cannot be loaded.",
            f"transformers says: {' '.join(str(error).split())[:400]}",
            "Use a causal language model in safetensors that this transformers knows; minilima doctor checks a model.",
        ) from error
    check_complete(name, loading_info)
    return model if "device_map" in settings else model.to(device)


def check_complete(name: str, loading_info: dict[str, Any]) -> None:
    """Refuses weights that are not the whole model; `loading_info` is transformers' loading info."""
    kinds = {"missing": "missing_keys", "unexpected": "unexpected_keys", "of another shape": "mismatched_keys"}
    wrong = {kind: sorted(map(str, loading_info.get(key) or ())) for kind, key in kinds.items()}
    if any(wrong.values()):
        words = [f"{len(names):,} {kind} ({_some(names)})" for kind, names in wrong.items() if names]
        raise MinilimaError(
            f"The weights in {name} are not those of its causal language model.",
            f"Tensors: {'; '.join(words)}. transformers would draw missing ones at random, different at each start.",
            "Use a complete checkpoint of a causal language model: not a classifier, an encoder, or an adapter alone.",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def context_of(model: Any) -> int | None:
    """The most tokens that the model can read; None where nothing limits them."""
    return context_tokens(model.config.to_dict())
