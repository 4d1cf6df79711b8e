"""Training speed of our stage beside a padded `transformers.Trainer`, on model shapes with random weights.

    python benchmarks/sft_throughput.py --case 1b_full --variant minilima --json benchmarks/results/sft_1b_full_minilima.json
    torchrun --nproc_per_node 2 benchmarks/sft_throughput.py --case 1b_full       # on two GPUs, twice the examples a step

Lengths are log-normal like LIMA-style answers (mean 270 tokens, at most 2,048), fixed by a seed, and the same for both.
Useful tokens are those of the examples, padding left out. MFU is `minilima.train.flops` over 989 TFLOP/s. The figures are
medians of the steps after the first five.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Trainer, TrainerCallback, TrainingArguments

from benchmarks.publish import parser, publish
from benchmarks.shapes import SHAPES
from minilima.config import ComputeConfig, Config, Method, SftConfig
from minilima.train.data import IGNORED
from minilima.train.flops import H100_FLOPS, training_flops
from minilima.train.packing import Packer
from minilima.train.sft import SftTrainer, prepared, training_arguments

WARM_UP = 5

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
"""GPUs, under torchrun; a step takes as many times the examples."""

CASES = {
    # case: shape, method, examples a step, row tokens
    "135m_full": ("135m", Method.full, 256, 81_920),
    "1b_full": ("1b", Method.full, 128, 24_576),
    "8b_lora": ("8b", Method.lora, 64, 10_240),
    "tiny_full": ("tiny", Method.full, 8, 2_048),
}


def lengths(count: int) -> list[int]:
    """Tokens of each example."""
    drawn = np.random.default_rng(0).lognormal(mean=np.log(270) - 0.32, sigma=0.8, size=count)
    return [int(min(2048, max(16, value))) for value in drawn]


def examples(sizes: list[int], vocabulary: int) -> list[dict[str, Any]]:
    """Random tokens; the first tenth of each example is prompt."""
    rng = np.random.default_rng(1)
    made = []
    for size in sizes:
        ids = rng.integers(5, vocabulary, size)
        made.append({"input_ids": ids, "labels": np.where(np.arange(size) < size // 10, IGNORED, ids)})
    return made


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds from the end of a step to the end of the next: with the collating and the logging between them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.started = time.monotonic()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        _synchronize()
        now = time.monotonic()
        self.seconds.append(now - self.started)
        self.started = now


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The usual collator: every row as long as the longest."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor(np.array([np.pad(row["input_ids"], (0, width - len(row["input_ids"]))) for row in rows]))
    labels = torch.tensor(
        np.array([np.pad(row["labels"], (0, width - len(row["labels"])), constant_values=IGNORED) for row in rows])
    )
    mask = torch.tensor(np.array([np.arange(width) < len(row["input_ids"]) for row in rows]), dtype=torch.long)
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def trainer_of(variant: str, case: str, data: list[dict[str, Any]], folder: Path, clock: Clock, rows: int) -> Trainer:
    shape, method, batch, row_tokens = CASES[case]
    torch.manual_seed(0)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        settings = LlamaConfig(**SHAPES[shape], max_position_embeddings=2048)
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    if variant == "minilima":
        sft = SftConfig(method=method, epochs=1, batch_size=batch * WORLD, learning_rate=1e-5, beta2=0.95, weight_decay=0.1)
        config = Config(sft=sft, compute=ComputeConfig(checkpoint_seconds=1e9, compile=torch.cuda.is_available()))
        arguments = training_arguments(config, folder)
        return SftTrainer(
            model=prepared(model, config), args=arguments, train_dataset=data, data_collator=Packer(row_tokens=row_tokens),
            callbacks=[clock], config=config,
        )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=rows, num_train_epochs=1, learning_rate=1e-5, save_strategy="no",
        report_to=[], disable_tqdm=True, bf16=torch.cuda.is_available(), optim="adamw_torch_fused", logging_steps=1,
        remove_unused_columns=False, use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    return Trainer(model=model, args=arguments, train_dataset=data, data_collator=padded, callbacks=[clock])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--case", choices=CASES, required=True)
    arguments.add_argument("--variant", choices=["minilima", "padded_trainer"], default="minilima")
    arguments.add_argument("--steps", type=int, default=25)
    arguments.add_argument("--rows", type=int, default=8, help="rows a step of padded_trainer")
    chosen = arguments.parse_args()
    shape, method, batch, _ = CASES[chosen.case]
    if chosen.variant == "padded_trainer":
        batch = chosen.rows
    batch *= WORLD
    sizes = lengths(batch * chosen.steps)
    data = examples(sizes, int(SHAPES[shape]["vocab_size"]))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(chosen.variant, chosen.case, data, Path(folder), clock, chosen.rows)
        parameters = sum(weight.numel() for name, weight in trainer.model.named_parameters() if "lora_" not in name)
        trainer.train()
    if not SHAPES[shape]["tie_word_embeddings"]:
        parameters -= int(SHAPES[shape]["vocab_size"]) * int(SHAPES[shape]["hidden_size"])
    mean_tokens = statistics.mean(sizes) * batch
    seconds = statistics.median(clock.seconds[WARM_UP:])
    layers, width = int(SHAPES[shape]["num_hidden_layers"]), int(SHAPES[shape]["hidden_size"])
    flops = training_flops(sizes, parameters=parameters, layers=layers, heads_width=width, frozen=method == Method.lora)
    if os.environ.get("RANK", "0") != "0":
        return
    gpu = torch.cuda.is_available()
    figures: dict[str, tuple[float | None, str]] = {
        "useful_tokens_per_second": (round(mean_tokens / seconds), "tokens_per_second"),
        "mfu": (round(flops / chosen.steps / seconds / WORLD / H100_FLOPS, 4), "of_989_tflops"),
        "seconds_per_step": (round(seconds, 4), "seconds"),
        "peak_gib": (round(torch.cuda.max_memory_allocated() / 2**30, 2) if gpu else None, "GiB"),
    }
    publish(
        figures, chosen.json, case=chosen.case, variant=chosen.variant, gpus=WORLD,
        device=torch.cuda.get_device_name() if gpu else "cpu", parameters=parameters, examples_per_step=batch,
        mean_tokens=round(statistics.mean(sizes), 1),
    )  # fmt: skip


if __name__ == "__main__":
    main()
