"""A packaged model as a folder of safetensors: the one that is trained, one that writes, one that judges, one that scores."""

from collections.abc import Mapping
from typing import Any

from minilima.config.schema import Config
from minilima.formats.records import OnProgress
from minilima.models.packaged import PACKAGED
from minilima.run.resources import weights_bytes
from minilima.run.spec import Manifest, Manifests, Space, Spec, Work, work
from minilima.store.job import Job, Outcome
from minilima.store.sources import Sources


def _build(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.train.convert import build_base

    return build_base(job, on_progress)


def _outcome(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['parameters'] / 1e6:.0f} M parameters"


def _planned(config: Config, sources: Sources, inputs: Manifests) -> Work | None:
    return work(1, "base")


def _finished(manifest: Manifest, inputs: Manifests) -> Work | None:
    return work(1, "base")


def _conversion(role: str) -> Spec:
    def recipe(config: Config, sources: Sources) -> dict[str, Any]:
        model = sources.converted(role).location
        return {"model": model, "files": PACKAGED[model].files}

    def describe(config: Config, sources: Sources) -> str:
        return f"{sources.converted(role).location} from the package index, converted to safetensors"

    def applies(config: Config, sources: Sources) -> bool:
        # Models from the hub or a folder are loaded where they are.
        return sources.converted(role).kind == "packaged"

    def space(config: Config, sources: Sources, inputs: Mapping[str, str]) -> Space:
        return Space(result=weights_bytes(sources.converted(role)))

    return Spec(
        kind="base",
        stage="base",
        version=1,
        until=None,
        role=role,
        recipe=recipe,
        describe=describe,
        outcome=_outcome,
        build=_build,
        applies=applies,
        planned_work=_planned,
        finished_work=_finished,
        space=space,
        uses_gpu=lambda config, sources: False,
        converts=True,
    )


BASE, GENERATOR_BASE, JUDGE_BASE, SCORER_BASE = (
    _conversion(role) for role in ("base", "generator_base", "judge_base", "scorer_base")
)
