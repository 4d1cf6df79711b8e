"""What is left of a training: a model folder that loads, answers and stops anywhere."""

from pathlib import Path
from typing import Any

import torch

from minilima.config import Method, SftConfig
from minilima.train.trainer import SftTrainer


def save_model(trainer: SftTrainer, tokenizer: Any, folder: Path, sft: SftConfig) -> None:
    """Merged weights in bfloat16, tokenizer with template, and a generation config that stops at the end of the turn."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    trainer.accelerator.wait_for_everyone()
    if not trainer.args.should_save:
        return
    if sft.method == Method.lora:
        # Under ZeRO-3 the gathered tensors have to be put back before they can be merged.
        model.load_state_dict(weights, strict=True, assign=True)
        model = model.merge_and_unload()
        weights = model.state_dict()
    model.config.use_cache = True
    model.config.dtype = torch.bfloat16
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    halves = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    model.save_pretrained(folder, state_dict=halves)
    tokenizer.save_pretrained(folder)
