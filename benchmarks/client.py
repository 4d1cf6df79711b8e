"""The endpoint client with its reply cache and budget, against a loopback server that takes 200 ms for each reply.

    python benchmarks/client.py --json benchmarks/results/client.json

The ideal is requests / concurrency x latency. CPU and memory are those of the client's process; the server has its own.
"""

import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.publish import parser, publish
from minilima.config.schema import BudgetConfig, EndpointConfig
from minilima.models.chat import Request, Sampling, ask
from minilima.models.endpoint import connect
from tests.server import VALID_KEY

REQUESTS, CONCURRENCY, LATENCY = 2000, 64, 0.2


def main() -> None:
    chosen = parser(__doc__).parse_args()
    os.environ["BENCHMARK_KEY"] = VALID_KEY
    command = [sys.executable, "-m", "tests.server", "--latency", str(LATENCY)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    text = "Write eight new tasks in the manner of these. " * 30
    requests = [
        Request(messages=ask(f"{n}. {text}"), sampling=Sampling(temperature=0.7, max_tokens=512)) for n in range(REQUESTS)
    ]
    with tempfile.TemporaryDirectory() as folder:
        budget = BudgetConfig(tokens=10**9)
        endpoint = EndpointConfig(base_url=address, api_key_env="BENCHMARK_KEY", concurrency=CONCURRENCY, budget=budget)
        model = connect("model", "writer-small", endpoint, Path(folder) / "replies.sqlite", "benchmark")
        started, cpu = time.monotonic(), time.process_time()
        replies = model.reply_many(requests)
        wall, cpu = time.monotonic() - started, time.process_time() - cpu
        assert all(reply.text for reply in replies) and model.usage.calls == REQUESTS
        started = time.monotonic()
        model.reply_many(requests)
        again = time.monotonic() - started
    server.kill()
    ideal = math.ceil(REQUESTS / CONCURRENCY) * LATENCY
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures: dict[str, tuple[float | None, str]] = {
        "wall": (round(wall, 2), "seconds"),
        "of_ideal": (round(wall / ideal, 3), "times"),
        "cpu_per_request": (round(1000 * cpu / REQUESTS, 2), "milliseconds"),
        "peak_memory": (round(peak), "MiB"),
        "all_from_cache": (round(again, 3), "seconds"),
    }
    publish(figures, chosen.json, requests=REQUESTS, concurrency=CONCURRENCY, latency_seconds=LATENCY, ideal_seconds=ideal)


if __name__ == "__main__":
    main()
