"""Scores on benchmarks without a judge, an entry for each benchmark and model: what alignment cost or gained."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from minilima.config.choices import Until
from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.evaluate import verifiable
from minilima.evaluate.harness_tasks import check_task, harness_version
from minilima.formats.files import canonical_json, sha256_file, sha256_text
from minilima.formats.records import BASE, TUNED, OnProgress
from minilima.run.dry_run import check_base
from minilima.run.spec import Manifest, Manifests, Spec, Work, work
from minilima.store.job import Job, Outcome
from minilima.store.sources import Sources


def pairs(config: Config) -> list[tuple[Spec, Spec]]:
    """The base model's stage and the tuned one's of each benchmark, in the order given."""
    return [(_of(BASE_BENCHMARK, task), _of(BENCHMARK, task)) for task in dict.fromkeys(config.benchmarks)]


def _of(spec: Spec, task: str) -> Spec:
    """The stage for one benchmark; its role names it, which is how the builder knows."""
    based = spec.kind == BASE_BENCHMARK.kind

    def recipe(config: Config, sources: Sources) -> dict[str, Any]:
        return {**_recipe(config, task), **({"model": sources.base.recipe()} if based else {})}

    def describe(config: Config, sources: Sources) -> str:
        some = f"the first {config.benchmark.size} of " if config.benchmark.size else ""
        return f"the {'base' if based else 'tuned'} model on {some}{task}"

    def check(config: Config, sources: Sources) -> None:
        # A plan may be for a machine that has the harness where this one has not.
        if task != verifiable.NAME and harness_version() is not None:
            check_task(task)

    def try_out(config: Config, sources: Sources) -> None:
        _check(config, task)
        check_base(config, sources)

    def examples(config: Config, sources: Sources) -> int | None:
        return len(verifiable.load_items(config.benchmark.size)) if task == verifiable.NAME else None

    def planned(config: Config, sources: Sources, inputs: Manifests) -> Work | None:
        if task != verifiable.NAME:
            return None
        items = len(verifiable.load_items(config.benchmark.size))
        return work(items * config.benchmark.max_tokens, "answers", sources.base.recipe())

    return replace(
        spec, role=f"{task}{BASE if based else TUNED}", recipe=recipe, describe=describe, check=check, try_out=try_out,
        examples=examples, planned_work=planned,
    )  # fmt: skip


def _recipe(config: Config, task: str) -> dict[str, Any]:
    settings = config.benchmark
    shared = {"task": task, "size": settings.size, "thinking": config.model.thinking}
    if task == verifiable.NAME:
        return {**shared, "file": sha256_file(verifiable.FILE), "max_tokens": settings.max_tokens}
    return {**shared, "harness": harness_version(), "shots": settings.shots, "data": _copies(settings.data)}


def _copies(folder: str | None) -> str | None:
    """What the copies of data sets in a folder are to the key; None where the hub's are read."""
    root = Path(folder).expanduser() if folder else None
    if root is None or not root.is_dir():
        return folder
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return sha256_text(canonical_json([[str(file.relative_to(root)), sha256_file(file)] for file in files]))


def _check(config: Config, task: str) -> None:
    if task == verifiable.NAME:
        return
    if harness_version() is None:
        raise MinilimaError(
            f"benchmarks={task} needs lm-evaluation-harness, which is not installed.",
            f"Only {verifiable.NAME} runs without it.",
            f"Install it: pip install 'minilima[benchmarks]'. Or use benchmarks=[{verifiable.NAME}].",
        )
    if "ifeval" in task:
        _check_sentences(task)
    folder = config.benchmark.data
    if folder is not None and not Path(folder).expanduser().is_dir():
        what = f"There is no folder {folder}."
        raise MinilimaError(what, f"benchmark.data names it; paths count from {Path.cwd()}.", "Correct benchmark.data=…")


def _check_sentences(task: str) -> None:
    """IFEval counts sentences with NLTK's tables, which the harness would miss only after all replies are there."""
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        if not nltk.download("punkt_tab", quiet=True):
            raise MinilimaError(
                f"benchmarks={task} needs NLTK's punkt_tab, which is not on this machine and could not be fetched.",
                "It counts sentences with these tables; $NLTK_DATA names a folder that holds tokenizers/punkt_tab.",
                "Where there is a network: python -m nltk.downloader punkt_tab. Without them, leave this benchmark out.",
            ) from None


def _outcome(metrics: Mapping[str, Any]) -> str:
    figures = (
        f"{name} {100 * value:.1f} %" if 0 <= value <= 1 else f"{name} {value:.4g}" for name, value in metrics["figures"].items()
    )
    return f"{', '.join(figures)} of {metrics['items']:,} items"


def _finished(manifest: Manifest, inputs: Manifests) -> Work | None:
    asked = manifest["recipe"]
    if asked["task"] != verifiable.NAME:
        return None
    trained = inputs.get("model", {}).get("recipe", {})
    return work(manifest["metrics"]["items"] * asked["max_tokens"], "answers", asked.get("model") or trained.get("base"))


def _build(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.evaluate.benchmarks import build_benchmark

    return build_benchmark(job, on_progress)


def _build_of_base(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.evaluate.benchmarks import build_base_benchmark

    return build_base_benchmark(job, on_progress)


BENCHMARK = Spec(
    kind="benchmark",
    stage="benchmark",
    version=2,
    until=Until.answers,
    recipe=lambda config, sources: {},
    describe=lambda config, sources: "a benchmark",
    outcome=_outcome,
    counted=("items",),
    build=_build,
    applies=lambda config, sources: bool(config.benchmarks),
    planned_work=lambda config, sources, inputs: None,
    finished_work=_finished,
)
BASE_BENCHMARK = replace(BENCHMARK, kind="base_benchmark", build=_build_of_base)
