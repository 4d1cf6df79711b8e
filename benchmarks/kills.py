"""A construct run killed with SIGKILL at random moments, and gone on with by the same command, beside an uninterrupted one.

    python benchmarks/kills.py --json benchmarks/results/kills.json

Counts what differs between the results, and requests that were answered and then sent again. Replies that were on their
way at a kill do not count as answered: nobody had them.
"""

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.publish import parser, publish
from minilima.formats.files import sha256_text
from tests.generate.test_pool import writer
from tests.server import VALID_KEY, ModelServer

KILLS = 20


def command(server: ModelServer, outputs: Path) -> list[str]:
    settings = ["generator=openai", "generator.model=writer-small", f"endpoints.generator.base_url={server.url}"]
    sizes = ["data.instructions=300", "data.requests_per_round=10", "data.max_similarity=0.95", "generator.json_schema=false"]
    return [sys.executable, "-m", "minilima", *settings, *sizes, "until=dataset", "tracking=none", f"paths.outputs={outputs}"]


def result(outputs: Path) -> dict[str, str]:
    """sha256 of every file of pool and data set, manifests left out: they tell times."""
    files = sorted(outputs.glob("store/*/*.jsonl"))
    return {f"{file.parent.name}/{file.name}": sha256_text(file.read_text()) for file in files}


def kept(outputs: Path) -> int:
    database = outputs / "cache" / "replies.sqlite"
    if not database.is_file():
        return 0
    try:
        count: int = sqlite3.connect(database).execute("SELECT count(*) FROM replies").fetchone()[0]
    except sqlite3.OperationalError:  # killed before its tables were made
        return 0
    return count


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--kills", type=int, default=KILLS)
    chosen = arguments.parse_args()
    environment = {**os.environ, "OPENAI_API_KEY": VALID_KEY}
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder, ModelServer(latency=0.05) as server:
        server.answer = writer
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        started = time.monotonic()
        subprocess.run(command(server, whole), env=environment, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        needed = len(server.requests)
        server.requests.clear()
        lost = kills = 0
        for moment in sorted(rng.sample(range(1, needed), chosen.kills)):
            had, seen = kept(killed), len(server.requests)
            process = subprocess.Popen(command(server, killed), env=environment, stdout=subprocess.DEVNULL)
            while process.poll() is None and len(server.requests) < moment + lost:
                time.sleep(0.002)
            time.sleep(rng.uniform(0.0, 0.05))
            kills += process.poll() is None
            process.kill()
            process.wait()
            time.sleep(1.0)  # an orphaned worker notices that its parent has died
            lost += (len(server.requests) - seen) - (kept(killed) - had)
        subprocess.run(command(server, killed), env=environment, check=True, stdout=subprocess.DEVNULL)
        again = len(server.requests) - needed - lost
        same = result(whole) == result(killed)
    figures: dict[str, tuple[float | None, str]] = {
        "kills": (kills, "kills"),
        "requests_needed": (needed, "requests"),
        "replies_lost_on_the_way": (lost, "replies"),
        "answered_and_sent_again": (again, "requests"),
        "files_equal": (int(same), "1_is_yes"),
        "uninterrupted": (round(seconds, 1), "seconds"),
    }
    publish(figures, chosen.json)


if __name__ == "__main__":
    main()
