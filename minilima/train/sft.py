"""Supervised fine-tuning: examples in, a model folder out that loads, answers and stops anywhere.

    dataset.jsonl ─> tokens and labels ─> Trainer (full or LoRA, DDP or ZeRO) ─> safetensors + tokenizer + template

Weights are float32 while training. Where there is bfloat16 hardware the model multiplies bfloat16 copies and the float32
weights are in the optimizer: ours (`masters.py`), or DeepSpeed's. (bfloat16 weights without a float32 master lose most
updates at LIMA's learning rate.)
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedTokenizerBase, set_seed

from minilima.config.choices import Pick
from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.formats.records import Example, OnProgress, Progress
from minilima.models.checkpoint import context_tokens, read_config
from minilima.models.packing import IGNORED
from minilima.models.template import turn_end
from minilima.models.tokenizer import load_tokenizer, split_location
from minilima.models.traits import Traits, probe
from minilima.store.job import Job, Outcome
from minilima.train.arguments import this_device, training_arguments
from minilima.train.callbacks import KeepEpochs, Reporter, newest_checkpoint
from minilima.train.memory import GIB, Device, MemoryLayout, assumed_fit, check_states, fit, next_settings
from minilima.train.metrics import Meter, peak_gib
from minilima.train.model import load_base, prepared
from minilima.train.packing import Packer
from minilima.train.saving import save_model
from minilima.train.shape import ModelShape, shape_of
from minilima.train.tokenize import (
    TokenizedExample,
    check_embeddings,
    check_tokens,
    check_trained,
    check_trained_ends,
    masked_text,
    tokenize_example,
)
from minilima.train.trainer import SftTrainer


def build_model(job: Job, on_progress: OnProgress) -> Outcome:
    """Trains and saves the model; runs in every training process alike."""
    config = job.config
    set_seed(config.seed)
    location = job.model_location(job.sources.base, "base")
    tokenizer, model_config = load_tokenizer(location), _config_of(location)
    rows = read_jsonl(job.inputs["dataset"] / "dataset.jsonl")
    examples, counts = _tokenized(config, [Example(**row) for row in rows], tokenizer, context_tokens(model_config))
    device = this_device(config.compute)
    shape = shape_of(model_config)
    laid_out = _lay_out(shape, examples, config, device)
    on_progress(Progress(done=0, total=None, unit="steps", note="loading", shown=masked_text(examples[0], tokenizer)))
    try:
        names = [row["id"] for row in rows]
        meter = Meter.of(examples, shape, config, device)
        trainer, seconds = _train(job, on_progress, examples, names, location, tokenizer, laid_out, meter)
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(error, config, device, laid_out) from None
    if config.epoch.select == Pick.last:
        save_model(trainer, tokenizer, job.work, location, _probe(examples))
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    if trainer.is_world_process_zero():
        write_jsonl(job.work / "training_log.jsonl", history)
    metrics = _metrics(trainer, examples, history)
    planned = round(laid_out.memory.total / GIB, 2) if shape is not None else None
    computes = f"CPU, {torch.get_num_threads()} threads" if device.name == "CPU" else device.name
    metrics |= {"device": computes}
    metrics |= {
        **counts,
        "row_tokens": laid_out.row_tokens,
        "predicted_gib": planned,
        "train_seconds": round(seconds, 1),
    }
    return Outcome(metrics={name: value for name, value in metrics.items() if value is not None})


def epoch_losses(history: Sequence[Mapping[str, Any]], epochs: int) -> list[float]:
    """The mean loss of each epoch, over its steps: epochs have the same examples, single steps and parts of an epoch do not."""
    steps = len(history) // epochs
    parts = [history[epoch * steps : (epoch + 1) * steps] for epoch in range(epochs)] if steps else []
    return [round(sum(entry["loss"] for entry in part) / steps, 4) for part in parts]


def _metrics(trainer: SftTrainer, examples: list[TokenizedExample], history: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "steps": trainer.state.global_step,
        "first_loss": history[0]["loss"],
        "last_loss": history[-1]["loss"],
        "epoch_losses": epoch_losses(history, round(trainer.args.num_train_epochs)),
        "tokens_per_epoch": sum(len(example.input_ids) for example in examples),
        "trained_tokens_per_epoch": sum(label != IGNORED for example in examples for label in example.labels),
        "processes": trainer.args.world_size,
        "packed": trainer.traits.packs,
        "recorded_lengths": trainer.recorded.lengths if trainer.recorded else None,
        "peak_gib": peak_gib(),
    }


def _tokenized(
    config: Config, rows: list[Example], tokenizer: PreTrainedTokenizerBase, context: int | None
) -> tuple[list[TokenizedExample], dict[str, int]]:
    """The examples in tokens, no longer than the model can read, and how many of them keep their end or have no loss."""
    longest = min(config.sft.max_tokens, context or config.sft.max_tokens)
    examples = [
        tokenize_example(row, tokenizer, longest, train_on_prompt=config.sft.train_on_prompt, thinking=config.model.thinking)
        for row in rows
    ]
    check_tokens(examples, tokenizer)
    untrained = check_trained(examples, longest)
    ends = check_trained_ends(examples, turn_end(tokenizer), longest)
    return examples, {"examples_with_end_of_turn": ends, "examples_without_loss": untrained, "longest_tokens": longest}


def _train(
    job: Job,
    on_progress: OnProgress,
    examples: list[TokenizedExample],
    names: list[str],
    location: str,
    tokenizer: Any,
    laid_out: MemoryLayout,
    meter: Meter,
) -> tuple[SftTrainer, float]:
    """The trainer after its last step, and how many seconds the steps took."""
    config = job.config
    # Before the arguments: once they exist, transformers divides ZeRO-3 weights while reading them, which fails on CPUs.
    base, traits = _asked(location, config, examples, tokenizer)
    if not traits.packs:
        on_progress(Progress(done=0, total=None, unit="steps", note="one example a row: this model would mix those of one row"))
    model = prepared(base, config, checkpointing=laid_out.checkpointing)
    arguments = training_arguments(config, job.scratch)
    row_tokens = laid_out.row_tokens if traits.packs else 1
    trainer = SftTrainer(
        model=model,
        args=arguments,
        train_dataset=_numbered(examples),
        data_collator=Packer(row_tokens=row_tokens, rank=arguments.process_index, world=arguments.world_size),
        callbacks=[Reporter(on_progress, config.compute.checkpoint_seconds)],
        config=config,
        meter=meter,
        traits=traits,
        names=names,
    )
    if config.epoch.select != Pick.last:
        folder, start = job.work / "epochs", _probe(examples)
        keep = partial(_keep_epoch, trainer, tokenizer, folder, location, start)
        trainer.add_callback(KeepEpochs(config.sft.epochs, keep))
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=newest_checkpoint(job.scratch / "checkpoints"))
    return trainer, time.monotonic() - started


def _keep_epoch(trainer: SftTrainer, tokenizer: Any, folder: Path, location: str, start: list[int], epoch: int) -> None:
    save_model(trainer, tokenizer, folder / f"epoch-{epoch:03d}", location, start)


def _asked(location: str, config: Config, examples: list[TokenizedExample], tokenizer: Any) -> tuple[Any, Traits]:
    """The base model as it was read, and what it shows of itself."""
    base = load_base(location, config)
    check_embeddings(examples, base.get_input_embeddings().weight.shape[0], tokenizer)
    return base, probe(base, [example.input_ids for example in examples])


def _numbered(examples: list[TokenizedExample]) -> list[dict[str, Any]]:
    """Each example as arrays, with its number in the data set."""
    return [
        {**{name: np.array(ids) for name, ids in vars(example).items()}, "number": np.array([number])}
        for number, example in enumerate(examples)
    ]


def _probe(examples: list[TokenizedExample]) -> list[int]:
    return examples[0].input_ids[:64]


def _config_of(location: str) -> dict[str, Any]:
    name, revision = split_location(location)
    file = Path(name) / "config.json"
    if file.is_file():
        return read_config(file.parent)
    settings: dict[str, Any] = AutoConfig.from_pretrained(name, revision=revision).to_dict()
    return settings


def _lay_out(shape: ModelShape | None, examples: list[TokenizedExample], config: Config, device: Device) -> MemoryLayout:
    """Row length and checkpointing for these examples on this device.

    Raises:
        MinilimaError: the weights and the optimizer alone do not fit.
    """
    if shape is None:
        return assumed_fit(config.compute, device)
    mean = sum(len(example.input_ids) for example in examples) / len(examples)
    share = 1.25 * mean * config.sft.batch_size / device.processes
    laid_out = fit(shape, config.sft, config.compute, device, most_tokens=round(share))
    check_states(shape, config.sft, config.compute, device, laid_out)
    return laid_out


def _out_of_memory(error: Exception, config: Config, device: Device, laid_out: MemoryLayout) -> MinilimaError:
    first, *others = next_settings(config.sft, config.compute, device, laid_out)
    return MinilimaError(
        f"The memory of {device.name} was full while training with rows of {laid_out.row_tokens:,} tokens.",
        f"It was laid out for {laid_out.memory.total / GIB:,.1f} GiB. torch says: {str(error).splitlines()[0][:200]}",
        f"Run the same command with {first}; what was finished is kept." + (f" Else: {', '.join(others)}." if others else ""),
    )
