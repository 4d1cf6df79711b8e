"""What is left of a training: a model folder that loads, answers and stops anywhere.

Adapters are merged into the base weights read afresh in float32 on the CPU, however they were divided, rounded or quantised
while training, and the merged model has to give the logits of the model with its adapters.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from minilima.config.choices import Method, Thinking
from minilima.config.schema import SftConfig
from minilima.errors import MinilimaError
from minilima.models.checkpoint import ADAPTER
from minilima.models.template import turn_end
from minilima.models.tokenizer import split_location, without_thinking
from minilima.models.weights import load_model
from minilima.train.finite import check_weights
from minilima.train.model import with_adapters
from minilima.train.trainer import SftTrainer

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p")
LOGITS_APART = 1e-3
"""Largest difference of merged and unmerged logits in float32, as a share of the largest logit."""


def save_model(trainer: SftTrainer, tokenizer: Any, folder: Path, location: str, probe: Sequence[int]) -> None:
    """Weights in bfloat16, tokenizer with template, and a generation config that stops at the end of the turn.

    Every process has to call this. The training can continue afterwards.

    Args:
        location: of the base model, into which adapters are merged.
        probe: token ids on which the merged model is compared with its adapters.
    """
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    trainer.accelerator.wait_for_everyone()
    if not trainer.args.should_save:
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.sft.method == Method.lora:
        with _undivided(trainer.args):
            model = merged(location, trainer.sft, weights, probe, folder / ADAPTER)
        weights = model.state_dict()
    check_weights(weights)
    _set_generation(model, tokenizer)
    kept = getattr(model.config, "use_cache", None), model.config.dtype
    model.config.use_cache, model.config.dtype = True, torch.bfloat16
    model.save_pretrained(folder, state_dict={name: _rounded(tensor) for name, tensor in weights.items()})
    model.config.use_cache, model.config.dtype = kept
    _save_tokenizer(tokenizer, trainer.thinking, folder)


def _rounded(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor


def _save_tokenizer(tokenizer: Any, thinking: Thinking | None, folder: Path) -> None:
    """The tokenizer and its template, which asks for no reasoning by itself where none was trained."""
    template = tokenizer.chat_template
    if thinking in (None, Thinking.off):
        tokenizer.chat_template = without_thinking(template)
    tokenizer.save_pretrained(folder)
    tokenizer.chat_template = template


def _set_generation(model: Any, tokenizer: Any) -> None:
    """How the saved model is sampled and where it stops. What a base model says of sampling may be invalid together
    (a temperature without do_sample), and transformers would refuse to write it."""
    generation = model.generation_config
    if generation.do_sample is not True and any(getattr(generation, name, None) is not None for name in _SAMPLING):
        generation.do_sample = True
    ends = sorted({token for token in (turn_end(tokenizer), tokenizer.eos_token_id) if token is not None})
    generation.eos_token_id = ends[0] if len(ends) == 1 else ends
    generation.pad_token_id = tokenizer.pad_token_id
    try:
        generation.validate(strict=True)
    except ValueError:
        model.generation_config = GenerationConfig(
            eos_token_id=generation.eos_token_id, bos_token_id=generation.bos_token_id, pad_token_id=generation.pad_token_id
        )


@contextmanager
def _undivided(arguments: Any) -> Iterator[None]:
    """Models read meanwhile are whole; transformers would divide them under ZeRO-3."""
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if (divided := getattr(arguments, "hf_deepspeed_config", None)) is not None:
            set_hf_deepspeed_config(divided)


def merged(
    location: str, sft: SftConfig, weights: Mapping[str, torch.Tensor], probe: Sequence[int], adapter: Path | None = None
) -> Any:
    """The base model with adapters merged into it, in float32 on the CPU.

    Args:
        location: of the base model.
        weights: of the model with its adapters, of which only the adapters' are used.
        probe: token ids for the comparison.
        adapter: a folder into which the adapters are written alone, in peft's form.

    Raises:
        MinilimaError: adapters are missing or empty, or merging changes the logits.
    """
    model = with_adapters(load_model(location, torch.float32, torch.device("cpu")), sft).eval()
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    adapters = {name: tensor.float().cpu() for name, tensor in weights.items() if name in wanted}
    ups = [tensor for name, tensor in adapters.items() if "lora_B" in name]
    if set(adapters) != wanted or not any(bool(tensor.any()) for tensor in ups):
        raise MinilimaError(
            f"Only {len(adapters):,} of {len(wanted):,} adapters came out of the training, or all of them are zero.",
            "Saved like this, the model would be its base.",
            "Train with compute.zero_stage=2 or without DeepSpeed, and report it to the authors.",
        )
    model.load_state_dict(adapters, strict=False)
    if adapter is not None:
        _save_adapter(model, location, adapter)
    ids = torch.tensor([list(probe)])
    with torch.no_grad():
        before = model(input_ids=ids, use_cache=False).logits
        whole = model.merge_and_unload()
        after = whole(input_ids=ids, use_cache=False).logits
    apart = float((after - before).abs().max() / before.abs().max())
    if not apart <= LOGITS_APART:
        raise MinilimaError(
            f"Merging the adapters changed the model: its logits differ by up to {apart:.2g} of the largest.",
            "The saved model would not be the one that was trained.",
            "Train with sft=full, or report to the authors which model it is.",
        )
    return whole


def _save_adapter(model: Any, location: str, folder: Path) -> None:
    """The adapters alone, with the base model's name: not the path of a folder, which says more about its owner."""
    name, revision = split_location(location)
    settings = model.peft_config["default"]
    is_folder = Path(name).is_dir()
    settings.base_model_name_or_path = Path(name).name if is_folder else name
    settings.revision = None if is_folder or revision == "main" else revision
    model.save_pretrained(folder)
