"""The data set: which examples of the pool and of the seeds are trained on, in which form."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from minilima.config.choices import DataKind, GeneratorKind, Select, Until
from minilima.config.schema import Config, GeneratorConfig, JudgeConfig
from minilima.errors import MinilimaError
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.records import Example, OnProgress
from minilima.generate.import_pool import reading
from minilima.generate.selection_methods import METHODS
from minilima.run.requests import CHARACTERS_A_TOKEN, TEMPLATE_TOKENS, Requests, mean, priced, seed_tasks
from minilima.run.spec import Manifest, Manifests, Spec, Work, work
from minilima.run.stages.pool import given_tasks, imported, most_examples, tokenizer_key, writer
from minilima.store.job import Job, Outcome
from minilima.store.sources import FileSource, Sources

_CHARACTERS_A_WORD = 6
_RATING_TOKENS = 2
_LESS_PASSES = 4
"""Passes of less where dataset.warmup_epochs does not say."""
_SCORING = 1
"""Raised by hand when the same model comes to other scores."""


def rates_here(config: Config) -> bool:
    """Whether a generator on this machine rates or tags the examples."""
    return bool(METHODS[config.dataset.select].replies) and config.generator.kind == GeneratorKind.local


def _recipe(config: Config, sources: Sources) -> dict[str, Any]:
    data, dataset = config.data, config.dataset
    return {
        "size": dataset.size,
        "include_seeds": dataset.include_seeds,
        "max_seeds": dataset.max_seeds if dataset.include_seeds else None,
        "max_similarity": data.max_similarity,
        "near_duplicates": dataset.max_similarity,
        "tokenizer": tokenizer_key(config),
        "encoding": dataset.encoding,
        "min_output_words": dataset.min_output_words,
        "max_output_words": dataset.max_output_words,
        "select": dataset.select,
        "topics": dataset.topics if dataset.select == Select.stratified else None,
        "rated_by": writer(config, sources) if METHODS[dataset.select].replies else None,
        "scoring": _scoring(config, sources),
        "seed": config.seed,
        "seeds": sources.seeds.sha256 if sources.seeds is not None and dataset.include_seeds else None,
        "decontaminate": sources.evaluated_on if dataset.decontaminate else None,
    }


def _scoring(config: Config, sources: Sources) -> dict[str, Any] | None:
    """All that can change the scores of dataset.scorer; None where it scores nothing."""
    dataset, method = config.dataset, METHODS[config.dataset.select]
    if not method.scores:
        return None
    warms = method.gradients or (dataset.select == Select.ifd and dataset.warmup_examples)
    warmup = {name: getattr(dataset, f"warmup_{name}") for name in ("examples", "epochs", "learning_rate")}
    return {
        "version": _SCORING,
        "scorer": sources.scorer.recipe() if sources.scorer is not None else _served(config).model,
        "targets": sources.targets.sha256 if sources.targets is not None else None,
        # Targets are refused for one evaluation set and not for another.
        "evaluated_on": sources.evaluated_on if sources.targets is not None else None,
        "perplexity": dataset.perplexity if dataset.select == Select.perplexity else None,
        "thinking": config.model.thinking,
        "warmup": warmup if warms else None,
    }


def _served(config: Config) -> GeneratorConfig | JudgeConfig:
    """The model at an endpoint that dataset.scorer names."""
    return config.judge if config.dataset.scorer == "judge" else config.generator


def _describe(config: Config, sources: Sources) -> str:
    size = f"{config.dataset.size:,} examples" if config.dataset.size else "all examples that pass the filters"
    if (most := _most(config, sources)) is not None and config.dataset.size and most < config.dataset.size:
        size = f"at most {most:,} (not {config.dataset.size:,}) examples"
    most_seeds = config.dataset.max_seeds
    some = "seeds" if most_seeds is None else f"at most {most_seeds:,} seed{'' if most_seeds == 1 else 's'}"
    seeds = f", {some} among them" if config.dataset.include_seeds else ""
    return size + seeds + _cost_text(config, sources)


def _most(config: Config, sources: Sources) -> int | None:
    """Examples that there can be before filters; None where the pool's rows are not at hand."""
    if (pool := most_examples(config, sources)) is None:
        return None
    seeds = sources.seeds if config.dataset.include_seeds else None
    if seeds is None:
        return pool
    with suppress(MinilimaError):  # the pool's check says what is wrong
        return pool + _number_of_seeds(config, seeds) if seeds.path is not None else None
    return None


def _number_of_seeds(config: Config, source: FileSource) -> int:
    """Seed tasks that can be examples."""
    number, most = len(seed_tasks(source.local_path)), config.dataset.max_seeds
    return number if most is None else min(number, most)


def _examples_of(config: Config, sources: Sources) -> int | None:
    most, size = _most(config, sources), config.dataset.size
    return min(most, size) if most is not None and size is not None else most if size is None else size


def _is_short(config: Config, sources: Sources) -> int | None:
    """The most examples that there can be, where that is fewer than dataset.size."""
    most, size = _most(config, sources), config.dataset.size
    return most if most is not None and size is not None and most < size else None


def _warnings(config: Config, sources: Sources) -> tuple[str, ...]:
    if (most := _is_short(config, sources)) is None:
        return ()
    return (f"dataset.size={config.dataset.size}, and there are at most {most:,} examples before the filters.",)


def _accept(manifest: Manifest, others: Callable[[], Manifests]) -> None:
    """Of two sizes above what there is, the model would be trained twice on the same rows: the larger one is refused."""
    metrics = manifest["metrics"]
    wanted, there = metrics.get("wanted"), metrics["examples"]
    if wanted is None or there >= wanted:
        return
    for other in others().values():
        if other["stage"] != "dataset" or _but_for_size(other) != _but_for_size(manifest):
            continue
        size = other["recipe"].get("size")
        if other["files"]["dataset.jsonl"] == manifest["files"]["dataset.jsonl"] and (size is None or size < wanted):
            raise MinilimaError(
                f"dataset.size={wanted} gives the same {there:,} examples as dataset.size={'null' if size is None else size}.",
                "No more passed the filters, so the model would be trained twice on the same rows.",
                "Leave this size out, or make a larger pool: data.instructions=…, a longer file, looser filters.",
            )


def _but_for_size(manifest: Manifest) -> tuple[Any, Any]:
    recipe = manifest["recipe"]
    return {name: value for name, value in recipe.items() if name != "size"}, manifest["inputs"]


def _cost_text(config: Config, sources: Sources) -> str:
    """What the method asks of models, where it asks anything."""
    select, method = config.dataset.select, METHODS[config.dataset.select]
    lengths = _lengths(config, sources)
    rows = f" over {len(lengths):,} rows, {_tokens(lengths):,} tokens" if lengths else ""
    if method.gradients:
        warmup = config.dataset.warmup_epochs or _LESS_PASSES
        return f"; {select}: adapters of the scorer trained, gradients after each of {warmup} passes{rows}"
    if not method.scores:
        return f"; {select}: a reply for each{rows}" if method.replies else ""
    passes = method.passes + method.ratings
    how = f"{_passes(passes)} of the scorer" if sources.scorer is not None else f"{method.ratings} ratings of each"
    return f"; {select}: {how}{rows}"


def _passes(number: int) -> str:
    return "1 forward pass" if number == 1 else f"{number} forward passes"


def _tokens(lengths: Sequence[int]) -> int:
    return sum(math.ceil(length / CHARACTERS_A_TOKEN) for length in lengths)


def _outcome(metrics: Mapping[str, Any]) -> str:
    wanted = metrics.get("wanted") or 0
    lacking = f", fewer than dataset.size={wanted}" if metrics["examples"] < wanted else ""
    return (
        f"{metrics['examples']:,} examples ({metrics['seed']:,} seeds, {metrics['examples'] - metrics['seed']:,} other){lacking}"
    )


def _build(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.generate.dataset import build_dataset

    return build_dataset(job, on_progress)


def _asks(config: Config, sources: Sources) -> str | None:
    method = METHODS[config.dataset.select]
    if method.ratings and sources.scorer is None:
        return "judge" if config.dataset.scorer == "judge" else "generator"
    return "generator" if method.replies and not rates_here(config) else None


def _requests(config: Config, sources: Sources) -> Requests | None:
    asked = _asks(config, sources)
    if asked is None or not (lengths := _lengths(config, sources)):
        return None
    method = METHODS[config.dataset.select]
    times = method.ratings or method.replies
    prompt = _tokens(lengths) + TEMPLATE_TOKENS * len(lengths)
    guess = (times * len(lengths), times * prompt, times * len(lengths) * (1 if method.ratings else _RATING_TOKENS))
    if asked == "judge":
        return priced(guess, config.judge.model, config.endpoints.judge)
    return priced(guess, config.generator.model, config.endpoints.generator)


def _lengths(config: Config, sources: Sources) -> list[int]:
    """Characters of each example that may be chosen, by guess before the pool is there; empty where nothing is known."""
    data = config.data
    if data.kind == DataKind.file:
        characters = [len(example.instruction) + len(example.output) for example in _examples(config, sources.data)]
    else:
        tasks = given_tasks(config, sources) or []
        each = mean([sum(map(len, task)) for task in tasks]) + (data.answer_words or 0) * _CHARACTERS_A_WORD
        given = data.kind in (DataKind.answers, DataKind.backtranslate)
        answers = len(tasks) if given else data.instructions * data.instances_per_task
        characters = [round(each)] * answers
    if config.dataset.include_seeds and sources.seeds is not None and sources.seeds.path is not None:
        tasks_of_seeds = seed_tasks(sources.seeds.path)[: config.dataset.max_seeds]
        characters += [len(task.instruction) + len(task.input) + len(task.output) for task in tasks_of_seeds]
    return characters


def _examples(config: Config, source: FileSource | None) -> list[Example]:
    return [] if source is None or source.path is None else imported(source, reading(config.data)).examples


def _planned(config: Config, sources: Sources, inputs: Manifests) -> Work | None:
    method = METHODS[config.dataset.select]
    if sources.scorer is None:
        return work(1, "dataset")
    passes = config.dataset.warmup_epochs or _LESS_PASSES if method.gradients else method.passes + method.ratings
    return work(passes * _tokens(_lengths(config, sources)), "scoring", method.gradients, sources.scorer.recipe())


def _finished(manifest: Manifest, inputs: Manifests) -> Work | None:
    scoring = manifest["recipe"].get("scoring")
    if scoring is None:
        return work(1, "dataset")
    gradients = METHODS[Select(manifest["recipe"]["select"])].gradients
    return work(manifest["metrics"].get("scored_tokens"), "scoring", gradients, scoring["scorer"])


def _check(config: Config, sources: Sources) -> None:
    """A file has at least dataset.size rows; and targets are not what the model is evaluated on."""
    imports = config.data.kind == DataKind.file and sources.data is not None
    if imports and sources.data is not None and (most := _is_short(config, sources)) is not None:
        there = "is only 1 example" if most == 1 else f"are only {most:,} examples"
        raise MinilimaError(
            f"dataset.size={config.dataset.size}, and there {there}.",
            f"{sources.data.name} has no more rows{' (the seeds are counted)' if config.dataset.include_seeds else ''}; another "
            "size would be trained on the same ones.",
            f"Use dataset.size={most}, or dataset.size=null for all that pass the filters.",
        )
    _check_targets(config, sources)


def _check_targets(config: Config, sources: Sources) -> None:
    """Targets that the model is evaluated on would choose the examples that answer the evaluation."""
    if sources.targets is None or sources.targets.path is None:
        return
    from minilima.rouge import RougeIndex  # brings numpy, which no other plan needs

    targets = load_eval_set(sources.targets.path, None)
    if not any(target.output for target in targets):
        raise MinilimaError(
            f"No task of dataset.targets={config.dataset.targets} has an answer.",
            f"dataset.select={config.dataset.select} compares examples with tasks and their answers.",
            'A line looks like: {"instruction": "…", "output": "…"}',
        )
    index = RougeIndex(config.data.tokenizer)
    for asked in sources.all_sets:
        for prompt in load_eval_set(asked.path, None) if asked.path is not None else ():
            index.add(prompt.id, prompt.instruction)
    limit = config.data.max_similarity
    for target, near in zip(targets, index.nearest_above([each.instruction for each in targets], limit), strict=True):
        if near is not None:
            raise MinilimaError(
                f"Task {target.id} of dataset.targets={config.dataset.targets} is a prompt of the evaluation set, or nearly so.",
                f"Its ROUGE-L with prompt {near[0]} is {near[1]:.2f}, above data.max_similarity={limit:g}: examples would be "
                "chosen by what the model is evaluated on.",
                "Take that task out of the targets, or evaluate on another set.",
            )


DATASET = Spec(
    kind="dataset",
    stage="dataset",
    version=2,
    until=Until.dataset,
    recipe=_recipe,
    describe=_describe,
    outcome=_outcome,
    build=_build,
    check=_check,
    warnings=_warnings,
    accept=_accept,
    examples=_examples_of,
    counted=("examples",),
    asks=_asks,
    requests=_requests,
    planned_work=_planned,
    finished_work=_finished,
    uses_gpu=lambda config, sources: rates_here(config) or sources.scorer is not None,
)
