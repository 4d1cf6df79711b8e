"""Answers to the evaluation prompts: the tuned model's, and what they are judged against: the base model's, or others'."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilima.config.choices import Until
from minilima.config.schema import Config
from minilima.formats.eval_sets import load_eval_set, read_references
from minilima.formats.records import OnProgress
from minilima.run.dry_run import check_base
from minilima.run.requests import count_prompts
from minilima.run.spec import Manifest, Manifests, Spec, Work, work
from minilima.store.job import Job, Outcome
from minilima.store.sources import Sources


def sampling(config: Config) -> dict[str, Any]:
    """How answers are sampled, wherever they are."""
    settings = {name: value for name, value in vars(config.eval).items() if name != "reference"}
    return {**settings, "thinking": config.model.thinking}


def prompts(config: Config, sources: Sources) -> dict[str, Any]:
    """Which prompts are answered."""
    return {"eval_set": sources.eval_set.sha256, "size": config.eval_set.size}


def _recipe(config: Config, sources: Sources) -> dict[str, Any]:
    return {**prompts(config, sources), **sampling(config), "seed": config.seed}


def _recipe_of_base(config: Config, sources: Sources) -> dict[str, Any]:
    return {**_recipe(config, sources), "model": sources.base.recipe()}


def _recipe_of_others(config: Config, sources: Sources) -> dict[str, Any]:
    assert sources.reference is not None, "resolved where other answers are named"
    return {**prompts(config, sources), "reference": sources.reference.sha256, "model": sources.base.recipe(),
            "thinking": config.model.thinking}  # fmt: skip


def _describe_as(who: str, config: Config, sources: Sources) -> str:
    return f"the {who} model on {_which(config, sources)}{sources.eval_set.name}, up to {config.eval.max_tokens:,} tokens each"


def _which(config: Config, sources: Sources) -> str:
    """Which prompts of the set; how many there are, where that is fewer than asked for."""
    size = config.eval_set.size
    there = count_prompts(sources.eval_set, size)
    if size and there and there < size:
        return f"all {there:,} (not {size:,}) prompts of "
    return f"the first {size} of " if size else ""


def _describe_others(config: Config, sources: Sources) -> str:
    assert sources.reference is not None, "resolved where other answers are named"
    return f"the answers in {sources.reference.name}, and the base model's loss on those of {sources.eval_set.name}"


def _outcome(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['answers']:,} answers, {metrics['mean_words']:.0f} words each, {metrics['truncated']:,} cut"


def _build(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.evaluate.answers import build_answers

    return build_answers(job, on_progress)


def _build_of_base(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.evaluate.answers import build_base_answers

    return build_base_answers(job, on_progress)


def _build_of_others(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.evaluate.answers import build_references

    return build_references(job, on_progress)


def _check(config: Config, sources: Sources) -> None:
    if sources.eval_set.path is not None:
        load_eval_set(sources.eval_set.local_path, config.eval_set.size)


def _try_out(config: Config, sources: Sources) -> None:
    check_base(config, sources)


def _warnings(config: Config, sources: Sources) -> tuple[str, ...]:
    there, size = _examples(config, sources), config.eval_set.size
    if size is None or there is None or there >= size:
        return ()
    return (f"eval_set.size={size}, and {sources.eval_set.name} has only {there:,} prompts: all of them are answered.",)


def _examples(config: Config, sources: Sources) -> int | None:
    return count_prompts(sources.eval_set, config.eval_set.size)


def _check_others(config: Config, sources: Sources) -> None:
    _check(config, sources)
    if sources.reference is not None and sources.eval_set.path is not None:
        asked = load_eval_set(sources.eval_set.local_path, config.eval_set.size)
        read_references(sources.reference.local_path, sources.reference.name, asked)


def _planned(config: Config, sources: Sources, inputs: Manifests) -> Work | None:
    number = count_prompts(sources.eval_set, config.eval_set.size)
    return work(number * config.eval.max_tokens if number else None, "answers", sources.base.recipe())


def _finished(manifest: Manifest, inputs: Manifests) -> Work | None:
    asked = manifest["recipe"]
    trained = inputs.get("model", {}).get("recipe", {})
    return work(manifest["metrics"]["answers"] * asked["max_tokens"], "answers", asked.get("model") or trained.get("base"))


ANSWERS = Spec(
    kind="answers",
    stage="answers",
    version=2,
    until=Until.answers,
    recipe=_recipe,
    describe=lambda config, sources: _describe_as("tuned", config, sources),
    outcome=_outcome,
    build=_build,
    check=_check,
    try_out=_try_out,
    warnings=_warnings,
    examples=_examples,
    counted=("answers",),
    planned_work=_planned,
    finished_work=_finished,
    files=("eval_set",),
)
BASE_ANSWERS = replace(
    ANSWERS,
    kind="base_answers",
    recipe=_recipe_of_base,
    build=_build_of_base,
    describe=lambda config, sources: _describe_as("base", config, sources),
)
REFERENCES = replace(
    ANSWERS,
    kind="other_answers",
    stage="references",
    build=_build_of_others,
    version=1,
    recipe=_recipe_of_others,
    describe=_describe_others,
    check=_check_others,
    planned_work=lambda config, sources, inputs: work(1, "references"),
    finished_work=lambda manifest, inputs: work(1, "references"),
    files=("eval_set", "reference"),
)
