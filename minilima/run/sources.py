"""Where external things come from, and what identifies them: packaged files, files of the user's, models, the hub.

`resolve` turns the names in a config into `Sources`: paths for the stages to read, and identities (content hashes and
commits) for the keys. What cannot be reached now is marked `unresolved`, so that a plan can still be shown.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from minilima.config.choices import BEGINS_WITH_TASKS, DataKind, GeneratorKind, JudgeKind, Pick
from minilima.config.schema import Config, DataConfig, EvalSetConfig, GeneratorConfig, JudgeConfig
from minilima.config.several import sets_of
from minilima.errors import MinilimaError, options
from minilima.formats.alpaca_judges import find_annotators, read_annotators
from minilima.formats.eval_sets import eval_set_identity
from minilima.formats.files import DATA, canonical_json, sha256_file, sha256_text
from minilima.formats.llamafactory import import_identity, locate, split_name
from minilima.formats.shards import is_there
from minilima.formats.tables import table_identity
from minilima.generate.selection_methods import METHODS
from minilima.models import hub
from minilima.models.fingerprint import fingerprint_directory
from minilima.models.hub_splits import find_split
from minilima.models.packaged import PACKAGED
from minilima.store.sources import FileSource, ModelSource, Sources, answers_beside


def resolve(config: Config) -> Sources:
    """Finds and identifies every external source.

    Raises:
        MinilimaError: a file or folder that was named does not exist, or nothing was named.
    """
    data = config.data
    generates = data.kind != DataKind.file
    named = (data.path or data.hub or data.hub_file) is not None
    reads_file = data.kind in (DataKind.file, DataKind.backtranslate) or (data.kind in BEGINS_WITH_TASKS and named)
    reads_seeds = config.dataset.include_seeds or (generates and not reads_file)
    base = model_source(config.model.packaged, config.model.hub, config.model.path, config.model.revision)
    # It also rates and tags the rows of a file.
    asked = generates or METHODS[config.dataset.select].replies
    own_generator = config.generator.model if config.generator.kind == GeneratorKind.local and asked else None
    others = [one for one in sets_of(config).values() if one.eval_set != config.eval_set]
    return Sources(
        seeds=_seeds(config) if reads_seeds else None,
        data=_imported(config) if reads_file else None,
        base=base,
        generator=_named_model(own_generator),
        dev_set=_dev_set(config) if config.epoch.select != Pick.last else None,
        other_sets=tuple(_eval_set(one) for one in others),
        scorer=_scorer(config, base),
        targets=_targets(config) if METHODS[config.dataset.select].targets else None,
        **set_sources(config),
        **judge_sources(config.judge),
    )


def set_sources(config: Config) -> dict[str, Any]:
    """What is read of the outside for one evaluation set: its prompts, and the answers to them that are judged against."""
    return {"eval_set": _eval_set(config), "reference": _reference(config)}


def judge_sources(judge: JudgeConfig) -> dict[str, Any]:
    """What one judge reads of the outside: its weights, the annotators of alpaca_eval, a rubric."""
    foreign = judge.kind == JudgeKind.alpaca_eval
    return {
        "judge": _named_model(judge.model if judge.kind == JudgeKind.local else None),
        "annotators": _annotators(judge.annotators_config) if foreign else None,
        "rubric": _rubric(judge),
    }


def _rubric(judge: JudgeConfig) -> FileSource | None:
    """What each rating means, for a judge that goes by a rubric."""
    if judge.kind not in (JudgeKind.openai, JudgeKind.local) or judge.prompt != "rubric":
        return None
    path = Path(judge.rubric).expanduser() if judge.rubric is not None else DATA / "rubric.txt"
    if not path.is_file():
        raise MinilimaError(
            f"There is no file {judge.rubric}.",
            f"judge.rubric names it; paths count from {Path.cwd()}.",
            "Correct judge.rubric=…",
        )
    return FileSource(name=path.stem, path=path.resolve(), sha256=sha256_file(path))


def _scorer(config: Config, base: ModelSource) -> ModelSource | None:
    """The weights that score examples; None where nothing is scored, or where a model at an endpoint does it."""
    method, name = METHODS[config.dataset.select], config.dataset.scorer
    if not method.scores:
        return None
    if name is None and method.ratings and config.generator.kind == GeneratorKind.local:
        name = "generator"  # a rating is asked for in words, which the base model seldom follows
    if name not in ("generator", "judge"):
        return base if name in (None, "base") else _named_model(name)
    named: GeneratorConfig | JudgeConfig = config.generator if name == "generator" else config.judge
    if named.kind in (GeneratorKind.local, JudgeKind.local):
        return _named_model(named.model) or base
    if named.kind in (GeneratorKind.openai, JudgeKind.openai) and method.ratings:
        return None
    raise MinilimaError(
        f"dataset.scorer={name} cannot score for dataset.select={config.dataset.select}.",
        f"{name}={named.kind} is no model on this machine whose losses or states can be read"
        + (", and none that rates." if method.ratings else "."),
        "Leave dataset.scorer out (the base model scores), or name a packaged model, a folder or a hub name.",
    )


def _targets(config: Config) -> FileSource:
    """The tasks towards which examples are chosen: a packaged set, or a file."""
    why = "Examples chosen by the prompts on which the model is evaluated make it look better than it is."
    return _prompts_to_choose_by(config, "dataset.targets", config.dataset.targets, why)


def _prompts_to_choose_by(config: Config, setting: str, name: str, why: str) -> FileSource:
    """A packaged set or a file of prompts, which must not be the evaluation set; `why` says what would be wrong with that."""
    packaged = (DATA / f"{name}.jsonl").is_file()
    source = _packaged_file(setting, name) if packaged else _as_prompts(_local_file(setting, name))
    if source.sha256 == _eval_set(config).sha256:
        raise MinilimaError(
            f"{setting}={name} is the evaluation set.", why, "Leave it out: minilima_dev_50 was written for this."
        )
    return source


def _reference(config: Config) -> FileSource | None:
    """The answers to be judged against: the set's own, a file, or those of another run's tuned model."""
    value = config.eval.reference
    if value is None:
        return None
    if value == "own":
        return _eval_set(config)
    folder = Path(value).expanduser()
    if not folder.is_dir():
        source = _local_file("eval.reference", value)
        return _answers(source.name, source.path) if source.path is not None else source
    try:
        stages = json.loads((folder / "run.json").read_text(encoding="utf-8"))["stages"]
        entry = {stage["role"]: stage["path"] for stage in stages}["answers"]
        path = (folder / entry / "model_outputs.json").resolve(strict=True)
    except (OSError, ValueError, KeyError, TypeError):
        raise MinilimaError(
            f"{value} holds no answers of a finished run.",
            "eval.reference names a run's folder: run.json must list its answers, and they must still be in the store.",
            "Run that experiment again, or name another folder or a model_outputs.json.",
        ) from None
    return _answers(folder.resolve().name, path)


def _answers(name: str, outputs: Path) -> FileSource:
    """A model_outputs.json; the hash covers answers.jsonl beside it, where our own store has it: it records which were cut."""
    own, sha256 = answers_beside(outputs), sha256_file(outputs)
    return FileSource(name=name, path=outputs, sha256=sha256_text(sha256 + sha256_file(own)) if own is not None else sha256)


def _dev_set(config: Config) -> FileSource:
    """The prompts by which an epoch is chosen: a packaged set, or a file."""
    why = "A model chosen by the prompts on which it is evaluated looks better than it is."
    return _prompts_to_choose_by(config, "epoch.dev_set", config.epoch.dev_set, why)


def _seeds(config: Config) -> FileSource:
    if config.seeds.path is not None or config.seeds.packaged is None:
        return _local_file("seeds.path", config.seeds.path)
    return _packaged_file("seeds.packaged", config.seeds.packaged)


def _eval_set(config: Config) -> FileSource:
    chosen = config.eval_set
    if chosen.path is None and (source := _on_the_hub("eval_set", chosen)) is not None:
        return _as_prompts(source)
    if chosen.path is not None or chosen.packaged is None:
        return _as_prompts(_local_file("eval_set.path", chosen.path))
    return _packaged_file("eval_set.packaged", str(chosen.packaged))


def _as_prompts(source: FileSource) -> FileSource:
    return source if source.path is None else replace(source, sha256=eval_set_identity(source.path))


def _annotators(name: str | None) -> FileSource:
    """The annotators of the alpaca-eval package: the hash covers their settings and the texts of their prompts."""
    file = find_annotators(name)
    return FileSource(name=str(name), path=file, sha256=sha256_text(canonical_json(read_annotators(file))))


def _packaged_file(setting: str, name: str) -> FileSource:
    path = DATA / f"{name}.jsonl"
    if not path.is_file():
        known = options(file.stem for file in DATA.glob("*.jsonl"))
        raise MinilimaError(f"{setting}={name} does not exist.", f"Packaged are: {known}.", "Choose one of them.")
    return FileSource(name=name, path=path, sha256=sha256_file(path))


def _local_file(setting: str, value: str | None) -> FileSource:
    if value is None:
        raise MinilimaError(f"{setting} is not set.", "The chosen option needs a file of yours.", f"Add {setting}=/your/file.")
    path = Path(value).expanduser()
    if not is_there(path):
        raise MinilimaError(
            f"There is no file {value}.", f"{setting} names it; paths count from {Path.cwd()}.", f"Correct {setting}=…"
        )
    name = path.stem if path.exists() else f"{path.parent.name}/{path.name}"
    return FileSource(name=name, path=path.resolve(), sha256=table_identity(path))


def _imported(config: Config) -> FileSource:
    """The file of data.path (itself, or an entry of a dataset_info.json that says how it is imported) or of the hub."""
    value = config.data.path
    if value is None and (source := _on_the_hub("data", config.data)) is not None:
        return source
    named = split_name(value or "") if config.data.kind == DataKind.file else None
    if named is None:
        return _local_file("data.path", value)
    _local_file("data.path", named[0])
    # Links are not followed: the data file lies beside the link (the hub's cache keeps links to files of other names).
    listing = Path(named[0]).expanduser().absolute()
    path, entry, layout = locate(listing, named[1])
    return FileSource(name=entry, path=path, sha256=import_identity(path, layout), listing=f"{listing}:{entry}")


def _on_the_hub(section: str, chosen: DataConfig | EvalSetConfig) -> FileSource | None:
    """The split, or else the file, of a data set on the hub that a section names; None where it names none."""
    if chosen.hub is not None:
        if (split := find_split(f"{section}.hub", chosen.hub, chosen.revision)) is not None:
            pinned = f"{split.name}@{split.commit}"
            return FileSource(name=split.name, path=split.path, sha256=sha256_file(split.path), hub=pinned)
        missing = f"the split {chosen.hub} of a data set on the hub (revision {chosen.revision})"
        return FileSource(name=chosen.hub, path=None, sha256=f"unresolved:{chosen.hub}@{chosen.revision}", missing=missing)
    if chosen.hub_file is None:
        return None
    repository, _, filename = chosen.hub_file.partition(":")
    if (path := hub.find_file(f"{section}.hub_file", repository, filename, chosen.revision)) is not None:
        return FileSource(name=path.stem, path=path, sha256=sha256_file(path))
    missing = f"the file {filename} of the hub's data set {repository}"
    return FileSource(name=Path(filename).stem, path=None, sha256=f"unresolved:{chosen.hub_file}", missing=missing)


def model_source(packaged: str | None, hub: str | None, path: str | None, revision: str) -> ModelSource:
    """Identifies a model; `path` wins over `hub`, `hub` over `packaged`."""
    if path is not None:
        folder = Path(path).expanduser()
        if not (folder / "config.json").is_file():
            raise MinilimaError(
                f"There is no model in {path}.",
                "A model folder holds config.json, *.safetensors and the tokenizer's files.",
                "Correct the path, or use model=smollm2_135m.",
            )
        return ModelSource(kind="path", location=str(folder.resolve()), identity=fingerprint_directory(folder))
    if hub is not None:
        return _hub_model(hub, revision)
    if packaged is None:
        raise MinilimaError("No model is set.", "model.packaged, model.hub and model.path are all empty.", "Set one of them.")
    if packaged not in PACKAGED:
        raise MinilimaError(
            f"There is no packaged model {packaged!r}.", f"There are: {options(PACKAGED)}.", "Or use model.path=… or model.hub=…"
        )
    files = PACKAGED[packaged].files
    return ModelSource(kind="packaged", location=packaged, identity=sha256_text(canonical_json(files)))


def _named_model(name: str | None) -> ModelSource | None:
    """A generator's or judge's own model, given by one name: a packaged model, a folder, or a hub name."""
    if name is None:
        return None
    if name in PACKAGED:
        return model_source(name, None, None, "main")
    if Path(name).expanduser().is_dir():
        return model_source(None, None, name, "main")
    return _hub_model(name, "main")


def _hub_model(name: str, revision: str) -> ModelSource:
    if (commit := hub.find_commit(name, revision)) is None:
        missing = f"the model {name} on the hub (its revision {revision} could not be looked up)"
        return ModelSource(kind="hub", location=name, identity=f"unresolved:{name}@{revision}", missing=missing)
    return ModelSource(kind="hub", location=f"{name}@{commit}", identity=commit)
