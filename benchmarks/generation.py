"""Speed of writing answers: our local engine beside `generate` as alpaca_eval calls it, beside `generate_batch`, and vLLM.

    python benchmarks/generation.py --shape 135m --json benchmarks/results/generation_135m.json
    python benchmarks/generation.py --shape tiny --prompts 40 --tokens 8         # to try it without a GPU
    python benchmarks/generation.py --shape 1b --engine vllm --json …            # compute.engine=vllm, and vLLM as it is

805 prompts of 20 to 120 tokens, as many as AlpacaEval's, and random weights. Each engine writes the same number of tokens for
each prompt, greedily: ours for all prompts, the slower ones for some and fewer tokens. `huggingface_local` is a text-generation
pipeline over the prompts with alpaca_eval 0.6.6's defaults (one prompt at a time) and, to be fair, with 64 at a time;
`generate_batch` is transformers' continuous batching. Ours is also measured with the settings of the experiments (temperature,
nucleus, repetition penalty), and with answers of very different lengths (log-normal, median 190 tokens, at most 1,024).
Start-up is stated apart: what the first pass over the prompts took longer than the second. Answers of different lengths are
written once, with all recording of steps. `vllm_plain` is vLLM with the same lengths and its own repetition penalty, which
counts the prompt too. Each engine has a process of its own, since vLLM takes the whole GPU.
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
    GenerationConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    pipeline,
)

from benchmarks.publish import parser, publish
from benchmarks.shapes import SHAPES
from minilima.config.choices import DeviceKind
from minilima.models.chat import ChatModel, Request, Sampling, continue_text
from minilima.models.local import LocalModel

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


EXPERIMENT = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2}
CASES: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0.0}, "sampled": EXPERIMENT, "sampled_varied": EXPERIMENT}


def requests_of(case: str, texts: Sequence[str], tokens: int) -> list[Request]:
    rng = random.Random(1)
    limits = [tokens] * len(texts)
    if case.endswith("varied"):
        limits = [min(8 * tokens, int(rng.lognormvariate(5.25, 0.8)) + 1) for _ in texts]
    return [
        Request(messages=continue_text(text), sampling=Sampling(**CASES[case], max_tokens=limit))
        for text, limit in zip(texts, limits, strict=True)
    ]


def measure(write: Callable[[], int], name: str, figures: Figures, *, twice: bool) -> None:
    """Adds the speed of an engine; `write` answers all prompts and returns how many tokens it wrote."""
    first, written = timed(write)
    figures[f"{name}_first_seconds"] = (round(first, 2), "seconds")
    if not twice:
        figures[name] = (round(written / first, 1), "tokens_per_second")
        return
    seconds, written = timed(write)
    figures[name] = (round(written / seconds, 1), "tokens_per_second")
    figures[f"{name}_seconds"] = (round(seconds, 2), "seconds")
    figures[f"{name}_start_up_seconds"] = (round(first - seconds, 2), "seconds")


def ours(model: ChatModel, requests: list[Request]) -> Callable[[], int]:
    return lambda: sum(reply.completion_tokens for reply in model.reply_many(requests, lambda index, reply: None))


def plain_vllm(model: Any, requests: list[Request]) -> Callable[[], int]:
    """vLLM's own loop and penalty on the engine that `model` started."""
    from vllm import SamplingParams

    ids = [model.tokenizer.encode(request.messages[0].content) for request in requests]

    def write() -> int:
        for number, (prompt, request) in enumerate(zip(ids, requests, strict=True)):
            chosen = request.sampling
            params = SamplingParams(
                temperature=chosen.temperature, top_p=1.0 if chosen.top_p is None else chosen.top_p, max_tokens=chosen.max_tokens,
                repetition_penalty=chosen.repetition_penalty or 1.0, stop_token_ids=[2], detokenize=False,
            )  # fmt: skip
            model._engine.add_request(str(number), {"prompt_token_ids": prompt}, params)
        written = 0
        while model._engine.has_unfinished_requests():
            written += sum(len(output.outputs[0].token_ids) for output in model._engine.step() if output.finished)
        return written

    return write


def measure_huggingface_local(model: Any, tokenizer: Any, texts: Sequence[str], tokens: int, batch: int) -> float:
    """As alpaca_eval/decoders/huggingface_local.py: prompts sorted by length, one pipeline over them."""
    model.generation_config.eos_token_id = None
    tokenizer.padding_side = "left"
    writer = pipeline("text-generation", model=model, tokenizer=tokenizer, batch_size=batch, do_sample=False)

    def write(some: Sequence[str], most: int) -> int:
        ordered = sorted(some, key=len)
        list(writer(ordered, return_full_text=False, pad_token_id=tokenizer.pad_token_id, max_new_tokens=most))
        return len(ordered) * most

    write(texts[:batch], 2)
    seconds, written = timed(lambda: write(texts, tokens))
    return round(written / seconds, 1)


def measure_generate_batch(model: Any, tokenizer: Any, texts: Sequence[str], tokens: int) -> float:
    settings = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=tokenizer.pad_token_id)
    ids = [tokenizer.encode(text) for text in texts]

    def write(some: list[list[int]]) -> int:
        replies = model.generate_batch(inputs=some, generation_config=settings)
        return sum(len(reply.generated_tokens) for reply in replies.values())

    write(ids[:8])
    seconds, written = timed(lambda: write(ids))
    return round(written / seconds, 1)


def measure_vllm(
    folder: str, cases: Sequence[str], texts: Sequence[str], tokens: int, figures: Figures, on_progress: Callable[[], None]
) -> None:
    """Our requests in vLLM, and vLLM's own loop over the same prompts on the same started engine."""
    from minilima.models.vllm import VllmModel

    model = VllmModel(folder, "random", device=DeviceKind.auto)
    first = requests_of("greedy", texts[:1], 1)
    figures["vllm_start_up_seconds"] = (round(timed(ours(model, first))[0], 1), "seconds")
    for case in cases:
        requests = requests_of(case, texts, tokens)
        for name, write in (("vllm", ours(model, requests)), ("vllm_plain", plain_vllm(model, requests))):
            measure(write, f"{name}_{case}", figures, twice=case != "sampled_varied")
            on_progress()
    model.close()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--shape", choices=SHAPES, default="135m")
    arguments.add_argument("--prompts", type=int, default=805)
    arguments.add_argument("--tokens", type=int, default=128, help="new tokens for each prompt")
    arguments.add_argument("--engine", choices=("transformers", "vllm"), default="transformers", help="as compute.engine")
    arguments.add_argument("--batch", type=int, help="of ours; the default is what an experiment takes")
    arguments.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="what ours is measured at")
    arguments.add_argument("--beside", type=int, default=256, help="prompts of generate_batch; 0 = only ours")
    arguments.add_argument("--beside-tokens", type=int, help="new tokens of the slower engines; the default is --tokens")
    chosen = arguments.parse_args()
    texts = prompts(chosen.prompts, int(SHAPES[chosen.shape]["vocab_size"]))
    tokens = chosen.beside_tokens or chosen.tokens
    figures: Figures = {}

    def on_progress() -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        publish(
            figures, chosen.json, shape=chosen.shape, prompts=chosen.prompts, new_tokens=chosen.tokens, beside_tokens=tokens,
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", engine=chosen.engine,
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as name:
        make_model(chosen.shape, Path(name))
        if chosen.engine == "vllm":
            measure_vllm(name, chosen.cases, texts, chosen.tokens, figures, on_progress)
            return
        started = time.monotonic()
        local = LocalModel(name, "random", device=DeviceKind.auto, batch=chosen.batch)
        figures["load_seconds"] = (round(time.monotonic() - started, 1), "seconds")
    figures["batch"] = (local.batch, "replies")
    for case in chosen.cases:
        write = ours(local, requests_of(case, texts, chosen.tokens))
        measure(write, f"minilima_{case}", figures, twice=case != "sampled_varied")
        on_progress()
    if torch.cuda.is_available():
        figures["minilima_peak_gib"] = (round(torch.cuda.max_memory_allocated() / 2**30, 2), "GiB")
    model, tokenizer = local.model, local.tokenizer
    local._tensors = None
    beside: dict[str, Callable[[], float]] = {
        "huggingface_local": lambda: measure_huggingface_local(model, tokenizer, texts[:1], tokens, 1),
        "huggingface_local_64": lambda: measure_huggingface_local(model, tokenizer, texts[:64], tokens, 64),
        "generate_batch": lambda: measure_generate_batch(model, tokenizer, texts[: chosen.beside], tokens),
    }
    for engine, speed in beside.items() if chosen.beside else ():
        figures[engine] = (speed(), "tokens_per_second")
        own, theirs = figures[f"minilima_{chosen.cases[0]}"][0], figures[engine][0]
        assert own is not None and theirs is not None
        figures[f"times_{engine}"] = (round(own / theirs, 1), "times")
        on_progress()


if __name__ == "__main__":
    main()
