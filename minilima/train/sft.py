"""Supervised fine-tuning: examples in, a model folder out that loads, answers and stops anywhere.

    dataset.jsonl ─> tokens and labels ─> Trainer (full or LoRA, DDP or ZeRO) ─> safetensors + tokenizer + template

Weights are float32 while training. Where there is bfloat16 hardware the model multiplies bfloat16 copies and the float32
weights are in the optimizer: ours (`masters.py`), or DeepSpeed's. (bfloat16 weights without a float32 master lose most
updates at LIMA's learning rate.)
"""

import math
import os
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from minilima.config import ComputeConfig, Config, Method, Schedule, SftConfig
from minilima.files import read_jsonl, write_atomic, write_jsonl
from minilima.llm.local import inference_dtype, load_model, load_tokenizer, pick_device
from minilima.records import Example, Progress, Tell
from minilima.store import Outcome
from minilima.train import attention
from minilima.train.compiling import compile_blocks
from minilima.train.data import IGNORED, check_trained_ends, tokenize_example
from minilima.train.deepspeed import deepspeed_config
from minilima.train.dropout import add_residual_dropout
from minilima.train.loss import can_fuse, fuse_head
from minilima.train.masters import MasterAdamW
from minilima.train.packing import Packer
from minilima.worker import Job

ROW_TOKENS = {"cpu": 512, "cuda": 8192}
"""Length of a row unless it is set: on a CPU about 1 GiB of activations for a model of 135 million parameters."""

COMPLETE = "complete"
"""Marks a checkpoint as whole: written last."""


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
        data_collator=Packer(row_tokens=config.compute.micro_batch_tokens or ROW_TOKENS[arguments.device.type]),
        callbacks=[_Reporter(tell, config.compute.checkpoint_seconds)],
        config=config,
    )
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=newest_checkpoint(job.scratch / "checkpoints"))
    seconds = time.monotonic() - started
    _save(trainer, tokenizer, job.work, config.sft)
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


class SftTrainer(Trainer):  # type: ignore[misc]
    """`transformers.Trainer` with packed steps, a learning-rate floor, and checkpoints that are whole or not taken."""

    def __init__(self, *, config: Config, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.sft = config.sft
        self.by_masters = has_masters(config.compute)
        self.by_boundaries = self.model.config._attn_implementation == attention.NAME
        self.fused = can_fuse(self.model.config)
        self.head = self.model.get_output_embeddings()
        if self.fused:
            fuse_head(self.model, compiled=config.compute.compile)

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW, with float32 masters where the weights are bfloat16; norms and biases do not decay."""
        if getattr(self, "optimizer", None) is None and self.by_masters:
            decaying = set(self.get_decay_parameter_names(self.model))
            named = [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad]
            groups = [
                {"params": [weight for name, weight in named if name in decaying], "weight_decay": self.sft.weight_decay},
                {"params": [weight for name, weight in named if name not in decaying], "weight_decay": 0.0},
            ]
            self.optimizer: Any = MasterAdamW(
                [group for group in groups if group["params"]],
                max_grad_norm=self.sft.max_grad_norm,
                lr=self.sft.learning_rate,
                betas=(self.sft.beta1, self.sft.beta2),
                eps=1e-8,
                fused=self.args.device.type == "cuda",
            )
            self.args.max_grad_norm = 0.0  # the masters are clipped instead
            return self.optimizer
        return super().create_optimizer(model)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One optimizer step's share: the mean loss over the trained tokens of the whole batch, over all processes."""
        model.train()
        rows = self._prepare_inputs(inputs)["rows"]
        tokens = torch.tensor([sum(len(row["targets"]) for row in rows), len(rows)], device=self.args.device)
        per_process = self.accelerator.gather(tokens.unsqueeze(0))
        # Collectives must match: every process passes through as many rows as the busiest one.
        rows += [rows[-1] | {"predicting": rows[-1]["predicting"][:0], "targets": rows[-1]["targets"][:0]}] * (
            int(per_process[:, 1].max()) - len(rows)
        )
        scale = self.args.world_size / per_process[:, 0].sum()  # gradients are averaged over processes
        total: torch.Tensor = torch.zeros((), device=self.args.device)
        for number, row in enumerate(rows, start=1):
            last = number == len(rows)
            self.accelerator.gradient_state._set_sync_gradients(last)
            # Masters average their own gradients; DDP must not find them taken away.
            with nullcontext() if last and not self.by_masters else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = self._summed_loss(model, row) * scale
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _summed_loss(self, model: Any, row: dict[str, Any]) -> torch.Tensor:
        """Cross-entropy in nats, summed over the row's trained tokens; logits are computed for these alone."""
        # A row without targets still takes part in the collectives, with a loss of zero.
        lone = not len(row["targets"])
        keep = row["predicting"].new_zeros(1) if lone else row["predicting"]
        self.head.targets = keep.new_zeros(1) if lone else row["targets"]
        output = model(
            input_ids=row["input_ids"],
            position_ids=row["position_ids"],
            attention_mask=None,
            use_cache=False,
            logits_to_keep=keep,
            **(attention.boundaries(row) if self.by_boundaries else {}),
        )
        loss: torch.Tensor = output.logits
        if not self.fused:
            loss = torch.nn.functional.cross_entropy(loss[0].float(), self.head.targets, reduction="sum")
        return 0.0 * loss if lone else loss

    def log(self, logs: dict[str, float], *arguments: Any, **settings: Any) -> None:
        """The Trainer's log, with the norm of the masters' gradient: the model itself has none left when it is asked."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate wraps it
        if "grad_norm" in logs and isinstance(optimizer, MasterAdamW):
            logs = {**logs, "grad_norm": float(optimizer.grad_norm)}
        super().log(logs, *arguments, **settings)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule with its floor. transformers' own with a floor fail under DeepSpeed."""
        if getattr(self, "lr_scheduler", None) is None:
            self.lr_scheduler: Any = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: rate_factor(step, num_training_steps, self.sft)
            )
        return self.lr_scheduler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            write_atomic(folder / COMPLETE, str(self.state.global_step))
            for older in folder.parent.glob("checkpoint-*"):
                if older != folder:
                    shutil.rmtree(older, ignore_errors=True)


def rate_factor(step: int, steps: int, sft: SftConfig) -> float:
    """Learning rate at a step, 0-based, divided by the peak: warm-up from 0, then decay to the floor at the last step."""
    warmup = round(sft.warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    floor = sft.final_learning_rate / sft.learning_rate
    progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    if sft.schedule == Schedule.constant:
        return 1.0
    if sft.schedule == Schedule.cosine:
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    return floor + (1 - floor) * (1 - progress)


def training_arguments(config: Config, scratch: Path) -> TrainingArguments:
    """The Trainer's settings; every one that matters is set here, none is left to a default that may change."""
    sft, compute = config.sft, config.compute
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = pick_device(compute.device)
    # Weights that are bfloat16 themselves need no autocast.
    bf16 = inference_dtype(device) == torch.bfloat16 and not has_masters(compute)
    share = sft.batch_size // world
    zero = None
    if compute.zero_stage is not None:
        zero = deepspeed_config(
            stage=compute.zero_stage, share=share, world=world,
            max_grad_norm=sft.max_grad_norm, bf16=bf16, on_gpu=device.type == "cuda",
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


def newest_checkpoint(folder: Path) -> str | None:
    """The latest checkpoint that was written whole; what a kill left half-written is removed."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / COMPLETE).is_file():
            whole.append((int(checkpoint.name.split("-")[1]), checkpoint))
        elif int(os.environ.get("RANK", "0")) == 0:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return str(max(whole)[1]) if whole else None


def has_masters(compute: ComputeConfig) -> bool:
    """Whether the weights are bfloat16 with float32 masters in our optimizer: bfloat16 hardware, and no DeepSpeed."""
    return compute.zero_stage is None and inference_dtype(pick_device(compute.device)) == torch.bfloat16


def prepared(model: Any, config: Config) -> Any:
    """The model as it is trained: precision, attention, dropout and adapters of its recipe and machine."""
    sft, compute = config.sft, config.compute
    model.config.use_cache = False
    if has_masters(compute):
        model = model.to(torch.bfloat16)
    if pick_device(compute.device).type == "cuda" and attention.is_available():
        attention.use_varlen(model)
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
    return get_peft_model(model, adapters, autocast_adapter_dtype=not has_masters(compute))


def _save(trainer: SftTrainer, tokenizer: Any, folder: Path, sft: SftConfig) -> None:
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


class _Reporter(TrainerCallback):  # type: ignore[misc]
    """Tells how the training goes, and asks for a checkpoint when enough seconds have passed."""

    def __init__(self, tell: Tell, checkpoint_seconds: float) -> None:
        self.tell = tell
        self.checkpoint_seconds = checkpoint_seconds
        self.saved_at = time.monotonic()
        self.loss = math.nan

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        self.loss = (logs or {}).get("loss", self.loss)
        self.tell(Progress(done=state.global_step, total=state.max_steps, unit="steps", note=f"loss {self.loss:.3f}"))

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # With several processes each has its own clock: they save together after fixed numbers of steps instead.
        due = time.monotonic() - self.saved_at > self.checkpoint_seconds if args.world_size == 1 else state.global_step % 100 == 0
        if due and state.global_step < state.max_steps:
            control.should_save = True
            self.saved_at = time.monotonic()
