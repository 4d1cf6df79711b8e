"""The base model tried without its weights, in a process of its own, before anything is paid for: would it be right?

    config, sources ─> folder and config.json (here) ─> python -m minilima.run.dry_run: tokenizer, template, names of weights,
                                                        each prompt and row that is known already ─> a refusal, or notes
What passed is remembered beside the user's cache by its content, so that the points of a sweep ask once.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from minilima.config.choices import DataKind, Method, Thinking
from minilima.config.schema import Config, SftConfig
from minilima.environment import PACKAGE, ROOT
from minilima.errors import MinilimaError
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import canonical_json, remembered, sha256_file, sha256_text, write_atomic
from minilima.formats.records import Example
from minilima.formats.seeds import load_seeds
from minilima.generate.import_pool import read_source
from minilima.models import hub
from minilima.models.checkpoint import check_config, check_folder, context_tokens, read_config
from minilima.models.packaged import PACKAGED, check_language_model, fetch, user_cache
from minilima.store.job import parse_error
from minilima.store.sources import ModelSource, Sources

_MOST_ROWS = 20_000
_SECONDS = 300
_TEMPLATE_TOKENS = 500
"""More than any template adds to a prompt."""


def check_base(config: Config, sources: Sources) -> tuple[str, ...]:
    """Refuses a base model that cannot be right with these settings, prompts and rows; returns what should be known of it.

    Raises:
        MinilimaError: names what is wrong: a file, a setting, a row or an evaluation prompt.
    """
    source = sources.base
    if source.missing is not None:
        return ()
    check_source(source, trained=True)
    request = request_of(config, sources)
    known = source.kind == "packaged" and not request["prompts"]
    return () if known else _asked(canonical_json(request), source.identity)


def request_of(config: Config, sources: Sources) -> dict[str, Any]:
    """What a trial is asked about: the model, its settings, and all that is known already of what it will read."""
    request: dict[str, Any] = {
        "location": sources.base.location,
        "thinking": config.model.thinking,
        "sft": vars(config.sft),
        "prompts": _prompts(config, sources),
    }
    if sources.base.kind == "packaged":
        # Known to be right, but for a prompt that is longer than it reads; a text has no more tokens than bytes.
        most = (PACKAGED[sources.base.location].context_tokens or 0) - _TEMPLATE_TOKENS
        request["prompts"] = [row for row in request["prompts"] if len(row[1].encode()) > most]
        return {**request, "packaged": True}
    return {**request, "rows": [asdict(row) for row in _rows(config, sources)[:_MOST_ROWS]]}


def check_source(source: ModelSource, *, trained: bool) -> None:
    """Refuses a model by its files alone: those of a folder, or those that the hub lists.

    Raises:
        MinilimaError: names what is missing or wrong.
    """
    if source.kind == "packaged":
        check_language_model(source.location)
    if source.kind == "path":
        check_folder(Path(source.location), trained=trained)
    if source.kind == "hub" and source.missing is None:
        name, _, commit = source.location.partition("@")
        folder = hub.small_files(name, commit)
        if folder is not None and (folder / "config.json").is_file():
            check_config(read_config(folder), name, trained=trained)
        files = hub.listed_files(name, commit)
        if files and not any(file.endswith(".safetensors") for file in files):
            raise MinilimaError(
                f"{name} has no weights as safetensors.", "Other formats can run code when they are read.",
                "Name a revision that has them (model.revision=…), or convert the model and name its folder with model.path.",
            )  # fmt: skip


def _prompts(config: Config, sources: Sources) -> list[list[str]]:
    """id, instruction and reference answer of each evaluation prompt."""
    if sources.eval_set.path is None:
        return []
    prompts = load_eval_set(sources.eval_set.local_path, config.eval_set.size)
    return [[prompt.id, prompt.instruction, prompt.output or ""] for prompt in prompts]


def _rows(config: Config, sources: Sources) -> list[Example]:
    """What will be trained on and is known already: an imported file, and the seeds."""
    rows = []
    if config.data.kind == DataKind.file and sources.data is not None and sources.data.path is not None:
        rows += read_source(sources.data).examples
    if config.dataset.include_seeds and sources.seeds is not None and sources.seeds.path is not None:
        rows += [
            Example(id=task.id, instruction=task.instruction, input=task.input, output=task.output, source="seed")
            for task in load_seeds(sources.seeds.path)
        ]
    return rows


@cache
def _asked(request: str, identity: str) -> tuple[str, ...]:
    """The notes of a trial; asked once for the same model, settings, rows and code."""
    code = [sha256_file(PACKAGE / name) for name in ("run/dry_run.py", "models/template.py", "models/checkpoint.py")]
    key = sha256_text(canonical_json([request, identity, code, metadata.version("transformers")]))
    memory = user_cache() / "checked" / key[:24]
    if (known := remembered(memory, _notes)) is not None:
        return known
    reply = tried(request)
    if reply is None:
        return ()  # a machine on which it cannot be tried; the stage itself checks again
    if error := reply.get("error"):
        raise parse_error(error)
    memory.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(memory, json.dumps(reply["notes"]))
    return tuple(reply["notes"])


def _notes(kept: Any) -> tuple[str, ...]:
    if not isinstance(kept, list) or not all(isinstance(note, str) for note in kept):
        raise TypeError("notes are texts")
    return tuple(kept)


def tried(request: str) -> dict[str, Any] | None:
    """What a trial in a process of its own came to: its `notes`, or an `error`; None where it came to nothing."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    command = [sys.executable, "-m", "minilima.run.dry_run"]
    try:
        finished = subprocess.run(
            command, input=request, capture_output=True, text=True, timeout=_SECONDS, check=False, env=environment
        )
        reply: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return None
    return reply


def trial(request: Mapping[str, Any]) -> list[str]:
    """Loads the tokenizer and, without their values, the weights; renders every prompt and row. Needs torch.

    Returns:
        What should be known before the run, in sentences.

    Raises:
        MinilimaError: what would go wrong.
    """
    from minilima.models.template import prompt_ids, render

    tokenizer = _tokenizer(request)
    thinking = Thinking(request["thinking"]) if request.get("thinking") else None
    sample = render(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], thinking)
    if request.get("packaged"):
        context, vocabulary = PACKAGED[request["location"]].context_tokens, len(tokenizer)
    else:
        context, vocabulary = _shape(request)
    _check_ids(sample.ids, vocabulary, tokenizer, "its chat template")
    for identity, instruction, output in request["prompts"]:
        turns = [{"role": "user", "content": instruction}]
        ids = prompt_ids(tokenizer, turns, thinking)
        _check_ids(ids, vocabulary, tokenizer, f"evaluation prompt {identity}")
        _check_length(ids, context, identity)
        if output:
            render(tokenizer, [*turns, {"role": "assistant", "content": output}], thinking, f"evaluation prompt {identity}")
    return _check_rows(request, tokenizer, context, vocabulary)


def _tokenizer(request: Mapping[str, Any]) -> Any:
    from transformers import AutoTokenizer

    from minilima.models.tokenizer import completed, load_tokenizer

    if not request.get("packaged"):
        return load_tokenizer(request["location"])
    gguf = next(fetch(request["location"]).glob("*.gguf"))
    return completed(AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name), request["location"])


def _shape(request: Mapping[str, Any]) -> tuple[int | None, int]:
    """Context and number of embeddings of the model, whose parts must be what the recipe needs."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from minilima.models.tokenizer import split_location
    from minilima.models.weights import load_model
    from minilima.train.dropout import branches
    from minilima.train.model import with_adapters

    location, sft = request["location"], SftConfig(**request["sft"])
    name, revision = split_location(location)
    if Path(name).is_dir():
        model = load_model(location, torch.bfloat16, torch.device("meta"), device_map={"": "meta"})
    else:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name, revision=revision))
    context, vocabulary = context_tokens(model.config.to_dict()), model.get_input_embeddings().weight.shape[0]
    if sft.residual_dropout:
        branches(model)
    if sft.method == Method.lora:
        with_adapters(model, sft)
    return context, vocabulary


def _check_ids(ids: Sequence[int], vocabulary: int, tokenizer: Any, where: str) -> None:
    if (highest := max(ids, default=0)) >= vocabulary:
        raise MinilimaError(
            f"The token {tokenizer.convert_ids_to_tokens(highest)!r} ({highest:,}) lies beyond the model's embeddings.",
            f"There are {vocabulary:,}, and {where} needs that token: tokenizer and weights do not belong together.",
            "Take the tokenizer that came with the weights, or save the model after resize_token_embeddings.",
        )


def _check_length(ids: Sequence[int], context: int | None, identity: str) -> None:
    if context is not None and len(ids) >= context:
        raise MinilimaError(
            f"Evaluation prompt {identity} has {len(ids):,} tokens and leaves no room for an answer.",
            f"The model reads at most {context:,} tokens.",
            "Take it out of the evaluation set, shorten it, or use a model with a longer context.",
        )


def _check_rows(request: Mapping[str, Any], tokenizer: Any, context: int | None, vocabulary: int) -> list[str]:
    from minilima.models.packing import IGNORED
    from minilima.train.tokenize import check_embeddings, check_tokens, check_trained, tokenize_example

    sft = request["sft"]
    thinking = Thinking(request["thinking"]) if request.get("thinking") else None
    longest = min(sft["max_tokens"], context or sft["max_tokens"])
    examples = [
        tokenize_example(Example(**row), tokenizer, longest, train_on_prompt=sft["train_on_prompt"], thinking=thinking)
        for row in request.get("rows", ())
    ]
    check_embeddings(examples, vocabulary, tokenizer)
    check_tokens(examples, tokenizer)
    untrained, cut = check_trained(examples, longest), sum(len(example.input_ids) >= longest for example in examples)
    notes = []
    if cut:
        limit = "sft.max_tokens" if longest == sft["max_tokens"] else "all that the model reads"
        notes.append(f"{cut:,} of {len(examples):,} known examples reach {longest:,} tokens ({limit}) and are cut there.")
    if untrained:
        first = next(row["id"] for row, item in zip(request["rows"], examples, strict=True) if set(item.labels[1:]) <= {IGNORED})
        notes.append(f"{untrained:,} of {len(examples):,} known examples keep no token to learn, the first is {first}.")
    return notes


def reply_to(request: str) -> dict[str, Any]:
    """What a trial in this process comes to: its `notes`, or an `error`."""
    try:
        return {"notes": trial(json.loads(request))}
    except MinilimaError as error:
        return {"error": {"what": error.what, "why": error.why, "fix": error.fix}}


def main() -> None:
    """One request on stdin, one reply as the last line of stdout."""
    sys.stdout.write(json.dumps(reply_to(sys.stdin.read())) + "\n")


if __name__ == "__main__":
    main()
