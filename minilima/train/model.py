"""A base model made ready for training: precision, attention, dropout and adapters."""

import os
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from minilima.config.choices import Method
from minilima.config.schema import Config, SftConfig
from minilima.errors import MinilimaError
from minilima.models import attention
from minilima.models.local import pick_device
from minilima.models.packaged import user_cache
from minilima.models.weights import load_model
from minilima.train.adapters import fuse_adapters
from minilima.train.arguments import has_masters, training_dtype
from minilima.train.dropout import add_residual_dropout, decoder_blocks


def load_base(location: str, config: Config) -> Any:
    """The base model to be trained: in float32 on the CPU; where it is quantised, in 4 bits where it will be trained.

    Quantised: NormalFloat4 with quantised constants (Dettmers et al. 2023, sections 3 and 4); bitsandbytes does it on CPUs too.
    """
    if config.sft.quantise is None:
        return load_model(location, torch.float32, torch.device("cpu"))
    dtype, device = training_dtype(config.compute), pick_device(config.compute.device)
    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    index = int(os.environ.get("LOCAL_RANK", "0")) if device.type == "cuda" else "cpu"
    return load_model(location, dtype, device, quantization_config=quantised, device_map={"": index})


def prepared(model: Any, config: Config, *, checkpointing: bool | None = None) -> Any:
    """The model as it is trained: precision, attention, dropout and adapters of its recipe and machine.

    Args:
        checkpointing: whether blocks are computed again in the backward pass; None = where that is set.
    """
    sft, compute = config.sft, config.compute
    model.config.use_cache = False
    if has_masters(compute) and sft.quantise is None:  # 4 bits cannot be cast, and need not be
        model = model.to(torch.bfloat16)
    if pick_device(compute.device).type == "cuda" and attention.is_available() and attention.fits(model, sft.max_tokens):
        attention.use_varlen(model)
    if compute.activation_checkpointing if checkpointing is None else checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if compute.compile:
        compile_blocks(model, gathered=compute.zero_stage == 3)
    if sft.residual_dropout:
        add_residual_dropout(model, sft.residual_dropout)
    if sft.method == Method.full:
        return model
    model = with_adapters(model, sft, in_float32=not has_masters(compute))
    if has_masters(compute):  # weights and adapters are of one precision
        fuse_adapters(model)
    return model


def with_adapters(model: Any, sft: SftConfig, *, in_float32: bool = True) -> Any:
    """The model with the recipe's adapters on all linear layers; only they are trained.

    Args:
        in_float32: whether the adapters are float32 whatever the model is; bfloat16 otherwise.

    Raises:
        MinilimaError: peft has none for this architecture.
    """
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(
        r=sft.lora_rank,
        lora_alpha=sft.lora_alpha,
        lora_dropout=sft.lora_dropout,
        use_dora=sft.lora_dora,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    try:
        made = get_peft_model(model, adapters, autocast_adapter_dtype=in_float32)
    except ValueError as error:
        raise MinilimaError(
            f"There are no adapters for {type(model).__name__}.",
            f"peft says: {' '.join(str(error).split())[:300]}",
            "Train all weights with sft=full, or use another model.",
        ) from None
    if not in_float32:  # over 4-bit weights, whose precision they cannot take
        for weight in made.parameters():
            if weight.requires_grad:
                weight.data = weight.data.to(torch.bfloat16)
    return made


def compile_blocks(model: Any, *, gathered: bool = False) -> None:
    """Compiles every decoder block, for rows of any length.

    Args:
        gathered: whether DeepSpeed gathers the weights when a block is called (ZeRO-3). It then does so for a block at a time,
            before and after what is compiled: within, it would cut the code in pieces.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(user_cache() / "compiled")
    # Would cut the blocks in pieces so that DDP can send gradients early, which the masters do themselves.
    torch._dynamo.config.optimize_ddp = False
    blocks = decoder_blocks(model)
    if gathered:
        from deepspeed.utils import set_z3_leaf_modules

        set_z3_leaf_modules(model, sorted({type(block) for block in blocks}, key=str))
    for block in blocks:
        if gathered:
            block.forward = torch.compile(block.forward, dynamic=True)
        else:
            block.compile(dynamic=True)
