"""Starts the process that builds a stage and listens to it; the only place where processes are launched."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minilima.config import ComputeConfig, Device
from minilima.errors import MinilimaError
from minilima.records import Progress, Usage
from minilima.store import Outcome
from minilima.worker import Job, parse_error

LOG_LINES_SHOWN = 6

_EXCEPTION = re.compile(r"(\[rank\d+\]: )?[\w.]+(Error|Exception): ")


def gpu_count() -> int:
    """GPUs this process may use, without importing torch: $CUDA_VISIBLE_DEVICES, or what nvidia-smi lists."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([item for item in visible.split(",") if item.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def training_processes(compute: ComputeConfig) -> int:
    """How many processes train: what is set, else one for each GPU, else one."""
    if compute.processes is not None:
        return compute.processes
    return 1 if compute.device == Device.cpu else max(1, gpu_count())


def run_stage(job: Job, on_progress: Callable[[Progress], None]) -> Outcome:
    """Builds a stage in a process of its own.

    Raises:
        MinilimaError: the stage reported an error, or its process died; the end of its log is quoted.
    """
    job_file = job.scratch / "job.json"
    job_file.write_text(job.to_json(), encoding="utf-8")
    log_file = job.scratch / "log.txt"
    outcome: Outcome | None = None
    error: MinilimaError | None = None
    with log_file.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*_prefix(job), str(job_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_environment(),
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                event = _event(line)
                if "progress" in event:
                    on_progress(Progress(**event["progress"]))
                elif "outcome" in event:
                    usage = Usage(**event["outcome"]["usage"])
                    outcome = Outcome(metrics=event["outcome"]["metrics"], usage=usage)
                elif "error" in event:
                    error = parse_error(event["error"])
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    if error is not None:
        raise error
    if outcome is None or status != 0:
        raise _died(job.role, status, log_file)
    return outcome


def _prefix(job: Job) -> list[str]:
    processes = training_processes(job.config.compute) if job.role == "model" else 1
    if job.config.sft.batch_size % processes:
        raise MinilimaError(
            f"A batch of {job.config.sft.batch_size} examples cannot be divided among {processes} processes.",
            "Every step takes exactly sft.batch_size examples, whatever the hardware.",
            f"Choose compute.processes so that it divides {job.config.sft.batch_size}.",
        )
    if processes == 1:
        return [sys.executable, "-m", "minilima.worker"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*torchrun, "-m", "minilima.worker"]


def _environment() -> dict[str, str]:
    quiet = {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "warning",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    package = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {**os.environ, **quiet, "PYTHONPATH": path}


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}


def _died(role: str, status: int, log_file: Path) -> MinilimaError:
    lines = [line.strip() for line in log_file.read_text(errors="replace").splitlines() if line.strip()]
    # torchrun ends its log with a summary of its own; the first exception says what happened.
    raised = [line for line in lines if _EXCEPTION.match(line)][:1]
    killed = " It was killed, most often because the memory was full." if status in (-9, 137) else ""
    return MinilimaError(
        f"The stage {role} stopped with exit status {status}.{killed}",
        f"It says: {raised[0]}" if raised else "The end of its log: " + " | ".join(lines[-LOG_LINES_SHOWN:]),
        f"The whole log is {log_file}; the same command goes on where it stopped.",
    )
