"""A real server as generator and judge: what `doctor` says of it, and the whole pipeline through our client.

    python benchmarks/servers.py --address http://127.0.0.1:8080/v1 --model smollm2 --server 'llama.cpp b11434' \
        --json benchmarks/results/server_llama_cpp.json

The model that is trained is a tiny one, made for the purpose: the server is what is tried. A key is read from $SERVER_KEY.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.publish import parser, publish
from tests.tiny import save_tiny_model

SMALL = (
    "data.instructions=8", "data.requests_per_round=2", "data.instructions_per_request=4", "data.max_rounds=6",
    "data.must_ask=false", "data.instance_tokens=64", "dataset.size=24", "sft.epochs=1", "sft.batch_size=4", "eval_set.size=4",
    "eval.max_tokens=24", "judge.max_tokens=32", "tracking=none",
)  # fmt: skip
STAGES = ("pool", "verdicts")


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


def examined(overrides: list[str]) -> list[str]:
    """What `doctor` says of the endpoints; its other findings are about this machine."""
    command = [sys.executable, "-m", "minilima", "doctor", *overrides]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [line for line in said.splitlines() if " endpoint " in line]


def manifest(outputs: Path, stage: str) -> dict[str, Any]:
    (file,) = outputs.glob(f"store/{stage}-*/manifest.json")
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--address", required=True, help="of the server's OpenAI-compatible API")
    arguments.add_argument("--model", required=True, help="its name there")
    arguments.add_argument("--server", required=True, help="name and version of the server, for the record")
    arguments.add_argument("--concurrency", type=int, default=2, help="requests in flight at once")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder) / "outputs"
        tiny = save_tiny_model(Path(folder) / "tiny")
        overrides = [*settings(chosen.address, chosen.model, chosen.concurrency), *SMALL]
        overrides += [f"model.path={tiny}", f"paths.outputs={outputs}"]
        says = examined(overrides)
        started = time.monotonic()
        minilima("run", *overrides)
        seconds = time.monotonic() - started
        again = minilima("run", *overrides)
        kept = {stage: manifest(outputs, stage) for stage in STAGES}
    usage = {stage: kept[stage]["usage"] for stage in STAGES}
    figures: dict[str, tuple[float | None, str]] = {
        "replies": (sum(usage[stage]["calls"] for stage in STAGES), "replies"),
        "tokens": (sum(usage[stage][name] for stage in STAGES for name in ("prompt_tokens", "completion_tokens")), "tokens"),
        "tasks": (kept["pool"]["metrics"]["tasks"], "tasks"),
        "judged": (kept["verdicts"]["metrics"]["judged"], "verdicts"),
        "whole_run": (round(seconds, 1), "seconds"),
        "second_run_builds_nothing": (int("started" not in again), "1_is_yes"),
    }
    faults = {stage: usage[stage]["faults"] for stage in STAGES}
    publish(figures, chosen.json, server=chosen.server, doctor=says, faults=faults, rejected=kept["pool"]["metrics"]["reasons"])


if __name__ == "__main__":
    main()
