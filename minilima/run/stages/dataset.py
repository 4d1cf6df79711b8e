"""The data set: which examples of the pool and of the seeds are trained on, in which form."""

import math
from collections.abc import Mapping
from typing import Any

from minilima.config.choices import DataKind, GeneratorKind, Select, Until
from minilima.config.schema import Config
from minilima.formats.records import Example, OnProgress
from minilima.generate.import_pool import reading
from minilima.run.requests import CHARACTERS_A_TOKEN, TEMPLATE_TOKENS, Guess, Requests, mean, priced, seed_tasks
from minilima.run.spec import Manifest, Manifests, Spec, Work, work
from minilima.run.stages.pool import given_tasks, imported, tokenizer_key, writer
from minilima.store.job import Job, Outcome
from minilima.store.sources import FileSource, Sources

_CHARACTERS_A_WORD = 6
_RATING_TOKENS = 2


def rates_here(config: Config) -> bool:
    """Whether a model on this machine rates the examples."""
    return config.dataset.select == Select.quality and config.generator.kind == GeneratorKind.local


def _recipe(config: Config, sources: Sources) -> dict[str, Any]:
    data, dataset = config.data, config.dataset
    return {
        "size": dataset.size,
        "include_seeds": dataset.include_seeds,
        "max_similarity": data.max_similarity,
        "near_duplicates": dataset.max_similarity,
        "tokenizer": tokenizer_key(config),
        "encoding": dataset.encoding,
        "min_output_words": dataset.min_output_words,
        "max_output_words": dataset.max_output_words,
        "select": dataset.select,
        "topics": dataset.topics if dataset.select == Select.stratified else None,
        "rated_by": writer(config, sources) if dataset.select == Select.quality else None,
        "seed": config.seed,
        "seeds": sources.seeds.sha256 if sources.seeds is not None and dataset.include_seeds else None,
        "decontaminate": sources.eval_set.sha256 if dataset.decontaminate else None,
    }


def _describe(config: Config, sources: Sources) -> str:
    size = f"{config.dataset.size:,} examples" if config.dataset.size else "all examples that pass the filters"
    return size + (", seeds among them" if config.dataset.include_seeds else "")


def _outcome(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['examples']:,} examples ({metrics['seed']:,} seeds, {metrics['examples'] - metrics['seed']:,} other)"


def _build(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.generate.dataset import build_dataset

    return build_dataset(job, on_progress)


def _asks(config: Config, sources: Sources) -> str | None:
    return "generator" if config.dataset.select == Select.quality and not rates_here(config) else None


def _requests(config: Config, sources: Sources) -> Requests | None:
    if _asks(config, sources) is None or (guess := _guess(config, sources)) is None:
        return None
    return priced(guess, config.generator.model, config.endpoints.generator)


def _guess(config: Config, sources: Sources) -> Guess | None:
    """One short reply to each example that may be chosen."""
    data = config.data
    if data.kind == DataKind.file:
        characters = [len(example.instruction) + len(example.output) for example in _examples(config, sources.data)]
    else:
        tasks = given_tasks(config, sources) or []
        each = mean([sum(map(len, task)) for task in tasks]) + (data.answer_words or 0) * _CHARACTERS_A_WORD
        answers = len(tasks) if data.kind == DataKind.answers else data.instructions * data.instances_per_task
        characters = [round(each)] * answers
    if config.dataset.include_seeds and sources.seeds is not None and sources.seeds.path is not None:
        characters += [len(task.instruction) + len(task.input) + len(task.output) for task in seed_tasks(sources.seeds.path)]
    prompt = sum(math.ceil(length / CHARACTERS_A_TOKEN) + TEMPLATE_TOKENS for length in characters)
    return (len(characters), prompt, len(characters) * _RATING_TOKENS) if characters else None


def _examples(config: Config, source: FileSource | None) -> list[Example]:
    return [] if source is None or source.path is None else imported(source, reading(config.data)).examples


def _planned(config: Config, sources: Sources, inputs: Manifests) -> Work | None:
    return work(1, "dataset")


def _finished(manifest: Manifest, inputs: Manifests) -> Work | None:
    return work(1, "dataset")


DATASET = Spec(
    kind="dataset",
    stage="dataset",
    version=2,
    until=Until.dataset,
    recipe=_recipe,
    describe=_describe,
    outcome=_outcome,
    build=_build,
    asks=_asks,
    requests=_requests,
    planned_work=_planned,
    finished_work=_finished,
    uses_gpu=lambda config, sources: rates_here(config),
)
