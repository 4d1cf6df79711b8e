"""How long the quickstart takes and how much memory: a first run, the same again, `plan` and `--help`, and a plan from Python.

    python benchmarks/quickstart.py --json benchmarks/results/quickstart.json

Prints one `name value unit` a line. The memory is that of the command and all of its child processes, sampled once a
second: the largest sum of their resident sets, in which memory that several of them share counts once (Linux's PSS). From Python:
`import minilima` with `load_config`, and `plan`, the medians of fresh processes without the interpreter's start. Run it on an
idle machine, after `make install` (which fetches the models).
"""

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil

from benchmarks.publish import parser, publish

RUN = ["+experiment=quickstart", "tracking=none"]

FROM_PYTHON = """
import sys, time
began = time.perf_counter()
import minilima
config = minilima.load_config(sys.argv[1:])
composed = time.perf_counter()
minilima.plan(config)
print(composed - began, time.perf_counter() - composed)
"""
PROCESSES = 7


def timed(*arguments: str) -> tuple[float, float, str]:
    """(seconds, peak GiB, standard output) of one minilima command."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "minilima", *arguments], stdout=subprocess.PIPE, text=True)
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"minilima {shlex.join(arguments)} failed")
    return seconds, peak[0] / 2**30, output


def _watch(pid: int, peak: list[int]) -> None:
    while psutil.pid_exists(pid):
        total = 0
        try:
            top = psutil.Process(pid)
            for process in (top, *top.children(recursive=True)):
                total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # one has just ended
        peak[0] = max(peak[0], total)
        time.sleep(1.0)


def from_python(*overrides: str) -> tuple[float, float]:
    """Seconds to import and compose, and to plan."""
    command = [sys.executable, "-c", FROM_PYTHON, *overrides]
    told = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(PROCESSES)]
    composing, planning = zip(*(map(float, seconds) for seconds in told), strict=True)
    return statistics.median(composing), statistics.median(planning)


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = f"paths.outputs={folder}"
        first, peak, _ = timed(*RUN, place)
        again, _, output = timed(*RUN, place)
        assert "Everything was reused" in output
        plan, _, _ = timed("plan", *RUN, place)
        composing, planning = from_python(*RUN, place)
        record = json.loads(next(Path(folder).glob("runs/*/run.json")).read_text())
        stages = {stage["role"]: manifest_seconds(Path(folder), stage["directory"]) for stage in record["stages"]}
    help_seconds, _, _ = timed("--help")
    return {
        "first_run_seconds": round(first, 1),
        "peak_gib": round(peak, 2),
        "second_run_seconds": round(again, 2),
        "plan_seconds": round(plan, 2),
        "help_seconds": round(help_seconds, 2),
        "python_compose_seconds": round(composing, 2),
        "python_plan_seconds": round(planning, 2),
        "stage_seconds": stages,
        "results": record["results"],
    }


def manifest_seconds(folder: Path, directory: str) -> float:
    return float(json.loads((folder / "store" / directory / "manifest.json").read_text())["seconds"])


def main() -> None:
    chosen = parser(__doc__).parse_args()
    measured = measure()
    times = ("first_run", "second_run", "plan", "help", "python_compose", "python_plan")
    figures = {f"{name}_seconds": (measured.pop(f"{name}_seconds"), "seconds") for name in times}
    figures["peak_gib"] = (measured.pop("peak_gib"), "GiB")
    publish(figures, chosen.json, **measured)


if __name__ == "__main__":
    main()
