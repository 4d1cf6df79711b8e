"""Which code each benchmark measures, and whether a result is older than it: by contents, so that no history is needed."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_WEIGHTS = (
    "minilima/models/attention.py", "minilima/models/checkpoint.py", "minilima/models/packing.py", "minilima/models/template.py",
    "minilima/models/tokenizer.py", "minilima/models/traits.py", "minilima/models/weights.py",
)  # fmt: skip
_LOCAL = (
    "minilima/formats", "minilima/models/chat.py", "minilima/models/decoding.py", "minilima/models/drafts.py",
    "minilima/models/kv_cache.py", "minilima/models/local.py", "minilima/models/loss.py", "minilima/models/masking.py",
    "minilima/models/request_tokens.py", "minilima/models/sampling.py", "minilima/models/sampling_triton.py", *_WEIGHTS,
)  # fmt: skip
_ENDPOINT = (
    "minilima/models/address.py", "minilima/models/budget.py", "minilima/models/cache.py", "minilima/models/chat.py",
    "minilima/models/database.py", "minilima/models/dialect.py", "minilima/models/dialects.py", "minilima/models/endpoint.py",
    "minilima/models/in_flight.py", "minilima/models/openai_api.py", "minilima/models/pacing.py",
    "minilima/models/reasoning.py", "minilima/models/refusals.py", "minilima/models/wire.py",
)  # fmt: skip
_JUDGE = (*_ENDPOINT, "minilima/evaluate", "minilima/prompts/judge")
_WHOLE = ("minilima", "conf")
MEASURES: Mapping[str, tuple[str, ...]] = {
    "authors": ("minilima/generate", *_LOCAL),
    "cache": (*_JUDGE, "minilima/run", "minilima/store"),
    "chaos": ("benchmarks/chaos_case.py", *_WHOLE),
    "classification": (*_LOCAL, "minilima/generate/classification.py", "minilima/data"),
    "client": _ENDPOINT,
    "dedupe": ("minilima/generate/near_duplicates.py", "minilima/rouge.py"),
    "embedded_data": ("minilima/generate", "minilima/models", "conf/experiment"),
    "generation": ("minilima/models/vllm.py", *_LOCAL),
    "judge": _JUDGE,
    "kills": (*_ENDPOINT, "minilima/generate", "minilima/run", "minilima/store"),
    "lima_run": ("minilima/train", "minilima/run", "minilima/store"),
    "neighbours": _LOCAL,
    "quickstart": _WHOLE,
    "selection": ("minilima/generate", *_LOCAL),
    "servers": ("benchmarks/recorder.py", *_JUDGE, "minilima/generate", "minilima/run"),
    "sft_throughput": (
        "benchmarks/peers.py",
        "benchmarks/peer_llamafactory.py",
        "benchmarks/sft_cases.py",
        "minilima/models/loss.py",
        "minilima/models/loss_triton.py",
        "minilima/train",
        "!minilima/train/memory.py",
        "!minilima/train/convert.py",
        *_WEIGHTS,
    ),
    "sweep": ("minilima/config", "minilima/run", "minilima/store", "minilima/pipeline.py"),
    "talk": (
        "minilima/cli/chat.py",
        "minilima/cli/chat_blind.py",
        "minilima/cli/chat_screen.py",
        "minilima/cli/chat_session.py",
        "minilima/console.py",
        "minilima/models/streaming.py",
    ),
    "tour": _WHOLE,
}
"""Files and folders that each benchmark runs, beside itself, but those after a `!`; a new benchmark needs its line here. The
memory forecast is none of them, for the page makes it anew, and the benchmark of training converts nothing."""


def digest(benchmark: str) -> str:
    """Of a benchmark and of all the code that it measures."""
    named = [ROOT / "benchmarks" / f"{benchmark}.py", *(ROOT / path for path in MEASURES[benchmark] if path[0] != "!")]
    files = {file for path in named for file in (path.rglob("*") if path.is_dir() else [path])}
    files -= {ROOT / path[1:] for path in MEASURES[benchmark] if path[0] == "!"}
    total = hashlib.sha256()
    for file in sorted(file for file in files if file.is_file() and file.suffix != ".pyc"):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{file.relative_to(ROOT).as_posix()} {content}\n".encode())
    return total.hexdigest()[:16]


def benchmark_of(record: Mapping[str, Any]) -> str:
    """The benchmark whose command wrote a result."""
    (name,) = re.findall(r"benchmarks/(\w+)\.py", record["command"])
    return str(name)


def mark(record: Mapping[str, Any]) -> str:
    """† where the code has changed since a result, ‡ where the result does not say of which code it is; a space before it."""
    if "code" not in record:
        return " ‡"
    return "" if record["code"] == digest(benchmark_of(record)) else " †"
