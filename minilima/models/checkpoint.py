"""What a model's folder holds, read without torch: config.json, the tokenizer's files and the headers of safetensors.

    config.json ──> a causal language model? whole, not quantised?  ─┐
    *.safetensors ─> all shards there, none cut or a pointer?         ├─> one paragraph, or nothing
    tokenizer files ─> there?                                        ─┘
Doctor and the checks before a run read it, so that a model which cannot be trained is refused before anything is paid for.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError

ADAPTER = "adapter"
"""The folder beside a merged model that holds the adapters it was merged from."""
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx")
_ALIBI = ("bloom", "mpt")
"""Architectures whose attention knows distances only, so that a length in their config limits nothing."""
_RECURRENT = ("mamba", "mamba2", "rwkv", "falcon_mamba", "xlstm", "recurrent_gemma")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer.tiktoken", "tekken.json")
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_ENCODERS = ("bert", "roberta", "distilbert", "albert", "electra", "deberta", "deberta-v2", "xlm-roberta", "modernbert")
_INDEX = "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"


def text_config(model_config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that describes the language model; wrappers nest it."""
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(nested := model_config.get(name), Mapping):
            return nested
    return model_config


def context_tokens(model_config: Mapping[str, Any]) -> int | None:
    """The most tokens that a model can read, by its config.json; None where nothing limits them (ALiBi, recurrence)."""
    text = text_config(model_config)
    if text.get("model_type") in (*_ALIBI, *_RECURRENT):
        return None
    return next((int(text[name]) for name in _CONTEXT if isinstance(text.get(name), int) and text[name] > 0), None)


def check_folder(folder: Path, *, trained: bool) -> None:
    """Refuses a folder whose model cannot be what it says.

    Args:
        folder: with config.json.
        trained: whether the model is the base of a training; others may be quantised.

    Raises:
        MinilimaError: names what is missing or wrong.
    """
    model_config = read_config(folder)
    check_config(model_config, str(folder), trained=trained)
    files = _weight_files(folder)
    _check_tokenizer(folder)
    _check_weights(folder, files)


def read_config(folder: Path) -> dict[str, Any]:
    """The model's config.json.

    Raises:
        MinilimaError: it is no JSON object.
    """
    file = folder / "config.json"
    _refuse_pointer(file)
    try:
        model_config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MinilimaError(
            f"{file} cannot be read.", f"It is no JSON: {error}.", "Fetch the model again, or name another folder."
        ) from None
    return model_config if isinstance(model_config, dict) else {}


def check_config(model_config: Mapping[str, Any], name: str, *, trained: bool) -> None:
    """Refuses what is no causal language model of text in full precision, by its config.json."""
    architectures = [str(item) for item in model_config.get("architectures") or ()]
    kind = architectures[0] if architectures else str(model_config.get("model_type", "unknown"))
    if model_config.get("is_encoder_decoder") or any(part in model_config for part in ("encoder", "decoder_config")):
        raise _refused(name, kind, "It is an encoder-decoder: prompt and answer go through different parts.")
    if any(part in model_config for part in ("vision_config", "audio_config", "vision_tower", "mm_vision_tower")):
        raise _refused(
            name, kind, "It is a wrapper for pictures or sound around a language model, of which only a part would be trained."
        )
    encoder = model_config.get("model_type") in _ENCODERS and not model_config.get("is_decoder")
    if encoder or (architectures and not kind.endswith(_CAUSAL)):
        raise _refused(name, kind, "It has no head that predicts the next token: transformers would draw one at random.")
    quantised = model_config.get("quantization_config") or text_config(model_config).get("quantization_config")
    if trained and quantised:
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, Mapping) else "unknown"
        raise MinilimaError(
            f"The model in {name} is quantised ({method}).",
            "Rounded weights cannot be trained, and adapters cannot be merged into them.",
            "Use the checkpoint it was made from (bfloat16 or float32); sft=qlora quantises that one while it trains.",
        )


def _refused(name: str, kind: str, why: str) -> MinilimaError:
    return MinilimaError(
        f"The model in {name} ({kind}) is no causal language model for text.",
        why,
        "Use a text-only …ForCausalLM checkpoint, for example google/gemma-3-1b-it instead of a larger one with a vision part.",
    )


def _check_tokenizer(folder: Path) -> None:
    files = [folder / name for name in _TOKENIZERS if (folder / name).is_file()]
    for file in files:
        _refuse_pointer(file)
    if not files:
        raise MinilimaError(
            f"There is no tokenizer in {folder}.",
            f"One of these files is needed: {', '.join(_TOKENIZERS[:3])}.",
            "Copy the tokenizer's files into the folder (tokenizer.save_pretrained writes them).",
        )


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files and not (folder / _INDEX).is_file():
        others = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for file in folder.glob(pattern))
        raise MinilimaError(
            f"There is no *.safetensors in {folder}.",
            f"It holds {', '.join(others[:3])}: such files can run code when they are read." if others else "It has no weights.",
            "Save the model again with save_pretrained, which writes safetensors, or fetch a revision that has them.",
        )
    return files


def _check_weights(folder: Path, files: list[Path]) -> None:
    index = folder / _INDEX
    wanted = _indexed(index) if index.is_file() and not (folder / "model.safetensors").is_file() else {}
    if lacking := sorted({file for file in wanted.values() if not (folder / file).is_file()}):
        raise MinilimaError(
            f"{len(lacking):,} of {len(set(wanted.values())):,} files of weights are missing in {folder}.",
            f"{_INDEX} names {lacking[0]}.",
            "Fetch the model again (`hf download` resumes where it was interrupted).",
        )
    held = {file.name: tensors_of(file) for file in files}
    if absent := sorted(name for name, file in wanted.items() if name not in held[file]):
        raise MinilimaError(
            f"{len(absent):,} tensors are missing in {folder}.",
            f"{wanted[absent[0]]} does not hold {absent[0]}, which the index names.",
            "Fetch the model again.",
        )


def _indexed(index: Path) -> dict[str, str]:
    _refuse_pointer(index)
    weights: dict[str, str] = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
    return weights


def tensors_of(file: Path) -> dict[str, Any]:
    """The header of a file of safetensors: name, kind and shape of each tensor.

    Raises:
        MinilimaError: the file is a Git LFS pointer, is cut, or is no such file.
    """
    _refuse_pointer(file)
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        header = stream.read(length) if 8 + length <= size else b""
    try:
        header_fields: dict[str, Any] = json.loads(header)
        end = max((entry["data_offsets"][1] for name, entry in header_fields.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError):
        header_fields, end = {}, size
    if 8 + length + end > size or not header_fields:
        raise MinilimaError(
            f"{file} is not whole.",
            f"It has {size:,} bytes; a download was interrupted, or it is no file of safetensors.",
            "Delete it and fetch the model again.",
        )
    return header_fields


def _refuse_pointer(file: Path) -> None:
    with file.open("rb") as stream:
        if stream.read(len(_POINTER)) != _POINTER:
            return
    raise MinilimaError(
        f"{file} is a Git LFS pointer, not the file itself.",
        "The repository was cloned without Git LFS.",
        "Run `git lfs pull` in it, or fetch the model with `hf download`.",
    )
