"""Starts the process that builds a stage and listens to it; the only module that launches processes."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from minilima import console
from minilima.config.choices import DeviceKind
from minilima.config.schema import ComputeConfig
from minilima.environment import ROOT, free_bytes
from minilima.errors import MinilimaError, disk_full
from minilima.formats.files import size_text, write_atomic
from minilima.formats.records import Progress, Usage
from minilima.models.in_flight import LAST_SECONDS
from minilima.run.fork import Forked, can_fork, fork_worker
from minilima.run.gpus import leased, visible_gpus
from minilima.run.hosts import Commands, machines, processes_each, torchrun
from minilima.run.stages import spec_of
from minilima.store.job import Job, Outcome, parse_error
from minilima.store.progress import written_too

LOG_LINES_SHOWN = 6

_GRACE_SECONDS = 10.0
"""In less, also on a loaded machine, a worker ends, or says that replies are in flight."""

_LAST_SECONDS = 30.0
"""Other machines may take so long to end after the first one has."""

_NO_ROOM_BYTES, _LITTLE_ROOM_BYTES = 1_000_000, 1_000_000_000
"""Less is a full disk; less than the second may have been one, before a library took its half-written file away."""

_EXCEPTION = re.compile(r"(\[rank\d+\]: )?[\w.]+(Error|Exception): ")

_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_ARENA_MAX": "1"}
"""How glibc is to treat a stage's memory: freed blocks of up to 32 MiB are kept, for all threads together. Given back, as they
are unless something is set, each is asked for and cleared again by the next operation, which a small model on a CPU feels; kept
for each thread, they are kept several times."""

_EXPANDABLE = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
"""How torch is to treat a GPU's memory in training, whose rows have other lengths in every step: in segments that grow they leave
no gaps, and torch need not ask the driver for new ones, during which nothing else is started."""


def training_processes(compute: ComputeConfig) -> int:
    """How many processes train: what is set, else one for each GPU, else one."""
    if compute.processes is not None:
        return compute.processes
    gpus = 0 if compute.device == DeviceKind.cpu else len(visible_gpus())
    return max(1, gpus if compute.gpus is None else min(gpus, compute.gpus))


def run_stage(job: Job, on_progress: Callable[[Progress], None]) -> Outcome:
    """Builds a stage in a process of its own.

    Raises:
        MinilimaError: the stage reported an error, or its process died; the end of its log is quoted.
    """
    job_file = job.scratch / "job.json"
    write_atomic(job_file, job.to_json())
    on_progress = written_too(job.scratch, on_progress)
    log_file = job.scratch / "log.txt"
    outcome: Outcome | None = None
    error: MinilimaError | None = None
    waiting = Progress(done=0, total=None, unit="GPUs", note="waiting for a GPU that no other run has leased")
    with ExitStack() as running:
        gpus = running.enter_context(_gpus(job, lambda: on_progress(waiting)))
        log = running.enter_context(log_file.open("a", encoding="utf-8"))
        process = _started(job, job_file, gpus, log, running)
        assert process.stdout is not None
        try:
            for event in _events(process.stdout):
                if isinstance(event, Progress):
                    on_progress(event)
                elif isinstance(event, Outcome):
                    outcome = event
                else:
                    error = event
            status = process.wait()
        except BaseException:
            _end(process, trains=spec_of(job.kind).trains)
            raise
    if error is not None:
        raise error
    if outcome is None or status != 0:
        # Some libraries only say "iostream error", or die without a word.
        free = free_bytes(job.work)
        raise disk_full(str(job.work)) if free < _NO_ROOM_BYTES else _died(job.role, status, log_file, free)
    return outcome


def _started(
    job: Job, job_file: Path, gpus: Mapping[str, str], log: TextIO, running: ExitStack
) -> "subprocess.Popen[str] | Forked":
    """The process that builds the stage, which says how it goes, and those of other machines beside it."""
    commands = _commands(job, job_file)
    environment = {**_environment(job), **gpus}
    if commands.first == _worker(job_file) and can_fork():
        start = spec_of(job.kind).imports_torch(job.config, job.sources)
        if (forked := fork_worker(job_file, environment, log, start=start)) is not None:
            return forked
    process = subprocess.Popen(
        commands.first, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
    )
    for command in commands.others:
        running.enter_context(_beside(process, command, log))
    return process


def _end(process: "subprocess.Popen[str] | Forked", *, trains: bool) -> None:
    """Ends a worker: at once, or once the replies that are in flight are kept. A second Ctrl-C does not wait for them."""
    assert process.stdin is not None and process.stdout is not None
    timer = threading.Timer(0.0 if trains else _GRACE_SECONDS, process.kill)
    timer.start()
    try:
        process.stdin.close()
        for line in process.stdout:
            if count := _event(line).get("in_flight"):
                timer.cancel()
                timer = threading.Timer(LAST_SECONDS + _GRACE_SECONDS, process.kill)
                timer.start()
                replies = "1 reply is" if count == 1 else f"{count} replies are"
                console.warn(f"{replies} in flight: waiting for at most {LAST_SECONDS:.0f} s. Ctrl-C again ends at once.")
    except KeyboardInterrupt:
        pass
    finally:
        timer.cancel()
        process.kill()
        process.wait()


@contextmanager
def _gpus(job: Job, on_wait: Callable[[], None]) -> Iterator[dict[str, str]]:
    """The environment that shows the stage's processes the GPUs leased for it; empty where they may use all."""
    config, gpus = job.config, visible_gpus()
    computes = spec_of(job.kind).uses_gpu(config, job.sources)
    if not computes or not gpus or config.compute.gpus is None or config.compute.device == DeviceKind.cpu:
        yield {}
        return
    with leased(config.compute.gpus, gpus, on_wait) as held:
        yield {"CUDA_VISIBLE_DEVICES": ",".join(held)}


def _commands(job: Job, job_file: Path) -> Commands:
    compute = job.config.compute
    worker = _worker(job_file)
    if not spec_of(job.kind).trains:
        return Commands(first=worker)
    chosen = machines(compute)
    processes = processes_each(chosen, training_processes(compute))
    world = processes * max(1, len(chosen))
    if job.config.sft.batch_size % world:
        raise MinilimaError(
            f"A batch of {job.config.sft.batch_size} examples cannot be divided among {world} processes.",
            "Every step takes exactly sft.batch_size examples, whatever the hardware.",
            f"Choose compute.processes so that it divides {job.config.sft.batch_size}.",
        )
    if world == 1:
        return Commands(first=worker)
    return torchrun(chosen, processes, compute, worker[1:], _environment(job))


def _worker(job_file: Path) -> list[str]:
    return [sys.executable, "-m", "minilima.run.worker", str(job_file.absolute())]


@contextmanager
def _beside(first: "subprocess.Popen[str]", command: list[str], log: TextIO) -> Iterator[None]:
    """Runs a command on another machine for as long as the first one runs here; if it fails, that one is stopped."""
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def watch() -> None:
        if other.wait() != 0:
            first.terminate()

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        try:
            other.wait(timeout=_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            other.terminate()


def _environment(job: Job) -> dict[str, str]:
    quiet = {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "warning",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    package = str(ROOT)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    growing = _EXPANDABLE if spec_of(job.kind).trains else {}
    return {**_MALLOC, **growing, **os.environ, **quiet, "PYTHONPATH": path}


def _events(lines: Iterable[str]) -> Iterator[Progress | Outcome | MinilimaError]:
    """What a stage's process says; what libraries print between is passed over."""
    for line in lines:
        event = _event(line)
        if "progress" in event:
            yield Progress(**event["progress"])
        elif "outcome" in event:
            yield Outcome(metrics=event["outcome"]["metrics"], usage=Usage(**event["outcome"]["usage"]))
        elif "error" in event:
            yield parse_error(event["error"])


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}


def _died(role: str, status: int, log_file: Path, free: int) -> MinilimaError:
    lines = [line.strip() for line in log_file.read_text(errors="replace").splitlines() if line.strip()]
    # torchrun ends its log with a summary of its own; the first exception says what happened.
    raised = [line for line in lines if _EXCEPTION.match(line)][:1]
    killed = " It was killed, most often because the memory was full." if status in (-9, 137) else ""
    if free < _LITTLE_ROOM_BYTES:
        killed += f" The disk has only {size_text(free)} free, which may be the cause."
    return MinilimaError(
        f"The stage {role} stopped with exit status {status}.{killed}",
        f"It says: {raised[0]}" if raised else "The end of its log: " + " | ".join(lines[-LOG_LINES_SHOWN:]),
        f"The whole log is {log_file}; the same command resumes where it stopped.",
    )
