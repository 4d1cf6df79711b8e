"""Supervised fine-tuning: examples in, a model folder out that loads, answers and stops anywhere.

    dataset.jsonl ─> tokens and labels ─> Trainer (full or LoRA, DDP or ZeRO) ─> safetensors + tokenizer + template

Weights are float32 while training. Where there is bfloat16 hardware the model multiplies bfloat16 copies and the float32
weights are in the optimizer: ours (`masters.py`), or DeepSpeed's. (bfloat16 weights without a float32 master lose most
updates at LIMA's learning rate.)
"""

import time

import numpy as np
import torch
from transformers import set_seed

from minilima.files import read_jsonl, write_jsonl
from minilima.llm.local import load_model, load_tokenizer
from minilima.records import Example, Tell
from minilima.store import Outcome
from minilima.train.arguments import training_arguments
from minilima.train.checkpoints import newest_checkpoint
from minilima.train.data import IGNORED, check_trained_ends, tokenize_example
from minilima.train.packing import Packer
from minilima.train.prepare import prepared
from minilima.train.saving import save_model
from minilima.train.trainer import Reporter, SftTrainer
from minilima.worker import Job

ROW_TOKENS = {"cpu": 512, "cuda": 8192}
"""Length of a row unless it is set: on a CPU about 1 GiB of activations for a model of 135 million parameters."""


def build_model(job: Job, tell: Tell) -> Outcome:
    """Trains and saves the model; runs in every training process alike."""
    config = job.config
    set_seed(config.seed)
    location = job.model_location(job.sources.base, "base")
    tokenizer = load_tokenizer(location)
    rows = read_jsonl(job.inputs["dataset"] / "dataset.jsonl")
    examples = [
        tokenize_example(Example(**row), tokenizer, config.sft.max_tokens, train_on_prompt=config.sft.train_on_prompt)
        for row in rows
    ]
    ends = check_trained_ends(examples, tokenizer.eos_token_id, config.sft.max_tokens)
    # Before the arguments: once they exist, transformers divides ZeRO-3 weights while reading them, which fails on CPUs.
    model = prepared(load_model(location, torch.float32, torch.device("cpu")), config)
    arguments = training_arguments(config, job.scratch)
    trainer = SftTrainer(
        model=model,
        args=arguments,
        train_dataset=[{name: np.array(ids) for name, ids in vars(example).items()} for example in examples],
        data_collator=Packer(
            row_tokens=config.compute.micro_batch_tokens or ROW_TOKENS[arguments.device.type],
            rank=arguments.process_index,
            world=arguments.world_size,
        ),
        callbacks=[Reporter(tell, config.compute.checkpoint_seconds)],
        config=config,
    )
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=newest_checkpoint(job.scratch / "checkpoints"))
    seconds = time.monotonic() - started
    save_model(trainer, tokenizer, job.work, config.sft)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    if trainer.is_world_process_zero():
        write_jsonl(job.work / "training_log.jsonl", history)
    tokens = sum(len(example.input_ids) for example in examples)
    metrics = {
        "steps": trainer.state.global_step,
        "first_loss": history[0]["loss"],
        "last_loss": history[-1]["loss"],
        "tokens_per_epoch": tokens,
        "trained_tokens_per_epoch": sum(label != IGNORED for example in examples for label in example.labels),
        "examples_with_end_of_turn": ends,
        "processes": arguments.world_size,
        "train_seconds": round(seconds, 1),
    }
    return Outcome(metrics=metrics)
