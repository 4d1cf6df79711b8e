"""LLaMA-Factory trains a model shape on examples of given lengths; `sft_throughput.py --variant llamafactory` runs this.

    sizes.json, a shape ─> random weights, a tokenizer of one token a word, alpaca rows ─> llamafactory ─> seconds of each step

In a process and with packages of its own, since its versions do not install beside ours; nothing of minilima is imported. Its
fastest settings on one H100: neat packing of two rows of 8,192 tokens, Liger's kernels, SDPA, bfloat16, fused AdamW.
"""

import argparse
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, TrainerCallback

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.shapes import SHAPES

ROW_TOKENS, ROWS = 8192, 2
_SPECIAL = ["<pad>", "<eos>", "<unk>"]
_PACKAGES = ("llamafactory", "transformers", "torch", "liger-kernel", "accelerate", "trl", "datasets")


class Clock(TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.monotonic())


def write_model(shape: str, folder: Path) -> int:
    """Random weights, and a tokenizer whose words are w3, w4 …; returns the size of the vocabulary."""
    size = int(SHAPES[shape]["vocab_size"])
    torch.manual_seed(0)
    settings = LlamaConfig(**SHAPES[shape], max_position_embeddings=ROW_TOKENS, bos_token_id=None, eos_token_id=1, pad_token_id=0)
    AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16).save_pretrained(folder)
    words = {word: number for number, word in enumerate([*_SPECIAL, *(f"w{number}" for number in range(3, size))])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    made.save_pretrained(folder)
    return size


def write_examples(sizes: list[int], vocabulary: int, folder: Path) -> None:
    """A tenth of each example is its instruction."""
    rng = np.random.default_rng(1)
    rows = []
    for size in sizes:
        words = [f"w{number}" for number in rng.integers(5, vocabulary, size)]
        cut = max(1, size // 10)
        rows.append({"instruction": " ".join(words[:cut]), "input": "", "output": " ".join(words[cut:])})
    (folder / "examples.json").write_text(json.dumps(rows))
    (folder / "dataset_info.json").write_text(json.dumps({"examples": {"file_name": "examples.json"}}))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shape", choices=SHAPES, required=True)
    arguments.add_argument("--folder", type=Path, required=True, help="holds sizes.json; gets result.json")
    chosen = arguments.parse_args()
    folder: Path = chosen.folder
    vocabulary = write_model(chosen.shape, folder / "model")
    write_examples(json.loads((folder / "sizes.json").read_text()), vocabulary, folder)
    from llamafactory.train.tuner import run_exp  # from the folder named by --peer

    clock, on_gpu = Clock(), torch.cuda.is_available()
    run_exp(
        {
            "stage": "sft", "do_train": True, "finetuning_type": "full", "model_name_or_path": str(folder / "model"),
            "dataset": "examples", "dataset_dir": str(folder), "template": "empty", "cutoff_len": ROW_TOKENS,
            "packing": True, "neat_packing": True, "per_device_train_batch_size": ROWS, "gradient_accumulation_steps": 1,
            "learning_rate": 1e-5, "num_train_epochs": 1, "bf16": on_gpu, "enable_liger_kernel": on_gpu, "flash_attn": "sdpa",
            "optim": "adamw_torch_fused", "output_dir": str(folder / "out"), "logging_steps": 1, "save_strategy": "no",
            "report_to": "none", "overwrite_cache": True, "preprocessing_num_workers": 4, "use_cpu": not on_gpu,
        },
        callbacks=[clock],
    )  # fmt: skip
    seconds = [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)]
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    result = {"seconds": seconds, "steps": len(clock.ends), "peak_gib": peak, "versions": versions}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
