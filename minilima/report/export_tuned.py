"""Takes a tuned model out of the store as a folder that other people can load, with a model card.

store/model-… ─> FOLDER/*.safetensors  config.json  tokenizer.json  chat_template.jinja  generation_config.json  README.md
store/model-…/adapter ─> the same folder, with --adapter: adapter_model.safetensors and adapter_config.json
                         FOLDER/model-q8_0.gguf  Modelfile, with --gguf (gguf.py)
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from minilima.errors import MinilimaError
from minilima.evaluate.benchmark_scores import BenchmarkChange
from minilima.formats.files import new_folder, sizes, write_atomic
from minilima.models.checkpoint import ADAPTER, context_tokens, read_config
from minilima.models.packaged import PACKAGED
from minilima.report.finished import OpenedRun, licence_of
from minilima.report.model_card import ModelFacts, made_by, model_card, origin_of

_NOT_THE_MODEL = ("manifest.json", "training_log.jsonl")


def export_tuned(
    run: OpenedRun,
    folder: Path,
    *,
    adapter: bool = False,
    data_set: str | None = None,
    repository: str | None = None,
    extra: Callable[[Path], None] | None = None,
) -> dict[str, int]:
    """Writes the run's tuned model into a new folder.

    Args:
        run: a finished run.
        folder: must not be there yet, or be empty.
        adapter: write the adapters alone.
        data_set: the data set's name on the hub, to which the card links.
        repository: what the model is called on the hub, where it is uploaded.
        extra: writes further files beside the model.

    Returns:
        The files written, with their sizes in bytes.

    Raises:
        MinilimaError: the folder holds something, or the run has no such model.
    """
    entry = run.model
    if adapter and not (entry / ADAPTER).is_dir():
        raise MinilimaError(f"{run.name} has no adapters of its own.", *_why_no_adapters(run))
    with new_folder(folder) as aside:
        for file in sorted((entry / ADAPTER if adapter else entry).iterdir()):
            if file.is_file() and file.name not in _NOT_THE_MODEL:
                shutil.copyfile(file, aside / file.name)
        if adapter:
            _name_base(aside / "adapter_config.json", _hub_name(run))
            for file in sorted(entry.glob("*token*")) + sorted(entry.glob("chat_template*")):
                shutil.copyfile(file, aside / file.name)
        write_atomic(aside / "README.md", model_card(facts_of(run, adapter, data_set, repository)))
        if extra is not None:
            extra(aside)
    return sizes(folder)


def _hub_name(run: OpenedRun) -> str:
    """What others find the base model under on the hub; empty where it is a folder of this machine."""
    base = run.base
    if base.kind == "hub":
        return base.name
    return PACKAGED[base.name].hub if base.kind == "packaged" and base.name in PACKAGED else ""


def _name_base(file: Path, name: str) -> None:
    """Puts a name that others can load into the adapters' configuration, in place of an entry of this store."""
    if name:
        config = json.loads(file.read_text(encoding="utf-8"))
        write_atomic(file, json.dumps({**config, "base_model_name_or_path": name}, indent=2) + "\n")


def _why_no_adapters(run: OpenedRun) -> tuple[str, str]:
    if run.settings.get("sft.method") != "lora":
        return "It was trained with sft=full, which changes all weights.", "Leave out --adapter, or train with sft=lora."
    return (
        "It was made by a version that kept only the merged model.",
        "Leave out --adapter, or train again with another seed=….",
    )


def facts_of(run: OpenedRun, adapter: bool, data_set: str | None, repository: str | None) -> ModelFacts:
    """What the model's card is made from; the arguments are those of `export_tuned`."""
    licence = licence_of(run.base)
    base, setting, manifests = run.base, run.settings.get, run.manifests
    judge_name = setting("judge.model") or setting("judge.annotators_config") or setting("judge.kind")
    sampling = {name: setting(f"eval.{name}") for name in ("temperature", "top_p", "repetition_penalty", "max_tokens")}
    return ModelFacts(
        name=run.name,
        base_hub=_hub_name(run),
        packaged=base.kind == "packaged",
        base_name=base.name,
        base_revision=base.location.partition("@")[2] if base.kind == "hub" else "",
        licence=licence,
        adapter=adapter,
        manifests=manifests,
        results=run.record["results"],
        benchmarks=[BenchmarkChange.from_json(change) for change in run.record.get("benchmarks", ())],
        judge=run.record["judge"],
        judge_name=str(judge_name),
        origin=origin_of(run.settings, run.record.get("sources", []), base.name, licence),
        made_by=made_by(run.settings, run.record.get("sources", [])),
        data_set=data_set,
        sampling={name: value for name, value in sampling.items() if value is not None},
        command=manifests["model"]["command"],
        context=context_tokens(read_config(run.model)),
        repository=repository,
    )
