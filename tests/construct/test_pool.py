"""The pool: the same bytes whatever the concurrency or interruption, and nothing asked twice."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from minilima.compose import load_config
from minilima.construct.dataset import build_dataset, choose, sift
from minilima.construct.pool import build_pool
from minilima.errors import MinilimaError
from minilima.files import read_jsonl, sha256_text
from minilima.records import EvalPrompt, Example, Progress
from minilima.sources import resolve
from minilima.worker import Job
from tests.server import VALID_KEY, ModelServer

VERBS = ("Explain", "Compare", "List", "Judge", "Invent", "Name", "Recount", "Sketch")


def writer(body: dict[str, Any]) -> str:
    """A model that answers as asked, differently to every prompt but always the same to one."""
    prompt = body["messages"][-1]["content"]
    number = int(sha256_text(json.dumps(body["messages"]))[:6], 16)
    if "as a numbered list" in prompt:
        wanted = int(re.findall(r"Write (\d+) new tasks", prompt)[0])
        return "\n".join(
            f"{i + 1}. {VERBS[(number + i) % 8]} thing{number + i} of kind{i} for group{number}." for i in range(wanted)
        )
    if "Answer Yes or No" in prompt:
        return "Yes" if number % 3 == 0 else "No"
    if "Does this task come with" in prompt:
        return "None" if number % 2 else f"Some text {number}"
    return f"Result {number}"


def job(tmp_path: Path, server: ModelServer, *overrides: str, role: str = "pool", inputs: dict[str, Path] | None = None) -> Job:
    config = load_config(
        [
            "generator=openai", "generator.model=writer-small", f"generator.endpoint.base_url={server.url}",
            "data.instructions=12", "data.requests_per_round=3", "data.instructions_per_request=3", *overrides,
        ]
    )  # fmt: skip
    work = tmp_path / "work"
    (work / "scratch").mkdir(parents=True, exist_ok=True)
    cache = tmp_path / "cache.sqlite"
    return Job(role=role, key="k", work=work, inputs=inputs or {}, config=config, sources=resolve(config), cache=cache)


def tell(progress: Progress) -> None:
    """Nobody listens."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(folder.glob("*.jsonl"))}


def test_the_four_steps_lie_open(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    outcome = build_pool(job(tmp_path, server), tell)
    files = contents(tmp_path / "work")
    assert list(files) == ["classification.jsonl", "instances.jsonl", "instructions.jsonl", "rejected.jsonl"]
    instructions = read_jsonl(tmp_path / "work" / "instructions.jsonl")
    assert len(instructions) == 12 == outcome.metrics["instructions"]
    assert {row["is_classification"] for row in read_jsonl(tmp_path / "work" / "classification.jsonl")} == {True, False}
    assert outcome.usage.calls == len(server.requests) > 0
    first = instructions[0]
    assert first["round"] == 0 and len(first["parents"]) == 8
    later = next(row for row in instructions if row["round"] == 1)
    assert sum(parent.startswith("r") for parent in later["parents"]) == 2, "two demonstrations are machine-written"


def test_the_result_does_not_depend_on_concurrency(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    for name, concurrency in (("one", 1), ("many", 16)):
        build_pool(job(tmp_path / name, server, f"generator.endpoint.concurrency={concurrency}"), tell)
    assert contents(tmp_path / "one" / "work") == contents(tmp_path / "many" / "work")


def test_an_interrupted_pool_goes_on_without_asking_again(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    build_pool(job(tmp_path / "whole", server), tell)
    whole = len(server.requests)
    server.requests.clear()

    def dies(body: dict[str, Any]) -> str:
        if len(server.requests) > 20:
            server.faults = [400] * 100
        return writer(body)

    server.answer = dies
    with pytest.raises(MinilimaError, match="refuses the request"):
        build_pool(job(tmp_path / "killed", server), tell)
    server.faults, server.answer = [], writer
    build_pool(job(tmp_path / "killed", server), tell)
    assert contents(tmp_path / "killed" / "work") == contents(tmp_path / "whole" / "work")
    assert len(server.requests) == whole, "every answered request was paid once"


def test_a_writer_that_repeats_itself_does_not_run_for_ever(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: "1. Always the very same task." if "numbered list" in body["messages"][-1]["content"] else "No"
    outcome = build_pool(job(tmp_path, server), tell)
    assert outcome.metrics["stopped_by"] == "saturation"
    assert outcome.metrics["instructions"] == 1
    assert outcome.metrics["reasons"]["near_duplicate"] > 0
    rejected = read_jsonl(tmp_path / "work" / "rejected.jsonl")
    assert rejected[0]["nearest_rouge"] == 1.0


def test_an_alpaca_file_is_imported_and_selected(tmp_path: Path, server: ModelServer) -> None:
    rows = [{"instruction": f"Task number {n}", "input": "", "output": f"Answer {n}"} for n in range(9)]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    build_pool(job(tmp_path, server, "data=file", f"data.path={tmp_path / 'mine.json'}"), tell)
    dataset = job(
        tmp_path / "d", server, "data=file", f"data.path={tmp_path / 'mine.json'}", "data.size=4",
        role="dataset", inputs={"pool": tmp_path / "work"},
    )  # fmt: skip
    outcome = build_dataset(dataset, tell)
    assert (outcome.metrics["examples"], outcome.metrics["available"]) == (4, 9)


def test_a_bad_row_of_an_imported_file_is_named(tmp_path: Path, server: ModelServer) -> None:
    (tmp_path / "mine.json").write_text(json.dumps([{"instruction": "Do", "output": ""}]))
    with pytest.raises(MinilimaError, match="Row 1"):
        build_pool(job(tmp_path, server, "data=file", f"data.path={tmp_path / 'mine.json'}"), tell)


def example(identity: str, instruction: str, given: str = "") -> Example:
    return Example(id=identity, instruction=instruction, input=given, output="x", source="machine")


def test_smaller_data_sets_lie_inside_larger_ones() -> None:
    pool = [example(str(n), f"Task {n}") for n in range(300)]
    hundred, thirty = choose(pool, 100, seed=1), choose(pool, 30, seed=1)
    assert hundred[:30] == thirty
    assert choose(pool[::-1], 30, seed=1) == thirty, "the order of the pool does not matter"
    assert choose(pool, 30, seed=2) != thirty


def test_what_resembles_an_evaluation_prompt_is_left_out() -> None:
    prompts = [EvalPrompt(id="e1", instruction="Translate the sentence into French: The cat sleeps on the warm roof")]
    pool = [
        example("same", "Translate the sentence into French: The cat sleeps on the warm roof."),
        example("split", "Translate the sentence into French", "The cat sleeps on the warm roof"),
        example("other", "Translate the sentence into French", "We will arrive at noon tomorrow with two friends"),
        example("twice", "Something else entirely, on bread"),
        example("twice again", "Something else entirely, on bread"),
    ]
    kept, rejected = sift(pool, prompts, load_config([]).data)
    assert [item.id for item in kept] == ["other", "twice"]
    assert [(item.id, item.reason, item.nearest_id) for item in rejected] == [
        ("same", "contamination", "e1"),
        ("split", "contamination", "e1"),
        ("twice again", "duplicate", None),
    ]
