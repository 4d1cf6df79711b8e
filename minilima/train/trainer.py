"""The thin subclass of `transformers.Trainer`: packed steps, a learning-rate floor, and checkpoints that are whole."""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, RandomSampler
from transformers import Trainer

from minilima.config.choices import Rounding, Schedule
from minilima.config.schema import Config, SftConfig
from minilima.errors import MinilimaError
from minilima.models import attention
from minilima.models.loss import can_fuse, fuse_head
from minilima.models.traits import Traits
from minilima.train.arguments import has_masters
from minilima.train.callbacks import mark_complete
from minilima.train.finite import FiniteWatch
from minilima.train.metrics import Lagging, Meter
from minilima.train.optimizers import MasterAdamW, StochasticAdamW
from minilima.train.packing import without_targets
from minilima.train.recordable import is_worth_recording, may_record
from minilima.train.recorded import RecordedSteps
from minilima.train.shape import shape_of

LARGE = 1_000_000
"""Mean number of weights in a tensor from which one compiled pass over each beats AdamW's few launches for all."""


class SftTrainer(Trainer):  # type: ignore[misc]
    """`transformers.Trainer` with packed steps, a learning-rate floor, and checkpoints that are whole or not taken."""

    def __init__(
        self,
        *,
        config: Config,
        meter: Meter | None = None,
        traits: Traits | None = None,
        names: Sequence[str] = (),
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.meter = meter
        self.sft, self.thinking = config.sft, config.model.thinking
        own = has_masters(config.compute)
        self.by_masters = own and config.sft.weights == Rounding.masters
        self.by_chance = own and config.sft.weights == Rounding.stochastic
        self.compiled = config.compute.compile
        self.by_boundaries = self.model.config._attn_implementation == attention.NAME
        self.lagging = Lagging() if own and self.args.device.type == "cuda" else None
        self.traits = traits or Traits()
        self.watch = FiniteWatch(names, config.sft)
        self.fused = can_fuse(self.model.config) and self.traits.plain_head
        self.head = self.model.get_output_embeddings()
        if self.fused:
            fuse_head(self.model, compiled=config.compute.compile)
        plain = self.fused and self.by_boundaries and not self.model.is_gradient_checkpointing
        self.records = plain and self.by_masters and may_record(config.sft, config.compute)
        self.shape = shape_of(self.model.config.to_dict())
        self.recorded: RecordedSteps | None = None

    def get_train_dataloader(self) -> Any:
        """Whole steps for every process, in the same order; the collator takes the process's share by tokens."""
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.sft.batch_size,
            sampler=RandomSampler(self.train_dataset),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return prepare_data_loader(
            loader, device=self.args.device, num_processes=1, process_index=0, put_on_device=True, non_blocking=True,
            use_seedable_sampler=True, data_seed=self.args.data_seed,
        )  # fmt: skip

    @property
    def own_optimizer(self) -> MasterAdamW | StochasticAdamW | None:
        """Our optimizer without accelerate's wrapper; None under DeepSpeed and for float32 weights."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        return optimizer if isinstance(optimizer, MasterAdamW | StochasticAdamW) else None

    def get_batch_samples(self, *arguments: Any, **settings: Any) -> Any:
        """The Trainer's, with the time that it takes.

        In one thread: the tensors are small, and beside a busy GPU the copies to pinned memory waited longer for torch's
        threads than they took.
        """
        began, threads = time.monotonic(), torch.get_num_threads()
        torch.set_num_threads(1)
        batch = super().get_batch_samples(*arguments, **settings)
        torch.set_num_threads(threads)
        if self.meter is not None:
            self.meter.waited_seconds += time.monotonic() - began
        return batch

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW; ours where the weights are bfloat16. Norms and biases do not decay.

        Raises:
            MinilimaError: the weights are bfloat16, and nobody keeps them in float32.
        """
        if not (self.by_masters or self.by_chance or self.args.deepspeed):
            refuse_rounding(self.model)
        if getattr(self, "optimizer", None) is not None or not (self.by_masters or self.by_chance):
            return super().create_optimizer(model)
        decaying = set(self.get_decay_parameter_names(self.model))
        named = [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        groups = [
            {"params": [weight for name, weight in named if name in decaying], "weight_decay": self.sft.weight_decay},
            {"params": [weight for name, weight in named if name not in decaying], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        on_gpu = self.args.device.type == "cuda"
        sft, betas = self.sft, (self.sft.beta1, self.sft.beta2)
        if self.by_chance:
            self.optimizer: Any = StochasticAdamW(
                groups, max_grad_norm=sft.max_grad_norm, lr=sft.learning_rate, betas=betas, eps=1e-8, compiled=on_gpu
            )
        else:
            large = sum(weight.numel() for _, weight in named) / len(named) > LARGE
            self.optimizer = MasterAdamW(
                groups, max_grad_norm=sft.max_grad_norm, lr=sft.learning_rate, betas=betas, eps=1e-8, fused=True,
                compiled=self.compiled and on_gpu and large,
            )  # fmt: skip
        self.args.max_grad_norm = 0.0  # the optimizer clips
        return self.optimizer

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One optimizer step's share: the mean loss over the trained tokens of the whole batch, over all processes."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        rows = inputs["rows"]
        if self.meter is not None:
            self.meter.tokens += sum(row["input_ids"].shape[1] for row in rows)
        if not self.by_masters:  # Collectives must match: every process passes through as many rows as the busiest one.
            rows += [without_targets(rows[-1])] * (inputs["most_rows"] - len(rows))
        # Gradients are averaged over processes. A step may have nothing to learn: all of its examples were cut.
        scale = self.args.world_size / max(1, inputs["trained_tokens"])
        step = self.state.global_step + 1
        self.watch.begin(step, [number for row in rows for number in row.get("numbers", ())])
        total: torch.Tensor = torch.zeros((), device=self.args.device)
        recorded = self._recorded(rows)
        for number, row in enumerate(rows, start=1):
            last = number == len(rows)
            self.accelerator.gradient_state._set_sync_gradients(last)
            if recorded is not None and (played := recorded.play(row, scale)) is not None:
                total += played
                continue
            # Masters average their own gradients; DDP must not find them taken away.
            with nullcontext() if last and not self.by_masters else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = self._summed_loss(model, row) * scale
                if self.args.device.type == "cpu":  # a GPU would have to wait; there the log finds it
                    self.watch.check("loss", float(loss.detach()), step, row.get("numbers"))
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _recorded(self, rows: Sequence[dict[str, Any]]) -> RecordedSteps | None:
        """What plays these rows, with the sums of the step begun; None where plain passes are as fast, or cannot be recorded."""
        optimizer = self.own_optimizer
        if not (self.records and isinstance(optimizer, MasterAdamW) and self.shape is not None):
            return None
        if self.recorded is not None and self.recorded.failed:
            return None
        if not all(is_worth_recording(self.shape, row["input_ids"].shape[1]) for row in rows):
            return None
        if self.recorded is None:
            self.recorded = RecordedSteps(
                lambda row: self._summed_loss(self.model, row), optimizer.sums(), examples=self.sft.batch_size,
                longest=self.sft.max_tokens,
            )  # fmt: skip
        optimizer.begin()
        return self.recorded

    def _summed_loss(self, model: Any, row: dict[str, Any]) -> torch.Tensor:
        """Cross-entropy in nats, summed over the row's trained tokens; logits are computed for these alone."""
        # A row without targets still takes part in the collectives, with a loss of zero.
        lone = not len(row["targets"])
        keep = row["predicting"].new_zeros(1) if lone else row["predicting"]
        targets = keep.new_zeros(1) if lone else row["targets"]
        if self.fused:
            self.head.predicting, self.head.targets = keep, targets
        given = {
            "input_ids": row["input_ids"],
            "position_ids": row["position_ids"],
            "attention_mask": None,
            "use_cache": False,
            "logits_to_keep": 0 if self.fused else keep,
        }
        given = {name: value for name, value in given.items() if name in self.traits.takes}
        output = model(**given, **(attention.boundaries(row) if self.by_boundaries else {}))
        loss: torch.Tensor = output.logits
        if not self.fused:
            logits = loss[0] if "logits_to_keep" in given else loss[0, keep]
            loss = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
        return 0.0 * loss if lone else loss

    def log(self, logs: dict[str, float], *arguments: Any, **settings: Any) -> None:
        """The Trainer's log, with the norm of the gradient that our optimizer clips."""
        if "grad_norm" in logs and self.lagging is None and self.own_optimizer:
            logs = {**logs, "grad_norm": float(self.own_optimizer.grad_norm)}
        for name in ("loss", "grad_norm"):
            if name in logs:
                self.watch.check(name, logs[name], self.state.global_step)
        if "loss" in logs and self.meter is not None:
            logs = {**logs, **self.meter.read()}
        super().log(logs, *arguments, **settings)

    def _maybe_log_save_evaluate(self, tr_loss: torch.Tensor, *arguments: Any, **settings: Any) -> None:
        """The Trainer's logging, one step late where our optimizer lets the host run ahead of a GPU."""
        if self.lagging is not None and self.own_optimizer and self.control.should_log:
            self.control.should_log = False
            self._log_held()
            if self.args.world_size > 1:
                torch.distributed.all_reduce(tr_loss)
            figures = torch.stack([tr_loss / self.args.world_size, self.own_optimizer.grad_norm])
            rate = settings.get("learning_rate", self._get_learning_rate())
            self.lagging.hold(figures, rate=rate, step=self.state.global_step, epoch=self.state.epoch)
            tr_loss.zero_()
            if self.control.should_save or self.control.should_training_stop:
                self._log_held()
        super()._maybe_log_save_evaluate(tr_loss, *arguments, **settings)

    def _log_held(self) -> None:
        if self.lagging is None or (held := self.lagging.release()) is None:
            return
        (loss, norm), step = held
        self.watch.check("loss", loss, step["step"])
        self.watch.check("grad_norm", norm, step["step"])
        self._total_loss_scalar += loss
        self.log({"loss": loss, "grad_norm": norm, "learning_rate": step["rate"]})
        self.state.log_history[-1] |= {"step": step["step"], "epoch": step["epoch"]}

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule with its floor. transformers' own with a floor fail under DeepSpeed."""
        if getattr(self, "lr_scheduler", None) is None:
            self.lr_scheduler: Any = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: rate_factor(step, num_training_steps, self.sft)
            )
        return self.lr_scheduler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes its own random state
        if self.args.should_save:
            mark_complete(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")


def refuse_rounding(model: torch.nn.Module) -> None:
    """Stops a training of bfloat16 weights without float32 masters: at 1e-5, most of its updates would round to nothing.

    Raises:
        MinilimaError: there are such weights.
    """
    if any(weight.requires_grad and weight.dtype != torch.float32 for weight in model.parameters()):
        raise MinilimaError(
            "The weights to be trained are bfloat16, without float32 masters.",
            "Most updates would be lost to rounding at the learning rates of fine-tuning.",
            "Load the model in float32; training makes bfloat16 copies of its own.",
        )


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
