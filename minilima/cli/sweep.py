"""Runs a sweep: its missing points through Hydra's launcher, then one table of all points.

    points ─> sweep.json ─> launcher: this process, joblib, Slurm, Ray ─> a record a point ─> table, exit status

A point that fails is recorded and the others run; the same command starts only those that are not finished. Hydra
composes and launches; which points there are is decided in `config/sweep_grid.py`, except in a search (Optuna). What a
launcher calls for a point is `sweep_points.run_point`.
"""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minilima import console
from minilima.cli.options import plain_line
from minilima.cli.sweep_folder import Entry, forget, is_done, outcome, searched, write_sweep
from minilima.cli.sweep_points import run_point, watched
from minilima.config.compose import composing, searchpath
from minilima.config.outputs import store_note
from minilima.config.schema import Config
from minilima.config.sweep_grid import Point, Sweep, expand
from minilima.errors import MinilimaError
from minilima.formats.files import canonical_json, remembered, sha256_text
from minilima.pipeline import stages
from minilima.report.wandb import to_send
from minilima.run.graph import Graph, run_name
from minilima.run.plan import make_sweep_plan
from minilima.run.plan_table import as_json, show_sweep
from minilima.run.preflight import check_inputs, check_ready, confirm_spending, obstacles
from minilima.run.sources import resolve
from minilima.store.entries import Store, reserved
from minilima.store.sources import Sources

_ELSEWHERE = ("submitit_slurm", "ray", "ray_cluster")
_CTRL_C = "Stopped."
_NAMED = 3
"""Points that an error names."""

Experiment = tuple[Config, Sources, Graph]


def plan_sweep(arguments: Sequence[str], config_dir: str | None = None, *, in_json: bool = False) -> None:
    """Shows every stage of every point, each once; nothing is done."""
    sweep = expand(arguments, config_dir)
    configs = [point.config for point in sweep.points] or [sweep.base]
    points = graphs(configs)
    _check(points, sweep, lambda config, _, graph, store: check_inputs(config, graph, store))
    here = dict.fromkeys(item for point in points for item in obstacles(*point, _store(point[0])))
    plan = make_sweep_plan(points).here(store_note(Path(sweep.base.paths.outputs)), list(here))
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
        command: the command to resume, printed where something is missing at the end.
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
    every = graphs([point.config for point in sweep.points] or [sweep.base])
    plan = make_sweep_plan(every)
    if note := store_note(Path(sweep.base.paths.outputs)):
        console.say(note)
    if not sweep.searches:
        show_sweep(_title(sweep), len(sweep.points), plan)
        undone = [points[entry.name].config for entry in missing]
        _check([one for one in every if one[0] in undone], sweep, check_ready)
    if not confirmed:
        confirm_spending(plan, sweep.base.confirm_above_usd)
    details = {"command": command, "axes": list(sweep.varied), "launcher": sweep.launcher}
    write_sweep(folder, entries, **details)
    forget(folder, missing)
    # A failed point lists no stages; the pool that it built is still in use by the other points.
    with reserved(Path(sweep.base.paths.outputs) / "store", [stage.directory for stage in plan.stages]):
        stopped = _run_missing(sweep, folder, entries, missing, config_dir)
    ended = sweep.launcher not in _ELSEWHERE
    entries = [outcome(folder, entry, ended=ended) for entry in entries or searched(folder, sweep.varied)]
    write_sweep(folder, entries, **details)
    _show(folder, sweep, entries, command, stopped, plain=plain_line("-m", *arguments, config_dir=config_dir))
    return 130 if stopped == _CTRL_C else int(bool(stopped) or any(entry.status != "done" for entry in entries))


def _run_missing(
    sweep: Sweep, folder: Path, entries: Sequence[Entry], missing: Sequence[Entry], config_dir: str | None
) -> str | None:
    """Launches the missing points, or the search; returns why it stopped early, None where it came to its end."""
    if not missing and not sweep.searches:
        return None
    try:
        with watched(folder, entries, sweep.launcher):
            _launch(sweep, [entry.overrides for entry in missing], folder, config_dir)
    except KeyboardInterrupt:
        return _CTRL_C
    except Exception as error:  # the launcher's: a worker or a cluster job that died takes the call with it
        return f"The launcher {sweep.launcher} gave up: {type(error).__name__}: {error}".splitlines()[0]
    return None


def graphs(configs: Sequence[Config]) -> list[Experiment]:
    """Each experiment with its sources and its stages."""
    resolved = [(config, resolve(config)) for config in configs]
    return [(config, sources, stages(config, sources)) for config, sources in resolved]


def _title(sweep: Sweep) -> str:
    names = {point.config.name for point in sweep.points} or {sweep.base.name}
    return "-".join(filter(None, [names.pop() if len(names) == 1 else "sweep", sweep.named]))


def _runs(sweep: Sweep) -> dict[str, Point]:
    """The points by the names of their runs; those that are one and the same run count once."""
    points: dict[str, Point] = {}
    for point in sweep.points:
        points.setdefault(run_name(point.config, stages(point.config, resolve(point.config))), point)
    return points


def _entry(folder: Path, name: str, point: Point) -> Entry:
    run = Path(point.config.paths.outputs) / "runs" / name
    status = "done" if is_done(run, point.config) else "missing"
    return Entry(overrides=point.overrides, axes=point.axes, run=os.path.relpath(run, folder), status=status)


def _check(points: Sequence[Experiment], sweep: Sweep, check: Callable[[Config, Sources, Graph, Store], None]) -> None:
    """Stops before the first point where any of them could not run: what is known now is not found after hours.

    Raises:
        MinilimaError: the first problem, with the points that have one.
    """
    problems: list[tuple[MinilimaError, Config]] = []
    for experiment in points:
        try:
            check(*experiment, _store(experiment[0]))
        except MinilimaError as error:
            problems.append((error, experiment[0]))
    if not problems:
        return
    first, stopped = problems[0][0], [config for _, config in problems]
    if len({str(error) for error, _ in problems}) == 1 and len(problems) == len(points):
        raise first
    axes = [" ".join(f"{key}={value}" for key, value in point.axes.items()) for point in sweep.points if point.config in stopped]
    others = f" and {len(axes) - _NAMED} more" if len(axes) > _NAMED else ""
    where = f"{len(axes)} of {len(sweep.points)} points cannot be run ({'; '.join(axes[:_NAMED])}{others}), and none was started."
    raise MinilimaError(first.what, f"{first.why} {where}", first.fix)


def _store(config: Config) -> Store:
    return Store(Path(config.paths.outputs) / "store")


def _launch(sweep: Sweep, points: Sequence[Sequence[str]], folder: Path, config_dir: str | None) -> None:
    """Hands the points to Hydra's launcher, or the whole search to its sweeper; returns when all have ended."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    quoted = str(folder.absolute()).replace("'", "\\'")
    own = [*sweep.hydra, *searchpath(config_dir), f"hydra.sweep.dir='{quoted}'"]
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


def _show(folder: Path, sweep: Sweep, entries: Sequence[Entry], command: str, stopped: str | None, *, plain: str) -> None:
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
            console.say("Points that were submitted to the cluster may still run there.")
    if undone or stopped:
        console.say(f"{len(entries) - undone} of {len(entries)} points are done. This runs what is missing:")
        console.say_raw(command)  # in one line, to be copied
    facts = [("Sweep", str(folder))]
    if any(entry.win_rate for entry in entries):
        facts = [*_shared(folder, entries), *facts, ("Compare", f"minilima compare {shlex.quote(str(folder))}")]
        if line := show_workspace(sweep.base.tracking, folder.name, sweep.varied):
            name, _, text = line.partition(": ")
            facts.append((name, text))
        facts.append(("Report", _report(folder, plain)))
    console.say()
    console.show_facts(facts, whole=("W&B", "Sweep", "Compare", "Report"))


def _shared(folder: Path, entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """What all points share, once: what their judge is worth (of several judges, each), and how W&B is sent."""
    done = [folder / entry.run for entry in entries if entry.status == "done"]
    worth = dict.fromkeys(remembered(run / "run.json", lambda written: str(written["judge"])) for run in done)
    facts = [("Judge", text) for text in worth if text]
    command = to_send(done)
    return [*facts, ("W&B", f"recorded offline; to send it later: {command}")] if command else facts


def _report(folder: Path, command: str) -> str:
    """Where the page with all finished points was written; a page that fails is said here and fails nothing else."""
    from minilima.report.sweep_page import write_sweep_report

    try:
        return str(write_sweep_report([folder], folder / "report.html", command=command))
    except MinilimaError as error:
        return f"not written. {error}"


def _rate(win_rate: Mapping[str, float] | None) -> str:
    return f"{win_rate['value']:.1f} ({win_rate['low']:.1f} to {win_rate['high']:.1f})" if win_rate else ""
