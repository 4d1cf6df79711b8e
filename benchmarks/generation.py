"""Speed of writing answers: our local engine beside `generate` as alpaca_eval calls it, and beside `generate_batch`.

    python benchmarks/generation.py --shape 135m --json benchmarks/results/generation_135m.json
    python benchmarks/generation.py --shape tiny --prompts 40 --tokens 8         # to try it without a GPU

805 prompts of 20 to 120 tokens, as many as AlpacaEval's, and random weights. Each engine writes the same number of tokens for
each prompt, greedily: ours for all prompts, the slower ones for the first few. `huggingface_local` is a text-generation
pipeline over the prompts with alpaca_eval 0.6.6's defaults (one prompt at a time) and, to be fair, with 64 at a time;
`generate_batch` is transformers' continuous batching. Ours is also measured with the settings of the experiments (temperature,
nucleus, repetition penalty), and with answers of very different lengths (log-normal, median 190 tokens, at most 1,024).
Start-up is stated apart: what the first pass over the prompts took longer than the second. Answers of different lengths are
written once, with all recording of steps.
"""

import gc
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    pipeline,
)

from benchmarks.publish import parser, publish
from benchmarks.shapes import SHAPES
from minilima.config import Device
from minilima.llm.chat import Request, Sampling, continue_text
from minilima.llm.local import LocalModel

Figures = dict[str, tuple[float | None, str]]


def make_model(shape: str, folder: Path) -> None:
    """A Llama with random weights, and a tokenizer in which word w17 is token 17."""
    vocabulary = int(SHAPES[shape]["vocab_size"])
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(vocabulary)}, unk_token="w1"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w2", pad_token="w0", unk_token="w1").save_pretrained(folder)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        settings = LlamaConfig(**SHAPES[shape], max_position_embeddings=4096, eos_token_id=2, pad_token_id=0, bos_token_id=None)
        AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16).save_pretrained(folder)


def prompts(count: int, vocabulary: int) -> list[str]:
    rng = random.Random(0)
    return [" ".join(f"w{rng.randrange(5, vocabulary)}" for _ in range(rng.randint(20, 120))) for _ in range(count)]


def timed(act: Callable[[], int]) -> tuple[float, int]:
    """Seconds, and tokens written."""
    started = time.monotonic()
    tokens = act()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - started, tokens


def measure_minilima(folder: Path, texts: Sequence[str], tokens: int, batch: int | None, figures: Figures) -> None:
    started = time.monotonic()
    model = LocalModel(str(folder), "random", device=Device.auto, batch=batch)
    figures["minilima_load_seconds"] = (round(time.monotonic() - started, 1), "seconds")
    rng = random.Random(1)
    lengths = [min(8 * tokens, int(rng.lognormvariate(5.25, 0.8)) + 1) for _ in texts]
    experiments = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2}
    cases: dict[str, tuple[dict[str, Any], list[int]]] = {
        "greedy": ({"temperature": 0.0}, [tokens] * len(texts)),
        "sampled": (experiments, [tokens] * len(texts)),
        "sampled_varied": (experiments, lengths),
    }
    for name, (sampling, limits) in cases.items():
        requests = [
            Request(messages=continue_text(text), sampling=Sampling(**sampling, max_tokens=limit))
            for text, limit in zip(texts, limits, strict=True)
        ]

        def write(requests: list[Request] = requests) -> int:
            return sum(reply.completion_tokens for reply in model.reply_many(requests, lambda index, reply: None))

        first, written = timed(write)
        figures[f"minilima_{name}_first_seconds"] = (round(first, 2), "seconds")
        if name == "sampled_varied":
            figures[f"minilima_{name}"] = (round(written / first, 1), "tokens_per_second")
        else:
            seconds, written = timed(write)
            figures[f"minilima_{name}"] = (round(written / seconds, 1), "tokens_per_second")
        if name == "greedy":
            figures["minilima_start_up_seconds"] = (round(first - seconds, 2), "seconds")
            model.batch *= 2
            write()
            seconds, written = timed(write)
            model.batch //= 2
            figures["minilima_greedy_twice_the_batch"] = (round(written / seconds, 1), "tokens_per_second")
        publish({key: value for key, value in figures.items() if name in key}, None)
    if torch.cuda.is_available():
        figures["minilima_peak_gib"] = (round(torch.cuda.max_memory_allocated() / 2**30, 2), "GiB")


def load(folder: Path) -> tuple[Any, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
    return model, AutoTokenizer.from_pretrained(folder, padding_side="left")


def measure_huggingface_local(folder: Path, texts: Sequence[str], tokens: int, batch: int) -> float:
    """As alpaca_eval/decoders/huggingface_local.py: prompts sorted by length, one pipeline over them."""
    model, tokenizer = load(folder)
    model.generation_config.eos_token_id = None
    writer = pipeline("text-generation", model=model, tokenizer=tokenizer, batch_size=batch, do_sample=False)

    def write(some: Sequence[str], most: int) -> int:
        ordered = sorted(some, key=len)
        list(writer(ordered, return_full_text=False, pad_token_id=tokenizer.pad_token_id, max_new_tokens=most))
        return len(ordered) * most

    write(texts[:batch], 2)
    seconds, written = timed(lambda: write(texts, tokens))
    return round(written / seconds, 1)


def measure_generate_batch(folder: Path, texts: Sequence[str], tokens: int) -> float:
    model, tokenizer = load(folder)
    settings = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=tokenizer.pad_token_id)
    ids = [tokenizer.encode(text) for text in texts]

    def write(some: list[list[int]]) -> int:
        replies = model.generate_batch(inputs=some, generation_config=settings)
        return sum(len(reply.generated_tokens) for reply in replies.values())

    write(ids[:8])
    seconds, written = timed(lambda: write(ids))
    return round(written / seconds, 1)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--shape", choices=SHAPES, default="135m")
    arguments.add_argument("--prompts", type=int, default=805)
    arguments.add_argument("--tokens", type=int, default=128, help="new tokens for each prompt")
    arguments.add_argument("--batch", type=int, help="of ours; the default is what an experiment takes")
    arguments.add_argument("--singles", type=int, default=3, help="prompts that are written one at a time")
    arguments.add_argument("--beside-tokens", type=int, help="new tokens of the other engines; the default is --tokens")
    arguments.add_argument("--ours-only", action="store_true")
    chosen = arguments.parse_args()
    texts = prompts(chosen.prompts, int(SHAPES[chosen.shape]["vocab_size"]))
    figures: Figures = {}

    def tell() -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        publish(
            figures, chosen.json, shape=chosen.shape, prompts=chosen.prompts, new_tokens=chosen.tokens,
            beside_tokens=chosen.beside_tokens, batch=chosen.batch,
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(chosen.shape, folder)
        measure_minilima(folder, texts, chosen.tokens, chosen.batch, figures)
        tell()
        if chosen.ours_only:
            return
        unit, tokens = "tokens_per_second", chosen.beside_tokens or chosen.tokens
        beside: dict[str, Callable[[], float]] = {
            "huggingface_local": lambda: measure_huggingface_local(folder, texts[: chosen.singles], tokens, 1),
            "huggingface_local_64": lambda: measure_huggingface_local(folder, texts[:64], tokens, 64),
            "generate_batch": lambda: measure_generate_batch(folder, texts[:256], tokens),
        }
        for engine, measure in beside.items():
            figures[engine] = (measure(), unit)
            ours, theirs = figures["minilima_greedy"][0], figures[engine][0]
            assert ours is not None and theirs is not None
            figures[f"times_{engine}"] = (round(ours / theirs, 1), "times")
            tell()


if __name__ == "__main__":
    main()
