"""What W&B shows of a run: a W&B run for each stage, with its directory as an artifact, and one for the experiment.

    python -m minilima.report.wandb_record RUN_FOLDER online|offline      # what tracking.py starts

    seeds, eval_set ─> pool ─> dataset ─> model ─> answers ─> verdicts      artifacts; each has its key as an alias
A stage that several points of a sweep share is recorded once. Offline, W&B cannot note which artifact a run used; the
artifact's metadata name its inputs there too.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from minilima.config.compose import strict
from minilima.config.schema import Config
from minilima.environment import answers
from minilima.formats.files import read_jsonl, write_atomic
from minilima.report.wandb import MARK
from minilima.run.sources import resolve
from minilima.store.sources import FileSource

Mode = Literal["online", "offline"]

TABLE_ROWS = 1000
"""Rows of a data set that its table shows; the artifact holds all."""

_CURVE = ("loss", "learning_rate", "grad_norm", "epoch", "tokens_per_second", "mfu")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where W&B runs of an experiment go.

    `folder` is where W&B keeps its files; absolute, since W&B's own process may have been started elsewhere. `group` holds the
    points of a sweep together.
    """

    folder: Path
    mode: Mode
    project: str
    entity: str | None
    group: str


def record(folder: Path, mode: Mode) -> None:
    """Records what of a run is not recorded yet, and leaves the mark `wandb.json` in its folder.

    Args:
        folder: outputs/runs/<name>-<key>.
    """
    if mode == "online" and not reachable():
        mode = "offline"  # nothing is lost, and nobody waits for W&B's own attempts
    told: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    config = strict(OmegaConf.create(told["config"]))
    tracking = config.tracking
    place = Place(
        folder=folder.absolute().parent.parent, mode=mode, project=tracking.project, entity=tracking.entity,
        group=tracking.group or config.name,
    )  # fmt: skip
    files = [_record_stage(stage, folder / stage["path"], config, place) for stage in told["stages"]]
    url, own = _record_point(folder, told, place)
    folders = [file for file in (*files, own) if file]
    write_atomic(folder / MARK, json.dumps({"mode": mode, "url": url, "folders": folders}))


def reachable() -> bool:
    """Whether W&B's server answers, the one that the environment or W&B's own settings name."""
    import wandb

    return answers(str(wandb.setup().settings.base_url))


@contextmanager
def _started(name: str, job_type: str, settings: dict[str, Any], place: Place) -> Iterator[Any]:
    import wandb

    (place.folder / "wandb").mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=place.project, entity=place.entity, id=name, name=name, group=place.group, job_type=job_type, config=settings,
        dir=str(place.folder), mode=place.mode, reinit="finish_previous",
        settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
    )  # fmt: skip
    try:
        yield run
    finally:
        run.finish()


def _record_stage(stage: Mapping[str, Any], path: Path, config: Config, place: Place) -> str | None:
    """The folder of the stage's W&B run; None if it was recorded before, in this mode or online."""
    import wandb

    mark = place.folder / "wandb" / "recorded" / f"{stage['directory']}.json"
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8"))["mode"] in (place.mode, "online"):
        return None
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    with _started(stage["directory"], stage["role"], manifest["recipe"], place) as run:
        for name, source in _sources(stage["role"], config).items():
            _use_file(run, name, source, place)
        if place.mode == "online":
            for directory in manifest["inputs"].values():
                name, _, key = directory.rpartition("-")
                run.use_artifact(f"{name}:{key}")
        if stage["role"] == "model":
            _log_curve(run, path)
        if table := _table(stage["role"], path):
            run.log({stage["role"]: table})
        run.summary.update(_numbers({**stage["metrics"], "usage": stage["usage"], "seconds": manifest["seconds"]}))
        kept = {name: manifest[name] for name in ("recipe", "inputs", "metrics", "usage", "seconds", "packages")}
        artifact = wandb.Artifact(manifest["stage"], type=manifest["stage"], metadata=kept)
        _add_files(artifact, path, manifest, weights=config.tracking.upload_weights)
        run.log_artifact(artifact, aliases=[manifest["key"]])
        folder = str(Path(run.dir).parent)
    write_atomic(mark, json.dumps({"mode": place.mode}))
    return folder


def _record_point(folder: Path, told: Mapping[str, Any], place: Place) -> tuple[str | None, str]:
    """(address, folder) of the experiment's W&B run: settings, training curve, verdicts, and figures with their intervals."""
    with _started(folder.name, "experiment", told["config"], place) as run:
        for stage in told["stages"]:
            path = folder / stage["path"]
            if place.mode == "online":
                name, _, key = stage["directory"].rpartition("-")
                run.use_artifact(f"{name}:{key}")
            if stage["role"] == "model":
                _log_curve(run, path)
            if stage["role"] == "verdicts" and (table := _table("verdicts", path)):
                run.log({"verdicts": table})
            run.summary.update(_numbers(stage["metrics"], f"{stage['role']}/"))
        run.summary.update(_numbers(told["results"] or {}))
        return (run.url if place.mode == "online" else None), str(Path(run.dir).parent)


def _sources(role: str, config: Config) -> dict[str, FileSource]:
    """Files from outside that a stage was made from."""
    if role not in ("pool", "answers", "reference_answers"):
        return {}
    sources = resolve(config)
    found = {"seeds": sources.seeds, "data": sources.data} if role == "pool" else {"eval_set": sources.eval_set}
    return {name: source for name, source in found.items() if source is not None and source.path is not None}


def _use_file(run: Any, name: str, source: FileSource, place: Place) -> None:
    import wandb

    assert source.path is not None
    artifact = wandb.Artifact(name, type=name, metadata={"name": source.name, "sha256": source.sha256})
    artifact.add_file(str(source.path), policy="immutable")
    if place.mode == "online":
        run.use_artifact(artifact, aliases=[source.sha256[:16]])
    else:
        run.log_artifact(artifact, aliases=[source.sha256[:16]])


def _add_files(artifact: Any, path: Path, manifest: Mapping[str, Any], *, weights: bool) -> None:
    """All files of a stage; weights by their address alone unless they are wanted. Nothing is copied: a stage never changes."""
    for name in manifest["files"]:
        file = path / name
        if file.suffix == ".safetensors" and not weights:
            artifact.add_reference(f"file://{file.resolve()}", name=name, checksum=False)
        else:
            artifact.add_file(str(file), name=name, policy="immutable")


def _log_curve(run: Any, path: Path) -> None:
    run.define_metric("train/*", step_metric="train/step")
    for entry in read_jsonl(path / "training_log.jsonl"):
        run.log({"train/step": entry["step"], **{f"train/{name}": entry[name] for name in _CURVE if name in entry}})


_TABLES = {
    "dataset": ("dataset.jsonl", ("id", "instruction", "input", "output", "source")),
    "answers": ("answers.jsonl", ("id", "instruction", "output", "tokens", "truncated")),
    "reference_answers": ("answers.jsonl", ("id", "instruction", "output", "tokens", "truncated")),
    "verdicts": ("verdicts.jsonl", ("id", "preference", "orders", "explanation")),
}
"""The file of a stage that is shown as a table, and which of its fields."""


def _table(role: str, path: Path) -> Any:
    import wandb

    if role not in _TABLES:
        return None
    name, columns = _TABLES[role]
    rows = read_jsonl(path / name)[:TABLE_ROWS]
    return wandb.Table(columns=list(columns), data=[[_cell(row.get(column)) for column in columns] for row in rows])


def _cell(value: Any) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value, ensure_ascii=False)


def _numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Every number in nested values, by its path."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_numbers(value, f"{prefix}{name}/"))
        elif isinstance(value, int | float):
            flat[f"{prefix}{name}"] = value
    return flat


if __name__ == "__main__":
    record(Path(sys.argv[1]), "online" if sys.argv[2] == "online" else "offline")
