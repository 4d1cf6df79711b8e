"""Judging 805 pairs against a loopback judge that takes 200 ms a reply, 64 at once: ours, and alpaca_eval beside it.

    python benchmarks/judge.py --json benchmarks/results/judge.json

The ideal is replies / concurrency x latency. Each client has a process of its own, in which `wall` and `cpu` are of the judging
alone; `process` is from its start to its end, and peak memory is that of the whole process. Both use the chatgpt form;
alpaca_eval knows one order only. It runs twice: with 64 in flight like ours, and as it is without that setting (5 in flight).
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.publish import parser, publish
from tests.server import VALID_KEY

PAIRS, CONCURRENCY, LATENCY = 805, 64, 0.2
ORDERS = {"random": 1, "both": 2}
ALPACA_EVAL = {"alpaca_eval": CONCURRENCY, "alpaca_eval_default": 5}
"""Requests in flight; 5 is what alpaca_eval 0.6.6 takes where OPENAI_MAX_CONCURRENCY is not set."""
ROLES = {"reference": 0, "answers": 1}
MODEL = "writer-small"


def outputs(role: str) -> list[dict[str, str]]:
    """A model's answers: 1,500 and 1,600 characters, as long as those of chat models."""
    text = "This is a sentence of an answer. " * (46 + 3 * ROLES[role])
    return [{"instruction": f"Question {n}?", "output": f"{n} {role}: {text}", "generator": role} for n in range(PAIRS)]


def prepare_ours(folder: Path, address: str, orders: str) -> Callable[[], object]:
    """The verdicts stage as a run builds it."""
    from minilima.config.compose import load_config
    from minilima.evaluate.judge import build_verdicts
    from minilima.formats.files import write_jsonl
    from minilima.run.sources import resolve
    from minilima.store.job import Job

    for role in ROLES:
        rows = [{"id": str(n), **row, "tokens": 400, "truncated": False} for n, row in enumerate(outputs(role))]
        write_jsonl(folder / role / "answers.jsonl", rows)
    endpoint = {"base_url": address, "api_key_env": "OPENAI_API_KEY", "concurrency": CONCURRENCY}
    chosen = [f"endpoints.judge.{name}={value}" for name, value in endpoint.items()]
    config = load_config(["judge=chatgpt", f"judge.model={MODEL}", f"judge.orders={orders}", *chosen])
    inputs = {role: folder / role for role in ROLES}
    job = Job(
        kind="verdicts", role="verdicts", key="benchmark", work=folder, inputs=inputs, config=config, sources=resolve(config),
        cache=folder / "replies.sqlite",
    )  # fmt: skip

    def judge() -> None:
        assert build_verdicts(job, lambda progress: None).metrics["judged"] == PAIRS

    return judge


def prepare_alpaca_eval(folder: Path, address: str, client: str) -> Callable[[], object]:
    """alpaca_eval's own `evaluate` with its chatgpt judge."""
    os.environ |= {"OPENAI_BASE_URL": address, "HF_HUB_OFFLINE": "1"}
    if client != "alpaca_eval_default":
        os.environ["OPENAI_MAX_CONCURRENCY"] = str(ALPACA_EVAL[client])
    import alpaca_eval

    for role in ROLES:
        (folder / f"{role}.json").write_text(json.dumps(outputs(role)))
    own = Path(alpaca_eval.__file__).parent / "evaluators_configs" / "chatgpt"
    (folder / "chatgpt").mkdir()
    (folder / "chatgpt" / "basic_prompt.txt").write_text((own / "basic_prompt.txt").read_text())
    configs = (own / "configs.yaml").read_text().replace("gpt-3.5-turbo-0301", MODEL)
    (folder / "chatgpt" / "configs.yaml").write_text(configs)

    def judge() -> None:
        board, _ = alpaca_eval.evaluate(
            model_outputs=str(folder / "answers.json"), reference_outputs=str(folder / "reference.json"),
            annotators_config=str(folder / "chatgpt" / "configs.yaml"), caching_path=str(folder / "cache.json"),
            output_path=str(folder / "results"), fn_metric="get_winrate", sort_by="win_rate", precomputed_leaderboard=None,
            is_return_instead_of_print=True,
        )  # fmt: skip
        assert board.loc["answers", "n_total"] == PAIRS

    return judge


def measure(client: str, address: str) -> dict[str, float]:
    """Seconds of wall and CPU time of one client's judging, and the peak memory of this process in MiB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge = prepare_alpaca_eval(folder, address, client) if client in ALPACA_EVAL else prepare_ours(folder, address, client)
        started, cpu = time.monotonic(), time.process_time()
        judge()
        wall, cpu = time.monotonic() - started, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def in_own_process(client: str, address: str) -> dict[str, float]:
    """`measure` in a fresh process, with the seconds from its start to its end."""
    command = [sys.executable, str(Path(__file__).resolve()), "--client", client, "--address", address]
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_MAX_CONCURRENCY"}
    started = time.monotonic()
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        env={**environment, "OPENAI_API_KEY": VALID_KEY},
    )
    measured: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return {**measured, "process": time.monotonic() - started}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--client", choices=[*ORDERS, *ALPACA_EVAL], help=argparse.SUPPRESS)
    made.add_argument("--address", help=argparse.SUPPRESS)
    chosen = made.parse_args()
    if chosen.client:
        print(json.dumps(measure(chosen.client, chosen.address)))
        return
    load = round(os.getloadavg()[0], 1)
    command = [sys.executable, "-m", "tests.server", "--latency", str(LATENCY)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    try:
        measured = {client: in_own_process(client, address) for client in (*ORDERS, *ALPACA_EVAL)}
    finally:
        server.kill()
    figures: dict[str, tuple[float | None, str]] = {}
    for client, values in measured.items():
        name = client if client in ALPACA_EVAL else f"minilima_{client}"
        ideal = math.ceil(ORDERS.get(client, 1) * PAIRS / ALPACA_EVAL.get(client, CONCURRENCY)) * LATENCY
        figures[f"{name}_wall"] = (round(values["wall"], 2), "seconds")
        figures[f"{name}_of_ideal"] = (round(values["wall"] / ideal, 2), "times")
        figures[f"{name}_process"] = (round(values["process"], 2), "seconds")
        figures[f"{name}_cpu"] = (round(values["cpu"], 2), "seconds")
        figures[f"{name}_peak_memory"] = (round(values["peak_memory"]), "MiB")
    for client in ALPACA_EVAL:
        faster = measured[client]["wall"] / measured["random"]["wall"]
        figures[f"faster_than_{client}"] = (round(faster, 1), "times")
    in_flight = {"minilima": CONCURRENCY, **ALPACA_EVAL}
    details = {"pairs": PAIRS, "concurrency": in_flight, "latency_seconds": LATENCY, "load_average_before": load}
    publish(figures, chosen.json, **details)


if __name__ == "__main__":
    main()
