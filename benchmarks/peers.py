"""What training is compared with in sft_throughput.py: a padded `transformers.Trainer`, TRL, and LLaMA-Factory."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from minilima.models.packing import IGNORED


def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The usual collator: every row as long as the longest."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor(np.array([np.pad(row["input_ids"], (0, width - len(row["input_ids"]))) for row in rows]))
    labels = torch.tensor(
        np.array([np.pad(row["labels"], (0, width - len(row["labels"])), constant_values=IGNORED) for row in rows])
    )
    mask = torch.tensor(np.array([np.arange(width) < len(row["input_ids"]) for row in rows]), dtype=torch.long)
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def padded_trainer(model: Any, data: list[dict[str, Any]], folder: Path, clock: TrainerCallback, rows: int) -> Trainer:
    """transformers' own, with so many rows a step."""
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=rows, num_train_epochs=1, learning_rate=1e-5, save_strategy="no",
        report_to=[], disable_tqdm=True, bf16=torch.cuda.is_available(), optim="adamw_torch_fused", logging_steps=1,
        remove_unused_columns=False, use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    return Trainer(model=model, args=arguments, train_dataset=data, data_collator=padded, callbacks=[clock])


def trl_trainer(model: Any, data: list[dict[str, Any]], folder: Path, clock: TrainerCallback) -> Trainer:
    """TRL's trainer of a model, with its default packing."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig as TrlConfig
    from trl import SFTTrainer

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>")), pad_token="<pad>",
        eos_token="<eos>", unk_token="<unk>",
    )  # fmt: skip
    rows = Dataset.from_list(
        [
            {"input_ids": row["input_ids"].tolist(), "completion_mask": (row["labels"] != IGNORED).astype(int).tolist()}
            for row in data
        ]
    )
    arguments = TrlConfig(
        output_dir=str(folder), per_device_train_batch_size=2, max_length=8192, packing=True, num_train_epochs=1,
        learning_rate=1e-5, save_strategy="no", report_to=[], disable_tqdm=True, bf16=torch.cuda.is_available(),
        optim="adamw_torch_fused", logging_steps=1, gradient_checkpointing=False, use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    return SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, callbacks=[clock])


def by_llamafactory(shape: str, sizes: list[int], peer: Path) -> dict[str, Any]:
    """Trains by LLaMA-Factory in a process of its own, whose packages are those in the folder `peer` first.

    Returns:
        seconds from each step to the next, steps, peak_gib, versions.
    """
    script = Path(__file__).with_name("peer_llamafactory.py")
    paths = [str(peer.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sizes.json").write_text(json.dumps(sizes))
        command = [sys.executable, str(script), "--shape", shape, "--folder", folder]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
        found: dict[str, Any] = json.loads((Path(folder) / "result.json").read_text())
    return found
