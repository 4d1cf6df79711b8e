"""The thin subclass of `transformers.Trainer`: packed steps, a learning-rate floor, and checkpoints that are whole."""

import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState

from minilima.config import Config, Schedule, SftConfig
from minilima.records import Progress, Tell
from minilima.train import attention
from minilima.train.arguments import has_masters
from minilima.train.checkpoints import mark_complete
from minilima.train.loss import can_fuse, fuse_head
from minilima.train.masters import MasterAdamW


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
            mark_complete(folder, self.state.global_step)


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


class Reporter(TrainerCallback):  # type: ignore[misc]
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
