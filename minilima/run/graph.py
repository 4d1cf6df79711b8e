"""What enters each stage's key: from a config and its resolved sources to the graph of stages. Pure.

    base ─────────────┬──────────────┬───────────────┐
    seeds ─> pool ─> dataset ─> model ─> answers ─> verdicts
                        │   (epochs ─┘)    │   └─ reference_answers (the base model's)
                        └── eval_set ──────┘
With epoch.select=judge|dev_loss the weights of all epochs are a stage of their own, from which the model is chosen.
Only what changes a result is listed here. GPUs, micro-batches, concurrency, addresses and paths never are.
"""

from dataclasses import dataclass
from typing import Any

from minilima.config.choices import DataKind, GeneratorKind, JudgeKind, Method, Pick, Select, Until
from minilima.config.schema import Config, SftConfig
from minilima.formats.files import canonical_json, sha256_text
from minilima.models.packaged import PACKAGED
from minilima.store.job import Stage
from minilima.store.sources import ModelSource, Sources

# Raised by hand when a stage's code or prompts change what it makes.
VERSIONS = {"base": 1, "pool": 6, "dataset": 2, "epochs": 1, "model": 1, "answers": 2, "references": 1, "verdicts": 1}
IMPORT_READER = 2  # of construct/imports.py alone: generated pools need not be made again when it changes


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The stages of one experiment, in the order in which they run.

    `base` is None for a model that needs no conversion, `epochs` where the last one is taken anyway.
    """

    base: Stage | None
    pool: Stage
    dataset: Stage
    epochs: Stage | None
    model: Stage
    reference_answers: Stage
    answers: Stage
    verdicts: Stage

    def until(self, last: Until) -> list[tuple[str, Stage]]:
        """(role, stage) of everything up to and including `last`; embedded models are converted only where something needs them.

        The one that is trained has the role base; another one that writes or judges is generator_base or judge_base.
        """
        wanted: list[tuple[str, Stage]] = [("pool", self.pool)]
        for name in ("dataset", "epochs", "model", "reference_answers", "answers", "verdicts"):
            stop = {"epochs": Until.model, "reference_answers": Until.answers}.get(name) or Until[name]
            if getattr(self, name) is not None and list(Until).index(stop) <= list(Until).index(last):
                wanted.append((name, getattr(self, name)))
        needed: dict[str, tuple[str, Stage]] = {}
        for name, stage in (item for _, top in wanted for item in top.inputs.items()):
            if stage.name == "base":
                trained = self.base is not None and stage.key == self.base.key
                needed.setdefault(stage.key, ("base" if trained else f"{name}_base", stage))
        return [*needed.values(), *wanted]


def stages(config: Config, sources: Sources) -> Stages:
    """The graph of one experiment."""
    base = _embedded_stage(sources.base)
    pool = _pool(config, sources)
    rater = pool.inputs.get("generator") if config.dataset.select == Select.quality else None
    dataset = _stage("dataset", _dataset_recipe(config, sources), pool=pool, generator=rater)
    own_judge = _embedded_stage(sources.judge) if sources.judge else None
    judge_base = (own_judge or base) if config.judge.kind == JudgeKind.local else None
    epochs = None
    learned = _model_recipe(config, sources)
    model = _stage("model", learned, base=base, dataset=dataset)
    if config.epoch.select != Pick.last:
        epochs = _stage("epochs", learned, base=base, dataset=dataset)
        asks = judge_base if config.epoch.select == Pick.judge else None
        model = _stage("model", _choice_recipe(config, sources), epochs=epochs, dataset=dataset, judge=asks)
    prompts = {"eval_set": sources.eval_set.sha256, "size": config.eval_set.size}
    asked = {**prompts, **_sampling(config), "seed": config.seed}
    reference = _stage("answers", {**asked, "model": sources.base.recipe()}, model=base)
    if sources.reference is not None:
        given = {**prompts, "reference": sources.reference.sha256, "model": sources.base.recipe()}
        reference = _stage("references", given, model=base)
    answers = _stage("answers", asked, model=model)
    judge = judge_recipe(config, sources)
    if config.judge.kind == JudgeKind.reference:
        judge |= {"eval_set": sources.eval_set.sha256, "size": config.eval_set.size}
    verdicts = _stage("verdicts", judge, answers=answers, reference=reference, judge=judge_base)
    return Stages(
        base=base,
        pool=pool,
        dataset=dataset,
        epochs=epochs,
        model=model,
        reference_answers=reference,
        answers=answers,
        verdicts=verdicts,
    )


def _stage(name: str, recipe: dict[str, Any], **inputs: Stage | None) -> Stage:
    given = {role: stage for role, stage in inputs.items() if stage is not None}
    return Stage(name=name, version=VERSIONS[name], recipe=recipe, inputs=given)


def _fields(section: Any, *names: str) -> dict[str, Any]:
    values = vars(section)
    return {name: values[name] for name in names or values}


def _sampling(config: Config) -> dict[str, Any]:
    """How answers are sampled, wherever they are."""
    return {name: value for name, value in _fields(config.eval).items() if name not in ("reference",)}


def _embedded_stage(source: ModelSource) -> Stage | None:
    """The conversion of an embedded model to safetensors; models from the hub or a folder are loaded where they are."""
    if source.kind != "packaged":
        return None
    return _stage("base", {"model": source.location, "files": PACKAGED[source.location].files})


_AS_HASH = ("path", "hub_file")
"""Settings of `data` that enter the pool's key by the content of what they name."""


def _pool(config: Config, sources: Sources) -> Stage:
    file = sources.data.sha256 if sources.data is not None else None
    if config.data.kind == DataKind.file:
        return _stage("pool", {"kind": DataKind.file, "file": file, "reader": IMPORT_READER})
    generator = _fields(config.generator, "kind", "temperature", "top_p", "repetition_penalty", "presence_penalty", "style")
    recipe: dict[str, Any] = {
        **generator,
        **{name: value for name, value in _fields(config.data).items() if name not in _AS_HASH},
        "json_schema": config.generator.json_schema or None,
        "file": file,
        "seeds": sources.seeds.sha256 if sources.seeds is not None else None,
        "seed": config.seed,
    }
    if config.generator.kind == GeneratorKind.openai:
        return _stage("pool", {**recipe, "model": config.generator.model, "budget": _stops(config)})
    source = sources.generator or sources.base
    return _stage("pool", {**recipe, "model": source.recipe()}, generator=_embedded_stage(source))


def _stops(config: Config) -> dict[str, Any] | None:
    """The caps at which new tasks are no longer asked for: with higher ones the pool is another, larger one."""
    if config.data.kind == DataKind.answers:
        return None
    caps = _fields(config.endpoints.generator.budget, "usd", "tokens", "requests")
    return caps if any(cap is not None for cap in caps.values()) else None


def _dataset_recipe(config: Config, sources: Sources) -> dict[str, Any]:
    dataset = config.dataset
    chosen: dict[str, Any] = {"select": dataset.select}
    if dataset.select == Select.stratified:
        chosen["topics"] = dataset.topics
    if dataset.select == Select.quality:
        local = config.generator.kind == GeneratorKind.local
        chosen["rated_by"] = (sources.generator or sources.base).recipe() if local else config.generator.model
    return {
        **_fields(dataset, "size", "include_seeds", "encoding", "min_output_words", "max_output_words"),
        **_fields(config.data, "max_similarity", "tokenizer"),
        **chosen,
        "seed": config.seed,
        "seeds": sources.seeds.sha256 if sources.seeds is not None and dataset.include_seeds else None,
        "decontaminate": sources.eval_set.sha256 if dataset.decontaminate else None,
    }


_ADDED_TO_SFT = ("lora_dora", "weights")
"""Enter the key where they are not the default, so that models made before they existed are still found."""


def _model_recipe(config: Config, sources: Sources) -> dict[str, Any]:
    """What is learned, whichever epoch is chosen in the end."""
    default = SftConfig()
    sft = _fields(config.sft)
    sft |= {name: None for name in _ADDED_TO_SFT if sft[name] == getattr(default, name)}
    if config.sft.method != Method.lora:
        sft = {name: value for name, value in sft.items() if not name.startswith("lora_")}
    return {"base": sources.base.recipe(), "seed": config.seed, **sft}


def _choice_recipe(config: Config, sources: Sources) -> dict[str, Any]:
    """How one of the epochs is chosen; the training itself is an input, so another choice trains nothing anew."""
    assert sources.dev_set is not None, "resolved where an epoch is chosen"
    dev = {"dev_set": sources.dev_set.sha256, "eval_set": sources.eval_set.sha256}
    recipe = {"select": config.epoch.select, **dev, **_fields(config.data, "max_similarity", "tokenizer")}
    if config.epoch.select == Pick.dev_loss:
        return recipe
    judge = {**judge_recipe(config, sources), "min_coverage": config.judge.min_coverage}
    return {**recipe, "judge": judge, "eval": _sampling(config), "seed": config.seed}


def judge_identity(config: Config, sources: Sources) -> str:
    """16 hex digits that name a judge: what of it enters the verdicts' key, without the data. Judge cards are filed under it."""
    return sha256_text(canonical_json({"version": VERSIONS["verdicts"], **judge_recipe(config, sources)}))[:16]


def agreement_stages(config: Config, sources: Sources, pairs: str) -> tuple[Stage | None, Stage, Stage]:
    """What a judge's verdicts on labelled pairs are made of: its base model where that is converted, the pairs, the verdicts.

    Args:
        config: names the judge.
        sources: where it comes from.
        pairs: hash of what the judge sees of the pairs.
    """
    base = _local_judge(config, sources)
    given = Stage(name="pairs", version=1, recipe={"pairs": pairs})
    inputs = {"pairs": given, **({"judge": base} if base else {})}
    recipe = {**judge_recipe(config, sources), "pairs": pairs}
    return base, given, Stage(name="agreement", version=VERSIONS["verdicts"], recipe=recipe, inputs=inputs)


def _local_judge(config: Config, sources: Sources) -> Stage | None:
    """The conversion of the judge's weights, where it is an embedded model."""
    return _embedded_stage(sources.judge or sources.base) if config.judge.kind == JudgeKind.local else None


def judge_recipe(config: Config, sources: Sources) -> dict[str, Any]:
    """All of a judge that can change its verdicts; the data are not part of it."""
    judge = config.judge
    if judge.kind == JudgeKind.reference:
        files = PACKAGED["all_minilm_l6_v2"].files if judge.embedding_weight else None
        return {**_fields(judge, "kind", "embedding_weight", "tie_margin"), "embedding": files}
    model: Any = judge.model
    if judge.kind == JudgeKind.local:
        model = (sources.judge or sources.base).recipe()
    if judge.kind == JudgeKind.alpaca_eval:
        return {"kind": judge.kind, "model": model, "annotators": sources.annotators.sha256 if sources.annotators else None}
    recipe = {**_fields(judge, "kind", "orders"), "model": model}
    if judge.kind == JudgeKind.local and judge.prompt == "choose":
        return recipe
    return {**recipe, **_fields(judge, "prompt", "max_tokens", "temperature", "top_logprobs")}


def run_name(config: Config, graph: Stages) -> str:
    """The name of the run's folder: the same settings always give the same one."""
    return f"{config.name}-{run_key(graph, config.until)}"


def run_key(graph: Stages, last: Until) -> str:
    """Identifies a run by the results it leads to: the same settings always give the same run folder."""
    return sha256_text(canonical_json([stage.key for _, stage in graph.until(last)]))[:8]
