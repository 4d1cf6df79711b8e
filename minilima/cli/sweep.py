"""Runs a sweep: what is missing of it, through Hydra's launcher, and all points beside each other at the end.

    points ─> sweep.json ─> launcher: this process, joblib, Slurm, Ray ─> a record a point ─> table, exit status

A point that fails is recorded and the others go on; the same command starts those alone that are not finished. Hydra
composes and launches; which points there are is decided here (`expanding.py`), except in a search (Optuna).
"""

import json
import os
import shlex
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from minilima import console, environment
from minilima.cli.sweep_folder import Entry, forget, is_done, outcome, read_entries, searched, write_record, write_sweep
from minilima.config.compose import composing, searchpath, strict
from minilima.config.schema import Config
from minilima.config.sweep_grid import Point, Sweep, expand
from minilima.errors import MinilimaError, explain
from minilima.formats.files import canonical_json, sha256_text, write_atomic
from minilima.pipeline import stages
from minilima.run.gpus import visible_gpus
from minilima.run.graph import Graph, run_name
from minilima.run.plan import make_sweep_plan
from minilima.run.plan_table import as_json, show_sweep
from minilima.run.preflight import check_ready, confirm_spending
from minilima.run.sources import resolve
from minilima.store.entries import Store, reserved
from minilima.store.sources import Sources

SERIAL = "basic"
"""Hydra's own launcher: one point after the other in this process."""

_LOOK_SECONDS = 1.0
_SHARING = ("joblib", "submitit_local")
"""Launchers of several points on this machine, which know nothing of its GPUs."""
_ELSEWHERE = ("submitit_slurm", "ray", "ray_cluster")
_CTRL_C = "Stopped."


def plan_sweep(arguments: Sequence[str], config_dir: str | None = None, *, in_json: bool = False) -> None:
    """Shows every stage of every point, each once; nothing is done."""
    sweep = expand(arguments, config_dir)
    configs = [point.config for point in sweep.points] or [sweep.base]
    plan = make_sweep_plan(graphs(configs))
    if in_json:
        console.say_raw(as_json(plan))
        return
    show_sweep(_title(sweep), len(configs), plan)
    if sweep.searches:
        console.say("A search chooses its points as it goes; this is one of them.", style="dim")


def run_sweep(arguments: Sequence[str], config_dir: str | None = None, command: str = "", *, confirmed: bool = False) -> int:
    """Runs the points that are missing and shows all; returns the exit status: 0, 1 where a point has no result, 130.

    Args:
        arguments: overrides as typed after `-m`.
        config_dir: a folder with groups of the user's own.
        command: the line that goes on, told when something is missing at the end.
        confirmed: whether more than `confirm_above_usd` may be spent without asking.

    Raises:
        MinilimaError: no point can be run.
    """
    sweep = expand(arguments, config_dir)
    points = _runs(sweep)
    key = sha256_text(canonical_json(sorted(points) or sorted(sweep.overrides)))[:8]
    folder = Path(sweep.base.paths.outputs) / "sweeps" / f"{_title(sweep)}-{key}"
    entries = [_entry(folder, name, point) for name, point in points.items()]
    missing = [entry for entry in entries if entry.status != "done"]
    plan = make_sweep_plan(graphs([point.config for point in sweep.points] or [sweep.base]))
    if not sweep.searches:
        show_sweep(_title(sweep), len(sweep.points), plan)
        _check([points[entry.name].config for entry in missing])
    if not confirmed:
        confirm_spending(plan, sweep.base.confirm_above_usd)
    told = {"command": command, "axes": list(sweep.varied), "launcher": sweep.launcher}
    write_sweep(folder, entries, **told)
    forget(folder, missing)
    stopped = None
    try:
        if missing or sweep.searches:
            # A point that failed names nothing that it uses; the pool it built is still that of the others.
            shared = reserved(Path(sweep.base.paths.outputs) / "store", [stage.directory for stage in plan.stages])
            with shared, _told(folder, entries, sweep.launcher):
                _launch(sweep, [entry.overrides for entry in missing], folder, config_dir)
    except KeyboardInterrupt:
        stopped = _CTRL_C
    except Exception as error:  # the launcher's: a worker or a cluster job that died takes the call with it
        stopped = f"The launcher {sweep.launcher} gave up: {type(error).__name__}: {error}".splitlines()[0]
    ended = sweep.launcher not in _ELSEWHERE
    entries = [outcome(folder, entry, ended=ended) for entry in entries or searched(folder, sweep.varied)]
    write_sweep(folder, entries, **told)
    _show(folder, sweep, entries, command, stopped)
    return 130 if stopped == _CTRL_C else int(bool(stopped) or any(entry.status != "done" for entry in entries))


def graphs(configs: Sequence[Config]) -> list[tuple[Config, Sources, Graph]]:
    """Each experiment with its sources and its stages."""
    resolved = [(config, resolve(config)) for config in configs]
    return [(config, sources, stages(config, sources)) for config, sources in resolved]


def _title(sweep: Sweep) -> str:
    names = {point.config.name for point in sweep.points} or {sweep.base.name}
    return "-".join(filter(None, [names.pop() if len(names) == 1 else "sweep", sweep.named]))


def _runs(sweep: Sweep) -> dict[str, Point]:
    """The points by the names of their runs; those that are one and the same run count once."""
    found: dict[str, Point] = {}
    for point in sweep.points:
        found.setdefault(run_name(point.config, stages(point.config, resolve(point.config))), point)
    return found


def _entry(folder: Path, name: str, point: Point) -> Entry:
    run = Path(point.config.paths.outputs) / "runs" / name
    status = "done" if is_done(run, point.config) else "missing"
    return Entry(overrides=point.overrides, axes=point.axes, run=os.path.relpath(run, folder), status=status)


def _check(configs: Sequence[Config]) -> None:
    """Stops where no point could run; a point that alone cannot is left to fail by itself."""
    problems = []
    for config in configs:
        sources = resolve(config)
        try:
            check_ready(config, sources, stages(config, sources), Store(Path(config.paths.outputs) / "store"))
        except MinilimaError as error:
            problems.append(error)
    if problems and len(problems) == len(configs):
        raise problems[0]


def _launch(sweep: Sweep, points: Sequence[Sequence[str]], folder: Path, config_dir: str | None) -> None:
    """Hands the points to Hydra's launcher, or the whole search to its sweeper; returns when all have ended."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    place = str(folder.absolute()).replace("'", "\\'")
    own = [*sweep.hydra, *searchpath(config_dir), f"hydra.sweep.dir='{place}'"]
    with composing():
        engine = GlobalHydra.instance().hydra
        assert engine is not None
        master = engine.compose_config("config", overrides=[*sweep.fixed, *own], run_mode=RunMode.MULTIRUN, from_shell=False)
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())
        chosen: dict[str, Any] = {"hydra_context": context, "task_function": run_point, "config": master}
        if sweep.searches:
            Plugins.instance().instantiate_sweeper(**chosen).sweep(list(sweep.overrides))
        else:
            Plugins.instance().instantiate_launcher(**chosen).launch([list(point) for point in points], initial_job_idx=0)


def run_point(composed: DictConfig) -> float | None:
    """Hydra's task: one point, wherever the launcher put it. No failure leaves it, so that the others go on.

    Returns:
        the win rate in percent, the objective of a search; None where the point failed.
    """
    from hydra.core.hydra_config import HydraConfig

    from minilima.pipeline import run

    hydra = HydraConfig.get()
    folder, launcher, name = Path(hydra.sweep.dir), str(hydra.runtime.choices["hydra/launcher"]), f"point-{hydra.job.num}"
    told = {"overrides": list(hydra.overrides.task), "host": environment.host(), "process": os.getpid()}
    try:
        os.chdir(hydra.runtime.cwd)  # Ray starts its workers elsewhere; paths count from where the command was typed
        config = _as_point(strict(composed), launcher, folder)
        name = run_name(config, stages(config, resolve(config)))
        told["run"] = os.path.relpath(Path(config.paths.outputs) / "runs" / name, folder)
        write_record(folder, name, {**told, "status": "unfinished"})
        with _output(folder, name, launcher):
            summary = run(config, shown=True)
    except Exception as error:
        mistake = explain(error) or _bug(error, folder, name)
        write_record(folder, name, {**told, "status": "failed", "cause": str(mistake)})
        if launcher == SERIAL:
            console.complain(mistake)
        return None
    except BaseException:  # Ctrl-C, or the scheduler's end
        write_record(folder, name, {**told, "status": "stopped"})
        raise
    write_record(folder, name, {**told, "status": "done"})
    return summary.score


def _as_point(config: Config, launcher: str, folder: Path) -> Config:
    """The settings of a point as part of its sweep; none of them enters a key."""
    if launcher in _SHARING and config.compute.gpus is None and visible_gpus():
        config.compute.gpus = 1
    config.tracking.group = config.tracking.group or folder.name
    return config


def _bug(error: Exception, folder: Path, name: str) -> MinilimaError:
    trace = folder / "logs" / f"{name}.traceback.txt"
    write_atomic(trace, "".join(traceback.format_exception(error)))
    return MinilimaError(
        f"{type(error).__name__}: {error}".splitlines()[0], "This is a bug, or a library's refusal.", f"The traceback is {trace}."
    )


@contextmanager
def _output(folder: Path, name: str, launcher: str) -> Iterator[None]:
    """What a point prints: on the terminal where one runs at a time, else in a file of its own."""
    if launcher == SERIAL:
        console.say(f"\n{_heading(folder, name)}", style="bold")
        yield
        return
    log = folder / "logs" / f"{name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        yield


def _heading(folder: Path, name: str) -> str:
    """`Point 2 of 9: dataset.size=300`; a search knows neither its number nor its settings yet."""
    entries = read_entries(folder)
    found = [f"Point {place} of {len(entries)}: {entry.label}" for place, entry in enumerate(entries, 1) if entry.name == name]
    return found[0] if found else name


@contextmanager
def _told(folder: Path, entries: Sequence[Entry], launcher: str) -> Iterator[None]:
    """While points run elsewhere, a line here for each that starts or ends."""
    if launcher == SERIAL:
        yield
        return
    labels = {entry.name: entry.label for entry in entries}
    seen = {file.stem: file.stat().st_mtime_ns for file in (folder / "points").glob("*.json")}
    ended = threading.Event()

    def look() -> None:
        for file in sorted((folder / "points").glob("*.json")):
            if (changed := file.stat().st_mtime_ns) == seen.get(file.stem):
                continue
            seen[file.stem] = changed
            told = json.loads(file.read_text(encoding="utf-8"))
            what = {"unfinished": f"started on {told['host']}"}.get(told["status"], told["status"])
            console.say(f"{labels.get(file.stem, file.stem)}: {what} {told.get('cause') or ''}".rstrip())

    def watch() -> None:
        while not ended.wait(_LOOK_SECONDS):
            look()

    console.say(f"Points run through {launcher}; what each prints is in {folder / 'logs'}.")
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        look()


def _show(folder: Path, sweep: Sweep, entries: Sequence[Entry], command: str, stopped: str | None) -> None:
    from minilima.report.wandb_view import show_workspace

    console.say()
    rows = [
        (*(entry.axes.get(key, "") for key in sweep.varied), entry.status, _rate(entry.win_rate), entry.name) for entry in entries
    ]
    console.show_table([*sweep.varied, "", "win rate", "run"], rows)
    for entry in entries:
        if entry.cause:
            console.say(f"{entry.label}: {entry.cause}", style="red" if entry.status == "failed" else None)
    undone = sum(entry.status != "done" for entry in entries)
    if stopped:
        console.say(stopped, style="bold")
        if sweep.launcher in _ELSEWHERE:
            console.say("Points that were handed to the cluster may go on there.")
    if undone or stopped:
        console.say(f"{len(entries) - undone} of {len(entries)} points are done. This runs what is missing:")
        console.say_raw(command)  # in one line, to be copied
    console.say_raw(f"Sweep: {folder}")
    if any(entry.win_rate for entry in entries):
        console.say_raw(f"Compare: minilima compare {shlex.quote(str(folder))}")
        if line := show_workspace(sweep.base.tracking, folder.name, sweep.varied):
            console.say(line)
        console.say_raw(f"Report: {_report(folder)}")


def _report(folder: Path) -> str:
    """The page with all points that are done; what stands in its way is told and costs nothing else."""
    from minilima.report.sweep_page import write_sweep_report

    try:
        return str(write_sweep_report([folder], folder / "report.html"))
    except MinilimaError as error:
        return f"not written. {error}"


def _rate(found: Mapping[str, float] | None) -> str:
    return f"{found['value']:.1f} ({found['low']:.1f} to {found['high']:.1f})" if found else ""
