"""One point of a sweep in whatever process the launcher starts, and a line for each point that starts or ends.

run_point ─> points/RUN.json (status, host, process) ─> watched: the sweep's terminal
"""

import json
import os
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from minilima import console, environment
from minilima.cli.sweep_folder import Entry, read_entries, write_record
from minilima.config.compose import load_config, strict
from minilima.config.outputs import AUTO
from minilima.config.schema import Config
from minilima.errors import MinilimaError, explain
from minilima.formats.files import write_atomic
from minilima.pipeline import run, stages
from minilima.run.gpus import visible_gpus
from minilima.run.graph import run_name
from minilima.run.sources import resolve

SERIAL = "basic"
"""Hydra's own launcher: one point after the other in this process."""

_LOOK_SECONDS = 1.0
_SHARING = ("joblib", "submitit_local")
"""Launchers of several points on this machine, which know nothing of its GPUs."""


def run_point(composed: DictConfig) -> float | None:
    """Hydra's task: one point, wherever the launcher put it. A failure is recorded and not raised, so that the other points run.

    Returns:
        the win rate in percent, the objective of a search; None where the point failed.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    folder, launcher, name = Path(hydra.sweep.dir), str(hydra.runtime.choices["hydra/launcher"]), f"point-{hydra.job.num}"
    record = {"overrides": list(hydra.overrides.task), "host": environment.host(), "process": os.getpid()}
    try:
        os.chdir(hydra.runtime.cwd)  # Ray starts its workers elsewhere; paths count from where the command was typed
        if composed.paths.outputs == AUTO:  # where the sweep was started may be known here by nothing else
            composed.paths.outputs = os.path.relpath(folder.parent.parent)
        config = _as_point(_whole(strict(composed), hydra), launcher, folder)
        name = run_name(config, stages(config, resolve(config)))
        record["run"] = os.path.relpath(Path(config.paths.outputs) / "runs" / name, folder)
        write_record(folder, name, {**record, "status": "unfinished"})
        with _output(folder, name, launcher):
            summary = run(config, shown=True)
    except Exception as error:
        mistake = explain(error) or _bug(error, folder, name)
        write_record(folder, name, {**record, "status": "failed", "cause": str(mistake)})
        if launcher == SERIAL:
            console.complain(mistake)
        return None
    except BaseException:  # Ctrl-C, or the scheduler's end
        write_record(folder, name, {**record, "status": "stopped"})
        raise
    write_record(folder, name, {**record, "status": "done"})
    return summary.score


def _whole(config: Config, hydra: Any) -> Config:
    """The point's settings; where it lists several judges or sets, with each of them composed, which Hydra does not know of."""
    if not (config.judges or config.eval_sets):
        return config
    folders = [path.removeprefix("file://") for path in hydra.searchpath if path.startswith("file://")]
    whole = load_config(list(hydra.overrides.task), config_dir=next(iter(folders), None))
    return replace(whole, paths=config.paths)


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
    """`Point 2 of 9: dataset.size=300`; the bare name in a search, which knows neither number nor settings beforehand."""
    entries = read_entries(folder)
    for number, entry in enumerate(entries, 1):
        if entry.name == name:
            return f"Point {number} of {len(entries)}: {entry.label}"
    return name


@contextmanager
def watched(folder: Path, entries: Sequence[Entry], launcher: str) -> Iterator[None]:
    """Prints a line for each point that starts or ends while points run in other processes."""
    if launcher == SERIAL:
        yield
        return
    labels = {entry.name: entry.label for entry in entries}
    seen = {file.stem: file.stat().st_mtime_ns for file in (folder / "points").glob("*.json")}
    ended = threading.Event()

    def look() -> None:
        for file in sorted((folder / "points").glob("*.json")):
            if (changed := file.stat().st_mtime_ns) != seen.get(file.stem):
                seen[file.stem] = changed
                console.say(_progress(labels.get(file.stem, file.stem), json.loads(file.read_text(encoding="utf-8"))))

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


def _progress(label: str, record: Mapping[str, Any]) -> str:
    status = f"started on {record['host']}" if record["status"] == "unfinished" else record["status"]
    return f"{label}: {status} {record.get('cause') or ''}".rstrip()
