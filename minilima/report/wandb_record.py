"""What W&B shows of a run: a W&B run for each stage, with its directory as an artifact, and one for the experiment.

    python -m minilima.report.wandb_record RUN_FOLDER online|offline      # what wandb.py starts

    seeds, eval_set ─> pool ─> dataset ─> model ─> answers ─> verdicts      artifacts; each has its key as an alias
A stage that several points of a sweep share is recorded once. Offline, W&B cannot note which artifact a run used; the
artifact's metadata name its inputs there too.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from minilima.config.compose import recorded
from minilima.config.schema import Config
from minilima.environment import answers
from minilima.formats.files import read_jsonl, remembered, write_atomic
from minilima.report.wandb import MARK, project_of

Mode = Literal["online", "offline"]

TABLE_ROWS = 1000
"""Rows of a data set that its table shows; the artifact holds all."""

_CURVE = ("loss", "learning_rate", "grad_norm", "epoch", "tokens_per_second", "mfu")


@dataclass(frozen=True, kw_only=True)
class Destination:
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
    run_json: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    config = recorded(run_json["config"])
    tracking = config.tracking
    destination = Destination(
        folder=folder.absolute().parent.parent, mode=mode, project=project_of(tracking), entity=tracking.entity,
        group=tracking.group or config.name,
    )  # fmt: skip
    # An older run.json lists no source files.
    sources = run_json.get("sources", [])
    files = [_record_stage(stage, folder / stage["path"], sources, config, destination) for stage in run_json["stages"]]
    url, own = _record_point(folder, run_json, destination)
    folders = [file for file in (*files, own) if file]
    write_atomic(folder / MARK, json.dumps({"mode": mode, "url": url, "folders": folders}))


def reachable() -> bool:
    """Whether W&B's server answers, the one that the environment or W&B's own settings name."""
    import wandb

    return answers(str(wandb.setup().settings.base_url))


@contextmanager
def _started(name: str, job_type: str, settings: dict[str, Any], destination: Destination) -> Iterator[Any]:
    import wandb

    (destination.folder / "wandb").mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=destination.project, entity=destination.entity, id=name, name=name, group=destination.group,
        job_type=job_type, config=settings, dir=str(destination.folder), mode=destination.mode, reinit="finish_previous",
        settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
    )  # fmt: skip
    try:
        yield run
    finally:
        run.finish()


def _record_stage(
    stage: Mapping[str, Any], path: Path, sources: Sequence[Mapping[str, Any]], config: Config, destination: Destination
) -> str | None:
    """The folder of the stage's W&B run; None if it was recorded before, in this mode or online."""
    import wandb

    mark = destination.folder / "wandb" / "recorded" / f"{stage['directory']}.json"
    if remembered(mark, lambda written: written["mode"]) in (destination.mode, "online"):
        return None
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    with _started(stage["directory"], stage["role"], manifest["recipe"], destination) as run:
        for source in sources:
            if stage["role"] in source["stages"]:
                _use_file(run, source, destination)
        if destination.mode == "online":
            for directory in manifest["inputs"].values():
                name, _, key = directory.rpartition("-")
                run.use_artifact(f"{name}:{key}")
        _log_curve(run, path)
        if table := _table(path):
            run.log({stage["role"]: table})
        run.summary.update(_numbers({**stage["metrics"], "usage": stage["usage"], "seconds": manifest["seconds"]}))
        kept = {name: manifest[name] for name in ("recipe", "inputs", "metrics", "usage", "seconds", "packages")}
        artifact = wandb.Artifact(manifest["stage"], type=manifest["stage"], metadata=kept)
        _add_files(artifact, path, manifest, weights=config.tracking.upload_weights)
        run.log_artifact(artifact, aliases=[manifest["key"]])
        folder = str(Path(run.dir).parent)
    write_atomic(mark, json.dumps({"mode": destination.mode}))
    return folder


def _record_point(folder: Path, run_json: Mapping[str, Any], destination: Destination) -> tuple[str | None, str]:
    """(address, folder) of the experiment's W&B run: settings, training curve, verdicts, and figures with their intervals."""
    with _started(folder.name, "experiment", run_json["config"], destination) as run:
        for stage in run_json["stages"]:
            path = folder / stage["path"]
            if destination.mode == "online":
                name, _, key = stage["directory"].rpartition("-")
                run.use_artifact(f"{name}:{key}")
            _log_curve(run, path)
            if (path / "verdicts.jsonl").is_file():
                run.log({stage["role"]: _table(path)})
            run.summary.update(_numbers(stage["metrics"], f"{stage['role']}/"))
        run.summary.update(_numbers(run_json["results"] or {}))
        for one in run_json.get("panel", ()):
            run.summary.update(panel_numbers(one))
        if changes := run_json.get("benchmarks"):
            run.log({"What alignment cost": _benchmarks(changes)})
        return (run.url if destination.mode == "online" else None), str(Path(run.dir).parent)


def panel_numbers(panel: Mapping[str, Any]) -> dict[str, float]:
    """What all judges say on one evaluation set: each one's results, the majority's, and the agreement of any two."""
    where = f"_on_{panel['set']}" if panel["set"] else ""
    numbers: dict[str, float] = {}
    for judge in panel["judges"]:
        numbers |= _numbers(judge["results"], f"{judge['stage']}/results/")
    if panel["majority"]:
        numbers |= _numbers(panel["majority"], f"majority{where}/")
    for pair in panel["agreement"]:
        numbers |= _numbers(pair, f"agreement{where}/{pair['first']}, {pair['second']}/")
    return numbers


def _use_file(run: Any, source: Mapping[str, Any], destination: Destination) -> None:
    """Shows a source file of run.json as an artifact; one that is no longer on this machine is left out."""
    import wandb

    if not Path(source["path"]).is_file():
        return
    artifact = wandb.Artifact(source["what"], type=source["what"], metadata={"name": source["name"], "sha256": source["sha256"]})
    artifact.add_file(source["path"], policy="immutable")
    if destination.mode == "online":
        run.use_artifact(artifact, aliases=[source["sha256"][:16]])
    else:
        run.log_artifact(artifact, aliases=[source["sha256"][:16]])


def _add_files(artifact: Any, path: Path, manifest: Mapping[str, Any], *, weights: bool) -> None:
    """All files of a stage; weights by their address alone unless they are wanted. Nothing is copied: a stage never changes."""
    for name in manifest["files"]:
        file = path / name
        if file.suffix == ".safetensors" and not weights:
            artifact.add_reference(f"file://{file.resolve()}", name=name, checksum=False)
        else:
            artifact.add_file(str(file), name=name, policy="immutable")


@cache
def _rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a stage's file, which both the stage and the experiment show: read once, since a stage never changes."""
    return read_jsonl(file)


def _log_curve(run: Any, path: Path) -> None:
    """The training curve, where the store entry has one."""
    if not (path / "training_log.jsonl").is_file():
        return
    run.define_metric("train/*", step_metric="train/step")
    for entry in _rows(path / "training_log.jsonl"):
        run.log({"train/step": entry["step"], **{f"train/{name}": entry[name] for name in _CURVE if name in entry}})


_TABLES = {
    "dataset.jsonl": ("id", "instruction", "input", "output", "source"),
    "answers.jsonl": ("id", "instruction", "output", "tokens", "truncated"),
    "verdicts.jsonl": ("id", "preference", "orders", "explanation"),
    "items.jsonl": ("id", "scores", "output"),
}
"""The files of stages that are shown as tables, and which of their fields."""


def _table(entry: Path) -> Any:
    """The first rows of what a store entry holds; None where it holds no such file."""
    import wandb

    name = next((name for name in _TABLES if (entry / name).is_file()), None)
    if name is None:
        return None
    columns = _TABLES[name]
    rows = _rows(entry / name)[:TABLE_ROWS]
    return wandb.Table(columns=list(columns), data=[[_cell(row.get(column)) for column in columns] for row in rows])


def _benchmarks(changes: Sequence[Mapping[str, Any]]) -> Any:
    """The benchmarks of run.json, base against tuned, a figure a row."""
    import wandb

    columns = ["benchmark", "figure", "items", "base", "tuned", "change", "low", "high", "gained", "lost", "p_mcnemar", "p_holm"]
    rows = []
    for change in changes:
        paired, moved = change["paired"], change["paired"]["difference"]
        figures = [change["base"]["value"], change["tuned"]["value"], moved["value"], moved["low"], moved["high"]]
        tests = [paired["first_better"], paired["second_better"], paired["p_mcnemar"], change["p_holm"]]
        rows.append([change["task"], change["figure"], change["items"], *figures, *tests])
    return wandb.Table(columns=columns, data=rows)


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
