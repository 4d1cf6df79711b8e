"""The model as one of the epochs' weights: the one that a judge prefers, or with the lowest loss, on a dev set."""

from typing import Any

from minilima.config.choices import JudgeKind, Pick, Until
from minilima.config.schema import Config
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.records import OnProgress
from minilima.run.requests import Requests
from minilima.run.spec import Manifest, Manifests, Space, Spec, Work, work
from minilima.run.stages import answers, model, verdicts
from minilima.run.stages.pool import tokenizer_key
from minilima.store.job import Job, Outcome
from minilima.store.sources import Sources


def judged_here(config: Config) -> bool:
    """Whether a model on this machine judges the epochs."""
    return config.epoch.select == Pick.judge and config.judge.kind == JudgeKind.local


def _recipe(config: Config, sources: Sources) -> dict[str, Any]:
    """How one is chosen; the training itself is an input, so that another choice trains nothing again."""
    assert sources.dev_set is not None, "resolved where an epoch is chosen"
    recipe: dict[str, Any] = {
        "select": config.epoch.select,
        "dev_set": sources.dev_set.sha256,
        "eval_set": sources.evaluated_on,
        "max_similarity": config.data.max_similarity,
        "tokenizer": tokenizer_key(config),
    }
    if config.epoch.select == Pick.dev_loss:
        return recipe
    judge = {**verdicts.judge_recipe(config, sources), "min_coverage": config.judge.min_coverage}
    return {**recipe, "judge": judge, "eval": answers.sampling(config), "seed": config.seed}


def _describe(config: Config, sources: Sources) -> str:
    assert sources.dev_set is not None, "resolved where an epoch is chosen"
    how = f"judge {config.judge.kind} prefers" if config.epoch.select == Pick.judge else "has the lowest loss"
    return f"the epoch, of {config.sft.epochs}, that {how} on {sources.dev_set.name}"


def _build(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.evaluate.select_epoch import choose_epoch

    return choose_epoch(job, on_progress)


def _check(config: Config, sources: Sources) -> None:
    if sources.dev_set is not None and sources.dev_set.path is not None:
        load_eval_set(sources.dev_set.local_path, None)


def _asks(config: Config, sources: Sources) -> str | None:
    return verdicts.asks(config, sources) if config.epoch.select == Pick.judge else None


def _requests(config: Config, sources: Sources) -> Requests | None:
    if _asks(config, sources) is None or sources.dev_set is None:
        return None
    return verdicts.judging(config, sources, sources.dev_set, None, rounds=config.sft.epochs - 1)


def _planned(config: Config, sources: Sources, inputs: Manifests) -> Work | None:
    return work(1, "choice")


def _space(config: Config, sources: Sources, inputs: object) -> Space:
    return Space(result=0)  # it shares its files with the stage of all epochs


def _finished(manifest: Manifest, inputs: Manifests) -> Work | None:
    return model.finished_work(manifest, inputs)


CHOICE = Spec(
    kind="choice",
    stage="model",
    role="model",
    version=1,
    until=Until.model,
    recipe=_recipe,
    describe=_describe,
    outcome=model.outcome,
    build=_build,
    check=_check,
    asks=_asks,
    requests=_requests,
    planned_work=_planned,
    finished_work=_finished,
    space=_space,
    files=("dev_set",),
)
