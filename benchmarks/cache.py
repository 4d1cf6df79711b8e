"""What 200,000 replies in the cache cost: 805 pairs judged, judged again from the cache, and a finished run repeated.

    python benchmarks/cache.py --json benchmarks/results/cache.json

Each figure is the median of five, taken in turn with an empty cache and with a full one, each in a process of its own. The
loopback judge takes 50 ms a reply, 64 at once, so that the client's share shows; both orders are asked, 1,610 replies.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.judge import PAIRS, prepare_ours
from benchmarks.publish import parser, publish
from minilima.models.cache import CachedModel
from minilima.models.chat import OnReply, Reply, Request
from minilima.models.database import open_database
from tests.server import VALID_KEY

ROOT = Path(__file__).parent.parent
REPLIES, TIMES, LATENCY = 200_000, 5, 0.05
FIGURES = ("judged", "judged_again", "run_repeated", "peak_memory")


class _Nobody:
    """A model that is never asked: the cache is opened for its tables."""

    name = "nobody"

    def reply_many(self, requests: list[Request], on_reply: OnReply) -> list[Reply]:
        raise AssertionError("nobody is asked")


def fill(file: Path) -> None:
    """A cache of REPLIES replies of 600 characters, as a judge that explains writes them, under keys like real ones."""
    CachedModel(_Nobody(), file)  # type: ignore[arg-type]
    reply = Reply(text="This answer is better than the other. " * 16, finish="stop", prompt_tokens=900, completion_tokens=130)
    text = json.dumps(asdict(reply))
    database = open_database(file)
    database.execute("BEGIN")
    rows = ((hashlib.sha256(str(number).encode()).hexdigest(), text) for number in range(REPLIES))
    database.executemany("INSERT INTO replies VALUES (?, ?)", rows)
    database.execute("COMMIT")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def measure(folder: Path, address: str) -> dict[str, float]:
    """Seconds of judging with the cache in `folder`, and again from it; the peak memory of this process in MiB."""
    judge = prepare_ours(folder, address, "both")
    seconds = []
    for _ in range(2):
        started = time.monotonic()
        judge()
        seconds.append(time.monotonic() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"judged": seconds[0], "judged_again": seconds[1], "peak_memory": peak}


def in_own_process(folder: Path, address: str) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--folder", str(folder), "--address", address]
    environment = {**os.environ, "OPENAI_API_KEY": VALID_KEY}
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    measured: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return measured


def run(outputs: Path) -> float:
    """Seconds of a run as it is typed: a data set from a file, which is built the first time only."""
    examples = ROOT / "minilima" / "data" / "minilima_dev_50.jsonl"
    settings = ["data=file", f"data.path={examples}", "dataset.size=20", "until=dataset", "tracking=none"]
    started = time.monotonic()
    command = [sys.executable, "-m", "minilima", *settings, f"paths.outputs={outputs}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.monotonic() - started


def compare(folder: Path, address: str) -> dict[str, dict[str, list[float]]]:
    """Every figure's values, with an empty cache and with a full one."""
    full = folder / "full.sqlite"
    fill(full)
    found: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in FIGURES} for kind in ("empty", "full")}
    for number in range(TIMES):
        for kind, values in found.items():
            place = folder / f"{kind}_{number}"
            (place / "cache").mkdir(parents=True)
            if kind == "full":
                shutil.copyfile(full, place / "replies.sqlite")
            for name, value in in_own_process(place, address).items():
                values[name].append(value)
            # The run's cache is in its outputs: the same file.
            shutil.move(place / "replies.sqlite", place / "cache" / "replies.sqlite")
            run(place)
            values["run_repeated"].append(run(place))
    with sqlite3.connect(folder / "full_0" / "cache" / "replies.sqlite") as database:
        assert database.execute("SELECT count(*) FROM replies").fetchone()[0] == REPLIES + 2 * PAIRS
    return found


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    made.add_argument("--address", help=argparse.SUPPRESS)
    chosen = made.parse_args()
    if chosen.folder:
        print(json.dumps(measure(chosen.folder, chosen.address)))
        return
    command = [sys.executable, "-m", "tests.server", "--latency", str(LATENCY)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(Path(folder), address)
            size = (Path(folder) / "full.sqlite").stat().st_size
    finally:
        server.kill()
    figures: dict[str, tuple[float | None, str]] = {}
    for name in FIGURES:
        unit, digits = ("MiB", 0) if name == "peak_memory" else ("seconds", 3)
        for kind, values in found.items():
            figures[f"{name}_{kind}"] = (round(statistics.median(values[name]), digits), unit)
    figures["full_cache"] = (round(size / 2**20), "MiB")
    spread = {f"{name}_{kind}_all": [round(value, 3) for value in found[kind][name]] for name in FIGURES for kind in found}
    publish(figures, chosen.json, replies=REPLIES, pairs=PAIRS, latency_seconds=LATENCY, **spread)


if __name__ == "__main__":
    main()
