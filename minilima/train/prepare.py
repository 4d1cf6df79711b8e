"""A base model made ready for training: precision, attention, dropout and adapters."""

from typing import Any

import torch

from minilima.config import Config, Method
from minilima.llm.local import pick_device
from minilima.train import attention
from minilima.train.adapters import fuse_adapters
from minilima.train.arguments import has_masters
from minilima.train.compiling import compile_blocks
from minilima.train.dropout import add_residual_dropout


def prepared(model: Any, config: Config) -> Any:
    """The model as it is trained: precision, attention, dropout and adapters of its recipe and machine."""
    sft, compute = config.sft, config.compute
    model.config.use_cache = False
    if has_masters(compute):
        model = model.to(torch.bfloat16)
    if pick_device(compute.device).type == "cuda" and attention.is_available():
        attention.use_varlen(model)
    if compute.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if compute.compile:
        compile_blocks(model)
    if sft.residual_dropout:
        add_residual_dropout(model.get_decoder().layers, sft.residual_dropout)
    if sft.method == Method.full:
        return model
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(
        r=sft.lora_rank,
        lora_alpha=sft.lora_alpha,
        lora_dropout=sft.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, adapters, autocast_adapter_dtype=not has_masters(compute))
    if has_masters(compute):  # weights and adapters are of one precision
        fuse_adapters(model)
    return model
