"""A real server as generator and judge: what `doctor` says of it, and a whole run that is killed twice and goes on.

    python benchmarks/servers.py --server 'llama.cpp b11434' --address http://127.0.0.1:8080/v1 --model smollm2 \
        --start 'llama-server -m SmolLM2-135M-Instruct.Q4_1.gguf --alias smollm2 --port 8080 -c 8192 -np 2' \
        --json benchmarks/results/server_llama_cpp.json

Without --start the server is one that runs already. --answers starts a server for each of the models that are compared; they
then answer there (compute.served_at). A proxy in between notes every request. A key is read from $SERVER_KEY. The runs are
made without a hub.
"""

import argparse
import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.publish import parser, publish
from benchmarks.recorder import Exchange, Recorder
from minilima.models.dialects import Dialects
from minilima.models.refusals import said_in
from minilima.run.probe import TEXT
from tests.tiny import save_tiny_model

SMALL = (
    "data.instructions=8", "data.requests_per_round=2", "data.instructions_per_request=4", "data.max_rounds=6",
    "data.must_ask=false", "data.instance_tokens=64", "dataset.size=24", "sft.epochs=1", "sft.batch_size=4", "eval_set.size=4",
    "eval.max_tokens=24", "judge.max_tokens=32", "compute=cpu", "tracking=none",
)  # fmt: skip
STAGES = ("pool", "answers", "verdicts")
READY_SECONDS, END_SECONDS = 900, 60
REPLIES_BEFORE_A_KILL = 3
_SHOWN = 200


@contextmanager
def running(command: str | None, address: str, log: Path) -> Iterator[float]:
    """A server that answers at `address`, and the seconds that it took to begin; `command` None = it runs already."""
    started = time.monotonic()
    with log.open("wb") as file, ExitStack() as stack:
        process = None
        if command is not None:
            process = subprocess.Popen(shlex.split(command), stdout=file, stderr=file, start_new_session=True)
            stack.callback(end, process)
        while not answers(address):
            if time.monotonic() - started > READY_SECONDS or (process is not None and process.poll() is not None):
                raise SystemExit(f"The server at {address} does not answer:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.5)
        yield time.monotonic() - started


def answers(address: str) -> bool:
    """Whether it is ready: llama.cpp's says 503 until then; transformers serve has no list of models of its own, and says 500."""
    try:
        return httpx.get(f"{address}/models", timeout=5).status_code != 503
    except httpx.HTTPError:
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    """A server with all its processes."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def settings(address: str, model: str, concurrency: int) -> list[str]:
    """Generator and judge at the server."""
    named = ["generator=openai", f"generator.model={model}", "judge=chatgpt", f"judge.model={model}"]
    ways = {"base_url": address, "api_key_env": "SERVER_KEY", "concurrency": concurrency, "timeout_seconds": 600}
    return [*named, *(f"endpoints.{who}.{name}={value}" for who in ("generator", "judge") for name, value in ways.items())]


def minilima(*arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "minilima", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def examined(overrides: Sequence[str]) -> list[str]:
    """What `doctor` says of the endpoints; its other findings are about this machine."""
    command = [sys.executable, "-m", "minilima", "doctor", *overrides]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [line for line in said.splitlines() if " endpoint " in line]


def killed(overrides: Sequence[str], when: Callable[[], bool], recorder: Recorder) -> bool:
    """Whether a run was killed with SIGKILL, as soon as `when` says so; waits until nothing of it is on its way."""
    process = subprocess.Popen(
        [sys.executable, "-m", "minilima", "run", *overrides], stdout=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and not when():
        time.sleep(0.02)
    was_running = process.poll() is None
    if was_running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while recorder.in_flight:
        time.sleep(0.1)
    return was_running


def is_reply(exchange: Exchange) -> bool:
    """Whether it is one that is kept: a completion that is not empty, of a stage and not of a probe."""
    choice = exchange.choice
    return choice is not None and not is_probe(exchange) and bool((choice["message"].get("content") or "").strip())


def is_probe(exchange: Exchange) -> bool:
    return TEXT in str(exchange.sent)


def kept(outputs: Path) -> int:
    """Replies in the database, of the models behind endpoints and of others."""
    with closing(sqlite3.connect(outputs / "cache" / "replies.sqlite")) as database:
        count: int = database.execute("SELECT count(*) FROM replies").fetchone()[0]
    return count


def manifests(outputs: Path, stage: str) -> list[dict[str, Any]]:
    """Of a stage; answers are those of the tuned model and those of the base model."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in outputs.glob(f"store/{stage}-*/manifest.json")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def serve_models(command: str, outputs: Path, logs: Path, stack: ExitStack) -> list[str]:
    """Starts a server for the tuned model and one for the base model; their addresses."""
    addresses = []
    folders = [next(outputs.glob(f"store/{role}-*")) for role in ("model", "base")]
    for folder in folders:
        port = free_port()
        filled = command.format(folder=folder, name=folder.name, port=port)
        addresses.append(f"http://127.0.0.1:{port}/v1")
        stack.enter_context(running(filled, addresses[-1], logs / f"{folder.name}.log"))
    return addresses


def refusals(exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """What the server refused, in its words, each once."""
    counted = Counter((item.status, said_in(_parsed(item.answer))[:_SHOWN]) for item in exchanges if item.status != 200)
    return [{"status": status, "says": says, "times": times} for (status, says), times in counted.items()]


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def learned(outputs: Path, address: str, model: str) -> list[str]:
    with closing(sqlite3.connect(outputs / "cache" / "replies.sqlite")) as database:
        return Dialects(database).load(address, model).words()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--server", required=True, help="name and version of the server, for the record")
    arguments.add_argument("--start", metavar="COMMAND", help="starts the server")
    arguments.add_argument("--address", required=True, help="of the server's OpenAI-compatible API")
    arguments.add_argument("--model", required=True, help="its name there")
    arguments.add_argument("--concurrency", type=int, default=2, help="requests in flight at once")
    arguments.add_argument("--base", help="a packaged model to train; not given = a tiny one, made for the purpose")
    arguments.add_argument("--answers", metavar="COMMAND", help="serves {folder} as {name} at {port}, for the models' answers")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        seconds = stack.enter_context(running(chosen.start, chosen.address, Path(folder) / "server.log"))
        recorder = stack.enter_context(Recorder(address=chosen.address))
        figures, details = tried(chosen, Path(folder), recorder, stack)
    publish({"server_ready": (round(seconds, 1), "seconds"), **figures}, chosen.json, server=chosen.server, **details)


def tried(
    chosen: argparse.Namespace, folder: Path, recorder: Recorder, stack: ExitStack
) -> tuple[dict[str, tuple[float | None, str]], dict[str, Any]]:
    """Figures and details of one run, killed while tasks are written and while answers are judged."""
    outputs = folder / "outputs"
    base = f"model={chosen.base}" if chosen.base else f"model.path={save_tiny_model(folder / 'tiny')}"
    run = [*settings(recorder.url, chosen.model, chosen.concurrency), *SMALL, base, f"paths.outputs={outputs}"]
    says = examined([*settings(chosen.address, chosen.model, chosen.concurrency), base, f"paths.outputs={folder / 'examined'}"])
    run += ["eval.repetition_penalty=null"] if chosen.answers else []
    replies = lambda: [item for item in recorder.exchanges if is_reply(item)]  # noqa: E731
    started = time.monotonic()
    kills = killed([*run, "until=pool"], lambda: len(replies()) >= REPLIES_BEFORE_A_KILL, recorder)
    lost = len(replies()) - kept(outputs)
    minilima("run", *run, "until=model")
    written = len(replies())
    if chosen.answers:
        run += [f"compute.served_at=[{','.join(serve_models(chosen.answers, outputs, folder, stack))}]"]
    minilima("run", *run, "until=answers")
    others = kept(outputs) - (written - lost)
    kills += killed(run, lambda: len(replies()) > written, recorder)
    lost += len(replies()) - written - (kept(outputs) - others - (written - lost))
    minilima("run", *run)
    again = len(replies()) - lost - (kept(outputs) - others)
    took = time.monotonic() - started
    second = minilima("run", *run)
    records = {stage: manifests(outputs, stage) for stage in STAGES}
    ((pool,), (verdicts,)) = records["pool"], records["verdicts"]
    served = sum(record["usage"]["calls"] for record in records["answers"])
    choices = [item.choice for item in recorder.exchanges if item.choice is not None and not is_probe(item)]
    figures: dict[str, tuple[float | None, str]] = {
        "requests": (len(recorder.exchanges), "requests"),
        "replies": (len(replies()), "replies"),
        "tokens": (sum(((json.loads(item.answer).get("usage") or {}).get("total_tokens") or 0) for item in replies()), "tokens"),
        "tasks": (pool["metrics"]["tasks"], "tasks"),
        "answers": (sum(record["metrics"]["answers"] for record in records["answers"]), "answers"),
        "answers_from_servers": (served if chosen.answers else 0, "answers"),
        "judged": (verdicts["metrics"]["judged"], "verdicts"),
        "kills": (kills, "kills"),
        "replies_lost_on_the_way": (lost, "replies"),
        "answered_and_sent_again": (again, "requests"),
        "whole_run": (round(took, 1), "seconds"),
        "second_run_builds_nothing": (int("started" not in second), "1_is_yes"),
    }
    details = {
        "doctor": says,
        "refused": refusals(recorder.exchanges),
        "learned": learned(outputs, recorder.url, chosen.model),
        "finish_reasons": dict(Counter(str(choice["finish_reason"]) for choice in choices)),
        "faults": {stage: [record["usage"]["faults"] for record in records[stage]] for stage in STAGES},
        "rejected": pool["metrics"]["reasons"],
        "sent": sorted({name for item in recorder.exchanges for name in item.sent}),
    }
    return figures, details


if __name__ == "__main__":
    main()
