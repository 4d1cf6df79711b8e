"""How long a sweep of 100 points takes to plan, from nothing and with everything finished; and points beside each other on GPUs.

    python benchmarks/sweep.py --json benchmarks/results/sweep.json
    python benchmarks/sweep.py --parallel 8 --json FILE overrides…      # on a machine with 8 GPUs

The first plans 10 sizes x 10 learning rates of the quickstart; `finished` has a stand-in for each of the 313 stages in the
store, with a file of a megabyte. With `--parallel N`, N points (learning rates) of the experiment in the overrides are trained
one after the other, each on one GPU, and then all at once with a GPU leased to each; what they share is built before.
"""

import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.publish import parser, publish
from minilima.config.sweep_grid import expand
from minilima.pipeline import stages
from minilima.run.sources import resolve
from minilima.store.entries import Store
from minilima.store.job import Outcome

SIZES = ",".join(str(number) for number in range(10, 20))
RATES = ",".join(f"{number}e-5" for number in range(1, 11))
POINTS = ["+sweep=size_lr", "+experiment=quickstart", f"dataset.size={SIZES}", f"sft.learning_rate={RATES}"]
TIMES = 7


def timed(*arguments: str) -> tuple[float, float, str]:
    """(seconds, seconds of CPU, standard output) of one minilima command."""
    before, started = os.times(), time.monotonic()
    result = subprocess.run([sys.executable, "-m", "minilima", *arguments], capture_output=True, text=True, check=False)
    seconds, after = time.monotonic() - started, os.times()
    if result.returncode:
        raise SystemExit(f"minilima {shlex.join(arguments)} failed: {result.stderr}{result.stdout[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, cpu, result.stdout


def finish_all(outputs: Path) -> int:
    """Puts a stand-in for every stage of the sweep into the store; returns how many there are."""

    def build(work: Path) -> Outcome:
        (work / "file").write_bytes(bytes(1_000_000))
        return Outcome(metrics={})

    store = Store(outputs / "store")
    directories = set()
    for point in expand([*POINTS, f"paths.outputs={outputs}"]).points:
        for stage in [node.stage for node in stages(point.config, resolve(point.config)).until(point.config.until)]:
            store.get_or_build(stage, build)
            directories.add(stage.directory)
    return len(directories)


def plans() -> dict[str, tuple[float | None, str]]:
    figures: dict[str, tuple[float | None, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("empty", "finished"):
            if name == "finished":
                finish_all(Path(folder))
            runs = [timed("plan", *POINTS, f"paths.outputs={folder}") for _ in range(TIMES)]
            points, planned, to_build = (int(text) for text in re.findall(r"(\d+) (?:points|stages|to build)", runs[0][2])[:3])
            figures |= {
                f"{name}_plan": (round(statistics.median(seconds for seconds, _, _ in runs), 2), "seconds"),
                f"{name}_plan_cpu": (round(statistics.median(cpu for _, cpu, _ in runs), 2), "seconds"),
                f"{name}_to_build": (to_build, "stages"),
            }
    return {"points": (points, "points"), "stages": (planned, "stages"), **figures}


def parallel(count: int, overrides: list[str]) -> dict[str, tuple[float | None, str]]:
    rates = ",".join(f"{number}e-6" for number in range(1, count + 1))
    seconds = {}
    for name, launcher in (("serial", []), ("parallel", ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={count}"])):
        with tempfile.TemporaryDirectory() as folder:
            own = [*overrides, f"paths.outputs={folder}", "tracking=none"]
            timed(*own, "until=dataset")
            seconds[name], _, _ = timed("-m", *launcher, *own, "compute.gpus=1", "until=model", f"sft.learning_rate={rates}")
    return {
        "points": (count, "points"),
        "serial": (round(seconds["serial"], 1), "seconds"),
        "parallel": (round(seconds["parallel"], 1), "seconds"),
        "speed_up": (round(seconds["serial"] / seconds["parallel"], 2), "times"),
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--parallel", type=int, help="so many points beside each other, a GPU each")
    arguments.add_argument("overrides", nargs="*", help="the experiment of --parallel")
    chosen = arguments.parse_args()
    publish(parallel(chosen.parallel, chosen.overrides) if chosen.parallel else plans(), chosen.json)


if __name__ == "__main__":
    main()
