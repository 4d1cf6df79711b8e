"""Runs a sweep: what is missing of it, through Hydra's launcher, and all points beside each other at the end.

    points ─> sweep.json ─> launcher: this process, joblib, Slurm, Ray ─> a record a point ─> table, exit status
    outputs/sweeps/quickstart-size_lr-1a2b3c4d/sweep.json  points/RUN.json  logs/RUN.txt

A point that fails is recorded and the others go on; the same command starts those alone that are not finished. Hydra
composes and launches; which points there are is decided here (`expanding.py`), except in a search (Optuna).
"""

import json
import os
import shlex
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from minilima import console, provenance
from minilima.compose import composing, searchpath, strict, to_dict
from minilima.config import Config
from minilima.errors import MinilimaError, explain
from minilima.expanding import Sweep, expand
from minilima.files import canonical_json, sha256_text, write_atomic
from minilima.leases import visible_gpus
from minilima.plan_table import as_json, show_sweep
from minilima.planning import check_ready, confirm_spending, make_sweep_plan
from minilima.recipes import run_name, stages
from minilima.sources import resolve
from minilima.store import Store

SERIAL = "basic"
"""Hydra's own launcher: one point after the other in this process."""

_LOOK_SECONDS = 1.0
_SHARING = ("joblib", "submitit_local")
"""Launchers of several points on this machine, which know nothing of its GPUs."""
_ELSEWHERE = ("submitit_slurm", "ray", "ray_cluster")
_ASIDE = ("compute", "tracking", "paths", "confirm_above_usd")
"""Sections that never change what a run's folder says of its result."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A point in sweep.json. `status`: done, failed, stopped, unfinished (started, no end known) or missing (never started)."""

    overrides: tuple[str, ...]
    axes: dict[str, str] = field(default_factory=dict)
    run: str
    """The run's folder, relative to that of the sweep."""
    status: str
    win_rate: dict[str, float] | None = None
    cause: str | None = None
    """Why there is no result."""

    @property
    def name(self) -> str:
        return Path(self.run).name

    @property
    def label(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.axes.items()) or self.name


def plan_sweep(arguments: Sequence[str], config_dir: str | None = None, *, in_json: bool = False) -> None:
    """Shows every stage of every point, each once; nothing is done."""
    sweep = expand(arguments, config_dir)
    configs = [point.config for point in sweep.points] or [sweep.base]
    plan = make_sweep_plan(configs)
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
    folder, entries = _lay_out(sweep)
    missing = [entry for entry in entries if entry.status != "done"]
    plan = make_sweep_plan([point.config for point in sweep.points] or [sweep.base])
    if not sweep.searches:
        show_sweep(_title(sweep), len(sweep.points), plan)
        _check([point.config for point in sweep.points])
    if not confirmed:
        confirm_spending(plan, sweep.base.confirm_above_usd)
    _write(folder, sweep, command, entries)
    stopped = None
    try:
        if missing or sweep.searches:
            with _told(folder, entries, launcher=sweep.launcher):
                _launch(sweep, [entry.overrides for entry in missing], folder, config_dir)
    except KeyboardInterrupt:
        stopped = "Stopped."
    except MinilimaError:
        raise
    except Exception as error:  # the launcher's: a worker or a cluster job that died takes the call with it
        stopped = f"The launcher {sweep.launcher} gave up: {type(error).__name__}: {error}".splitlines()[0]
    here = sweep.launcher not in _ELSEWHERE
    entries = [_outcome(folder, entry, ended=here) for entry in entries or _searched(folder, sweep)]
    _write(folder, sweep, command, entries)
    _show(folder, sweep, entries, command, stopped)
    return 130 if stopped == "Stopped." else int(bool(stopped) or any(entry.status != "done" for entry in entries))


def _title(sweep: Sweep) -> str:
    configs = [point.config for point in sweep.points] or [sweep.base]
    names = {config.name for config in configs}
    return "-".join(filter(None, [names.pop() if len(names) == 1 else "sweep", sweep.named]))


def _lay_out(sweep: Sweep) -> tuple[Path, list[Entry]]:
    """The sweep's folder and its points, those that are one and the same run once."""
    outputs = Path(sweep.base.paths.outputs)
    found: dict[str, Entry] = {}
    for point in sweep.points:
        name = run_name(point.config, stages(point.config, resolve(point.config)))
        run = Path(point.config.paths.outputs) / "runs" / name
        status = "done" if _is_done(run, point.config) else "missing"
        entry = Entry(overrides=point.overrides, axes=dict(point.axes), run=str(run.absolute()), status=status)
        found.setdefault(name, entry)
    key = sha256_text(canonical_json(sorted(found) or sorted(sweep.overrides)))[:8]
    folder = outputs / "sweeps" / f"{_title(sweep)}-{key}"
    return folder, [_relative(folder, entry) for entry in found.values()]


def _relative(folder: Path, entry: Entry) -> Entry:
    return Entry(**{**asdict(entry), "run": os.path.relpath(entry.run, folder.absolute())})


def _is_done(run: Path, config: Config) -> bool:
    """Whether the run's folder has the result of these very settings, and the store what it is made of."""
    try:
        told = json.loads((run / "run.json").read_text(encoding="utf-8"))
        there = all((run / stage["path"] / "manifest.json").is_file() for stage in told["stages"])
    except (OSError, ValueError, KeyError):
        return False
    wanted = json.loads(json.dumps(to_dict(config)))
    return there and all(told["config"].get(name) == wanted[name] for name in wanted if name not in _ASIDE)


def _check(configs: Sequence[Config]) -> None:
    """Stops where no point could run; a point that alone cannot is left to fail by itself."""
    problems = []
    for config in configs:
        sources = resolve(config)
        try:
            check_ready(config, sources, stages(config, sources), Store(Path(config.paths.outputs) / "store"))
        except MinilimaError as error:
            problems.append(error)
    if len(problems) == len(configs):
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
    """Hydra's task: one point, wherever the launcher put it. Never raises, so that the others go on.

    Returns:
        the win rate in percent, the objective of a search; None where the point failed.
    """
    from hydra.core.hydra_config import HydraConfig

    from minilima.pipeline import run

    hydra = HydraConfig.get()
    folder = Path(hydra.sweep.dir)
    launcher = str(hydra.runtime.choices["hydra/launcher"])
    told = {"overrides": list(hydra.overrides.task), "host": provenance.host(), "process": os.getpid()}
    name = f"point-{hydra.job.num}"
    try:
        config = strict(composed)
        if launcher in _SHARING and config.compute.gpus is None and visible_gpus():
            config.compute.gpus = 1
        name = run_name(config, stages(config, resolve(config)))
        told["run"] = os.path.relpath(Path(config.paths.outputs) / "runs" / name, folder)
        _record(folder, name, {**told, "status": "unfinished"})
        with _output(folder, name, launcher):
            summary = run(config, shown=True)
    except Exception as error:
        mistake = explain(error) or _bug(error, folder, name)
        _record(folder, name, {**told, "status": "failed", "cause": str(mistake)})
        if launcher == SERIAL:
            console.complain(mistake)
        return None
    except BaseException:  # Ctrl-C, or the scheduler's end
        _record(folder, name, {**told, "status": "stopped"})
        raise
    _record(folder, name, {**told, "status": "done"})
    return summary.score


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
    """`Point 2 of 9: data.size=300`; a search knows neither its number nor its settings yet."""
    entries = [Entry(**point) for point in json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["points"]]
    found = [f"Point {place} of {len(entries)}: {entry.label}" for place, entry in enumerate(entries, 1) if entry.name == name]
    return found[0] if found else name


def _record(folder: Path, name: str, told: dict[str, Any]) -> None:
    write_atomic(folder / "points" / f"{name}.json", json.dumps(told, indent=2, ensure_ascii=False))


def _outcome(folder: Path, entry: Entry, *, ended: bool) -> Entry:
    """The point as it stands now; `ended`: whether no process of the launcher can still be at work."""
    record = folder / "points" / f"{entry.name}.json"
    told = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {"status": entry.status}
    status, cause = told["status"], told.get("cause")
    if status == "unfinished" and ended:
        status = "stopped"
    elif status == "unfinished":
        cause = f"It was started on {told['host']} (process {told['process']}) and has not ended."
    results = folder / entry.run / "run.json"
    found = json.loads(results.read_text(encoding="utf-8"))["results"] if status == "done" and results.is_file() else None
    rate = found["win_rate"]["win_rate"] if found and found["win_rate"] else None
    return Entry(**{**asdict(entry), "status": status, "cause": cause, "win_rate": rate})


def _searched(folder: Path, sweep: Sweep) -> list[Entry]:
    """The points that a search has chosen so far, by their records."""
    entries = []
    for file in sorted((folder / "points").glob("*.json"), key=lambda file: file.stat().st_mtime):
        told = json.loads(file.read_text(encoding="utf-8"))
        pairs = (item.lstrip("+~").partition("=") for item in told["overrides"])
        axes = {key: value for key, _, value in pairs if key in sweep.varied}
        run = told.get("run", file.stem)
        entries.append(Entry(overrides=tuple(told["overrides"]), axes=axes, run=run, status=told["status"]))
    return entries


def _write(folder: Path, sweep: Sweep, command: str, entries: Sequence[Entry]) -> None:
    told = {
        "name": folder.name,
        "command": command,
        "axes": list(sweep.varied),
        "launcher": sweep.launcher,
        "points": [asdict(entry) for entry in entries],
    }
    write_atomic(folder / "sweep.json", json.dumps(told, indent=2, ensure_ascii=False))


@contextmanager
def _told(folder: Path, entries: Sequence[Entry], *, launcher: str) -> Iterator[None]:
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
    console.say(f"Sweep: {folder}")
    if any(entry.win_rate for entry in entries):
        console.say(f"Compare: python -m minilima compare {shlex.quote(str(folder))}")


def _rate(found: dict[str, float] | None) -> str:
    return f"{found['value']:.1f} ({found['low']:.1f} to {found['high']:.1f})" if found else ""
