"""Speed of scoring examples for dataset.select: the two passes of ifd, and the hidden states of rds.

    python benchmarks/selection.py --json benchmarks/results/selection.json               # on one GPU
    python benchmarks/selection.py --model FOLDER --json FILE                             # a real model, such as SmolLM2-135M
    python benchmarks/selection.py --shape tiny --examples 200                            # to try it without a GPU

52,000 examples of about 300 tokens, half of them the answer's or more, put together from words of the packaged seed tasks.
Without --model: random weights of SmolLM2-135M's shape and a byte-pair tokenizer trained on the seed tasks. All that a data
set's build does is timed: template and tokens, loading, both passes, keeping each number in the reply cache's file, and the
order. `again` is the same with every number kept; `states` is the one pass of rds.
Goal: all of ifd in under 120 seconds on one H100.
"""

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from benchmarks.publish import parser, publish
from benchmarks.shapes import SHAPES
from minilima.config.choices import DeviceKind
from minilima.formats.files import DATA
from minilima.formats.records import Example
from minilima.formats.seeds import load_seeds
from minilima.generate.orders import below_one_first
from minilima.generate.passages import answers_alone, passages
from minilima.generate.tools import Text, mean_losses
from minilima.models.kept import KeptNumbers
from minilima.models.reader import Reader

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOKENS = 300
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make_model(shape: str, folder: Path) -> None:
    """Random weights, and a tokenizer that divides words as real ones do."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = int(SHAPES[shape]["vocab_size"])
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train([str(file) for file in DATA.glob("minilima_*.jsonl")], trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[2], pad_token=SPECIAL[0])
    wrapped.chat_template = CHATML
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        settings = LlamaConfig(**SHAPES[shape], max_position_embeddings=4096, eos_token_id=2, pad_token_id=0, bos_token_id=None)
        AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16).save_pretrained(folder)


def make_examples(count: int, tokenizer: Any) -> list[Example]:
    """Requests and answers of random words; lengths vary by half, and their mean is TOKENS."""
    rng = random.Random(0)
    words = " ".join(f"{task.instruction} {task.output}" for task in load_seeds(DATA / "minilima_175.jsonl")).split()
    a_word = len(tokenizer(" ".join(words))["input_ids"]) / len(words)
    mean = (TOKENS - 12) / a_word
    examples = []
    for number in range(count):
        length = max(8, round(mean * rng.uniform(0.5, 1.5)))
        asked = max(3, round(length * rng.uniform(0.1, 0.5)))
        instruction, output = (" ".join(rng.choices(words, k=each)) for each in (asked, length - asked))
        examples.append(Example(id=str(number), instruction=instruction, input="", output=output, source="file"))
    return examples


def timed(figures: dict[str, tuple[float | None, str]], name: str, started: float) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    figures[f"{name}_seconds"] = (round(time.monotonic() - started, 2), "seconds")
    return time.monotonic()


def score(folder: Path, device: DeviceKind, cache: Path, examples: Sequence[Example], name: str, figures: Any) -> Reader:
    """Ratios of all examples and their order, as dataset.select=ifd computes them."""
    began = started = time.monotonic()
    reader = Reader(str(folder), "measured", device=device, kept=KeptNumbers(cache), on_progress=lambda progress: None)
    asked = passages(examples, Text.conversation, reader.tokenizer)
    alone = answers_alone(asked, reader.tokenizer, None)
    started = timed(figures, f"{name}_tokens", started)
    given = mean_losses(reader.losses(asked))
    started = timed(figures, f"{name}_after_the_question", started)
    ratios = given / mean_losses(reader.losses(alone))
    started = timed(figures, f"{name}_alone", started)
    below_one_first(ratios)
    timed(figures, name, began)
    figures[f"{name}_tokens_read"] = (float(reader.read_tokens), "tokens")
    figures["tokens_an_example"] = (round(sum(len(each.ids) for each in asked) / len(asked), 1), "tokens")
    return reader


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", type=Path, help="a model's folder; without it, random weights")
    options.add_argument("--shape", choices=sorted(SHAPES), default="135m")
    options.add_argument("--examples", type=int, default=52_000)
    asked = options.parse_args()
    figures: dict[str, tuple[float | None, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, device = asked.model or Path(name) / "model", DeviceKind.auto
        if asked.model is None:
            make_model(asked.shape, folder)
        examples = make_examples(asked.examples, Reader(
            str(folder), "", device=device, kept=None, on_progress=lambda progress: None
        ).tokenizer)  # fmt: skip
        reader = score(folder, device, Path(name) / "cache.sqlite", examples, "ifd", figures)
        started = time.monotonic()
        reader.states(passages(examples, Text.conversation, reader.tokenizer, with_end=True))
        timed(figures, "states", started)
        score(folder, device, Path(name) / "cache.sqlite", examples, "again", figures)
    figures["examples"] = (float(asked.examples), "examples")
    publish(figures, asked.json)


if __name__ == "__main__":
    main()
