"""Training speed of our stage beside a padded `transformers.Trainer` and TRL, on model shapes with random weights.

    python benchmarks/sft_throughput.py --case 1b_full --variant minilima --json benchmarks/results/sft_1b_full_minilima.json
    torchrun --nproc_per_node 2 benchmarks/sft_throughput.py --case 1b_full       # on two GPUs, twice the examples a step

Lengths are log-normal like LIMA-style answers (mean 270 tokens, at most 2,048), fixed by a seed, and the same for all.
torch's allocator lets its segments grow, as in a run's training. 8b_full rounds stochastically on one GPU and divides its states
by ZeRO-3 on several; 8b_offload keeps them in the machine's memory (150 GiB of it); 8b_qlora writes its weights to the disk first
and reads them in 4 bits, as a run does. 135m_lima plays recorded steps (`--plain`: not). `trl` (pip install trl) packs with its
default strategy, two rows of 8,192 tokens a step, float32 weights under autocast; `trl_bfloat16` trains bfloat16 weights without
masters. `llamafactory` is peer_llamafactory.py: pip install --no-deps --target FOLDER llamafactory==0.9.5 transformers==5.6.0 and
what else that transformers wants, then `--peer FOLDER`.
`predicted_peak_gib` is what the memory preflight foretold of ours then, for the longest rows that a step had.
Useful tokens are those of the examples, padding left out. MFU is `minilima.train.shape` over 989 TFLOP/s. The figures are
medians of the steps after the first five.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Trainer, TrainerCallback

from benchmarks.peers import by_llamafactory, padded_trainer, trl_trainer
from benchmarks.publish import parser, publish
from benchmarks.sft_cases import CASES, OFFLOADED, QUANTISED, TIGHT, WORLD, ours, predicted_gib, shape_of_case
from benchmarks.shapes import SHAPES
from minilima.config.choices import Method
from minilima.models.packing import IGNORED, Tokens
from minilima.train.arguments import training_arguments
from minilima.train.model import load_base, prepared
from minilima.train.packing import Packer
from minilima.train.shape import H100_FLOPS, training_flops
from minilima.train.trainer import SftTrainer

WARM_UP = 5


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
    """When each step ended, on the GPU: the host need not wait for that, and may be a step ahead."""

    def __init__(self) -> None:
        self.ends: list[Any] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            self.ends.append(torch.cuda.Event(enable_timing=True))
            self.ends[-1].record()
        else:
            self.ends.append(time.monotonic())

    def seconds(self) -> list[float]:
        """From the end of each step to the end of the next, with the collating and the logging between them."""
        _synchronize()
        pairs = itertools.pairwise(self.ends)
        return [before.elapsed_time(after) / 1e3 if torch.cuda.is_available() else after - before for before, after in pairs]


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Profile(TrainerCallback):  # type: ignore[misc]
    """Writes which kernels two late steps spend their time in, and how much of it the GPU was idle."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.profiler = torch.profiler.profile()

    def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == WARM_UP + 1:
            _synchronize()
            self.profiler.start()
            self.started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == WARM_UP + 3:
            _synchronize()
            seconds = time.monotonic() - self.started
            self.profiler.stop()
            rows = self.profiler.key_averages()
            # Kernels alone: the operations that started them report the same time again.
            kernels = [row for row in rows if row.device_type == torch.autograd.DeviceType.CUDA and "#" not in row.key]
            busy = sum(row.self_device_time_total for row in kernels) / 1e6
            text = rows.table(sort_by="self_device_time_total", row_limit=60, max_name_column_width=90)
            self.file.write_text(f"{seconds:.4f} seconds, GPU busy {busy:.4f}\n{text}\n")


class Measured(Packer):
    """The packer of ours, which remembers the longest first row of a step and the longest later one."""

    longest = 0
    later = 0

    def __call__(self, examples: Sequence[Mapping[str, Tokens]]) -> dict[str, Any]:
        step = super().__call__(examples)
        first, *later = (row["input_ids"].shape[1] for row in step["rows"])
        Measured.longest = max(Measured.longest, first)
        Measured.later = max(Measured.later, *later, 0)
        return step


def trainer_of(
    variant: str, case: str, data: list[dict[str, Any]], folder: Path, clock: Clock, rows: int, *, plain: bool,
    row_tokens: int | None,
) -> Trainer:  # fmt: skip
    shape = CASES[case][0]
    torch.manual_seed(0)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        settings = LlamaConfig(**SHAPES[shape], max_position_embeddings=2048)
        halves = case in (TIGHT, QUANTISED, OFFLOADED) or variant == "trl_bfloat16"
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16 if halves else torch.float32)
    if variant.startswith("trl"):
        return trl_trainer(model, data, folder, clock)
    if variant == "minilima":
        config, usual = ours(case, plain=plain)
        if case == QUANTISED:  # as a run reads it
            model.save_pretrained(folder / "model")
            del model
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            model = load_base(str(folder / "model"), config)
        arguments = training_arguments(config, folder)
        return SftTrainer(
            model=prepared(model, config), args=arguments, train_dataset=data, callbacks=[clock], config=config,
            data_collator=Measured(row_tokens=row_tokens or usual, rank=arguments.process_index, world=arguments.world_size),
        )  # fmt: skip
    return padded_trainer(model, data, folder, clock, rows)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What a training took: seconds from each step to the next, the peak of memory, and what else is to be told."""

    seconds: Sequence[float]
    steps: int
    peak_gib: float | None
    more: Mapping[str, Any]


def by_trainer(chosen: argparse.Namespace, sizes: list[int]) -> Steps:
    """Trains in this process."""
    clock = Clock()
    data = examples(sizes, int(SHAPES[CASES[chosen.case][0]]["vocab_size"]))
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(
            chosen.variant, chosen.case, data, Path(folder), clock, chosen.rows, plain=chosen.plain, row_tokens=chosen.row_tokens
        )
        if chosen.profile and trainer.is_world_process_zero():
            trainer.add_callback(Profile(chosen.profile))
        trainer.train()
    more: dict[str, Any] = {}
    if chosen.variant == "minilima":
        more = {"longest_row": Measured.longest, "later_row": Measured.later}
    if (graphs := getattr(trainer, "recorded", None)) is not None:
        more["recorded_lengths"] = graphs.lengths
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    return Steps(seconds=clock.seconds(), steps=trainer.state.global_step, peak_gib=peak, more=more)


def trained_by_llamafactory(shape: str, sizes: list[int], peer: Path) -> Steps:
    """LLaMA-Factory's training."""
    found = by_llamafactory(shape, sizes, peer)
    more = {"peer_versions": found["versions"]}
    return Steps(seconds=found["seconds"], steps=found["steps"], peak_gib=found["peak_gib"], more=more)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--case", choices=CASES, required=True)
    arguments.add_argument(
        "--variant", choices=["minilima", "padded_trainer", "trl", "trl_bfloat16", "llamafactory"], default="minilima"
    )
    arguments.add_argument("--steps", type=int, default=25)
    arguments.add_argument("--rows", type=int, default=8, help="rows a step of padded_trainer")
    arguments.add_argument("--row-tokens", type=int, help="longest row of ours, where it is not the case's own")
    arguments.add_argument("--plain", action="store_true", help="no step is recorded")
    arguments.add_argument("--peer", type=Path, help="folder with LLaMA-Factory and the versions that it wants")
    arguments.add_argument("--profile", type=Path, help="profile two of the steps into this file")
    chosen = arguments.parse_args()
    shape, method, batch, _ = CASES[chosen.case]
    if chosen.variant == "padded_trainer":
        batch = chosen.rows
    batch *= WORLD
    sizes = lengths(batch * chosen.steps)
    peer = chosen.variant == "llamafactory"
    measured = trained_by_llamafactory(shape, sizes, chosen.peer) if peer else by_trainer(chosen, sizes)
    # Of the shape: weights that are divided or in 4 bits do not tell their number.
    parameters = shape_of_case(chosen.case).multiplying
    mean_tokens = sum(sizes) / measured.steps
    seconds = statistics.median(measured.seconds[WARM_UP:])
    layers, width = int(SHAPES[shape]["num_hidden_layers"]), int(SHAPES[shape]["hidden_size"])
    flops = training_flops(sizes, parameters=parameters, layers=layers, heads_width=width, frozen=method == Method.lora)
    if os.environ.get("RANK", "0") != "0":
        return
    figures: dict[str, tuple[float | None, str]] = {
        "useful_tokens_per_second": (round(mean_tokens / seconds), "tokens_per_second"),
        "mfu": (round(flops / measured.steps / seconds / WORLD / H100_FLOPS, 4), "of_989_tflops"),
        "seconds_per_step": (round(seconds, 4), "seconds"),
        "peak_gib": (None if measured.peak_gib is None else round(measured.peak_gib, 2), "GiB"),
    }
    if chosen.variant == "minilima":
        figures["predicted_peak_gib"] = (round(predicted_gib(chosen.case, Measured.longest, Measured.later), 2), "GiB")
    publish(
        figures, chosen.json, case=chosen.case, variant=chosen.variant, gpus=WORLD,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", parameters=parameters,
        examples_per_step=round(len(sizes) / measured.steps), mean_tokens=round(statistics.mean(sizes), 1), **measured.more,
    )  # fmt: skip


if __name__ == "__main__":
    main()
    if torch.distributed.is_initialized():  # torch and DeepSpeed may hang in, or abort, the tear-down
        sys.stdout.flush()
        os._exit(0)
