"""The settings of transformers' Trainer that follow from a recipe and a machine; none that matters is left to a default."""

import os
from pathlib import Path

import torch
from transformers import TrainingArguments

from minilima.config.choices import Precision
from minilima.config.schema import ComputeConfig, Config
from minilima.models.local import inference_dtype, pick_device
from minilima.train.deepspeed import deepspeed_config
from minilima.train.memory import Device
from minilima.train.shape import nominal_flops


def training_arguments(config: Config, scratch: Path) -> TrainingArguments:
    """The Trainer's settings on this machine; checkpoints go below `scratch`."""
    sft, compute = config.sft, config.compute
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = pick_device(compute.device)
    # Weights that are bfloat16 themselves need no autocast.
    bf16 = training_dtype(compute) == torch.bfloat16 and not has_masters(compute)
    share = sft.batch_size // world
    zero = None
    if compute.zero_stage is not None:
        zero = deepspeed_config(
            stage=compute.zero_stage, offload=compute.offload, share=share, world=world,
            max_grad_norm=sft.max_grad_norm, bf16=bf16, on_gpu=device.type == "cuda",
            compiled=compute.compile,
        )  # fmt: skip
    return TrainingArguments(
        output_dir=str(scratch / "checkpoints"),
        num_train_epochs=sft.epochs,
        per_device_train_batch_size=share,
        gradient_accumulation_steps=1,  # rows are accumulated inside a step
        learning_rate=sft.learning_rate,
        weight_decay=sft.weight_decay,
        adam_beta1=sft.beta1,
        adam_beta2=sft.beta2,
        adam_epsilon=1e-8,
        max_grad_norm=sft.max_grad_norm,
        optim="adamw_torch_fused",
        seed=config.seed,
        data_seed=config.seed,
        bf16=bf16,
        use_cpu=device.type == "cpu",
        deepspeed=zero,
        ddp_find_unused_parameters=False,
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=device.type == "cuda",
    )


def this_device(compute: ComputeConfig) -> Device:
    """What this training process computes on."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    bf16 = training_dtype(compute) == torch.bfloat16
    if pick_device(compute.device).type == "cpu":
        return Device(bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), bf16=bf16, processes=world)
    properties = torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", "0")))
    flops = nominal_flops(properties.name)
    return Device(bytes=properties.total_memory, bf16=bf16, processes=world, flops=flops, name=properties.name)


def has_masters(compute: ComputeConfig) -> bool:
    """Whether the weights are bfloat16 with float32 masters in our optimizer: bfloat16 hardware, and no DeepSpeed."""
    return compute.zero_stage is None and training_dtype(compute) == torch.bfloat16


def training_dtype(compute: ComputeConfig) -> torch.dtype:
    """In what the model multiplies while it is trained."""
    if compute.precision == Precision.float32:
        return torch.float32
    return inference_dtype(pick_device(compute.device))
