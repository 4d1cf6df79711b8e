"""The endpoint client with its reply cache and budget, against a loopback server that takes 200 ms for each reply.

    python benchmarks/client.py --json benchmarks/results/client.json

The client runs on one core. Two cases: 2,000 requests, 64 in flight; and 10,000 requests, 512 in flight. The ideal is
requests / concurrency x latency. CPU and memory are those of the client's process; what the first request of all takes, with
imports and certificates, is told apart. The server has a process of its own, on the other cores where there are any; its CPU for
each request is told too: where that is more than latency / concurrency, the server, one process of Python, sets the pace and no
client could come near the ideal. The floor is what aiohttp alone takes on the same event loop to send the same bodies and to read
the JSON of the replies, without a budget, a cache or any check: nothing built on it can take less.
"""

import asyncio
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import aiohttp
import psutil

from benchmarks.publish import parser, publish
from minilima.config.schema import BudgetConfig, EndpointConfig
from minilima.models.chat import Request, Sampling, ask
from minilima.models.endpoint import connect
from minilima.models.openai_api import chat_call
from minilima.models.wire import loop_factory
from tests.server import VALID_KEY

CASES = {"": (2000, 64), "large_": (10_000, 512)}
"""Requests, and how many in flight at once, by what their figures begin with."""
LATENCY = 0.2
_ROOT = Path(__file__).parent.parent


def measure(server: psutil.Process, address: str, requests: int, concurrency: int) -> dict[str, tuple[float | None, str]]:
    """Sends them all, and asks for all again, which sends none."""
    text = "Write eight new tasks in the manner of these. " * 30
    sampling = Sampling(temperature=0.7, max_tokens=512)
    asked = [Request(messages=ask(f"{n}. {text}"), sampling=sampling) for n in range(requests)]
    with tempfile.TemporaryDirectory() as folder:
        budget = BudgetConfig(tokens=10**9)
        endpoint = EndpointConfig(base_url=address, api_key_env="BENCHMARK_KEY", concurrency=concurrency, budget=budget)
        model = connect("model", "writer-small", endpoint, Path(folder) / "replies.sqlite", "benchmark")
        start = time.process_time()
        model.reply_many([Request(messages=ask("Are you there?"), sampling=sampling)])
        start = time.process_time() - start
        started, cpu, theirs = time.monotonic(), time.process_time(), sum(server.cpu_times()[:2])
        replies = model.reply_many(asked)
        wall, cpu, theirs = time.monotonic() - started, time.process_time() - cpu, sum(server.cpu_times()[:2]) - theirs
        assert all(reply.text for reply in replies) and model.usage.calls == requests + 1
        started = time.monotonic()
        model.reply_many(asked)
        again = time.monotonic() - started
    floor = floor_seconds(address, asked, concurrency)
    ideal = math.ceil(requests / concurrency) * LATENCY
    return {
        "wall": (round(wall, 2), "seconds"),
        "of_ideal": (round(wall / ideal, 3), "times"),
        "cpu_per_request": (round(1000 * cpu / requests, 3), "milliseconds"),
        "start_cpu": (round(start, 2), "seconds"),
        "floor_cpu_per_request": (round(1000 * floor / requests, 3), "milliseconds"),
        "server_cpu_per_request": (round(1000 * theirs / requests, 3), "milliseconds"),
        "peak_memory": (round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), "MiB"),
        "all_from_cache": (round(again, 3), "seconds"),
        "requests": (requests, "requests"),
        "concurrency": (concurrency, "requests"),
        "ideal_seconds": (round(ideal, 2), "seconds"),
    }


def floor_seconds(address: str, asked: list[Request], concurrency: int) -> float:
    """CPU time of sending them all by aiohttp alone."""

    async def send_all() -> None:
        waiting = iter(asked)
        headers = {"Authorization": f"Bearer {VALID_KEY}"}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency), headers=headers) as session:

            async def work() -> None:
                for request in waiting:
                    path, body = chat_call("writer-small", request)
                    async with session.post(f"{address}{path}", data=json.dumps(body).encode()) as answer:
                        assert json.loads(await answer.read())["choices"]

            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())

    cpu = time.process_time()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(send_all())
    return time.process_time() - cpu


def main() -> None:
    chosen = parser(__doc__).parse_args()
    os.environ["BENCHMARK_KEY"] = VALID_KEY
    ours, *others = sorted(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    command = [sys.executable, "-m", "tests.server", "--latency", str(LATENCY)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    os.sched_setaffinity(server.pid, others or [ours])
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    figures: dict[str, tuple[float | None, str]] = {}
    try:
        for name, (requests, concurrency) in CASES.items():
            os.sched_setaffinity(0, [ours])
            measured = measure(psutil.Process(server.pid), address, requests, concurrency)
            figures |= {f"{name}{figure}": value for figure, value in measured.items()}
    finally:
        server.kill()
    publish(figures, chosen.json, latency_seconds=LATENCY, load_average_before=round(load, 1))


if __name__ == "__main__":
    main()
