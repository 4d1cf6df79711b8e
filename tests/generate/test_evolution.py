"""Evolved tasks and backtranslated texts: what is asked, what is eliminated and why, and that a run which was stopped goes on."""

from pathlib import Path
from typing import Any

import pytest

from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.formats.records import Progress
from minilima.generate.backtranslation import parse_score
from minilima.generate.evolution import OPERATIONS, SORRY_WORDS, answer_fault
from minilima.generate.pool import build_pool
from minilima.models.chat import Reply
from minilima.prompts import render
from minilima.run.sources import resolve
from minilima.run.stages.pool import POOL
from minilima.store.job import Job, Outcome
from tests.server import VALID_KEY, ModelServer

TASKS = [f"Describe the {thing} of a small village." for thing in ("market", "bridge", "school", "mill")]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)


def job(folder: Path, server: ModelServer, *overrides: str) -> Job:
    asked = ["generator=openai", "generator.model=writer-small", f"endpoints.generator.base_url={server.url}"]
    config = load_config([*asked, "endpoints.generator.concurrency=1", "endpoints.generator.max_retries=0", *overrides])
    work = folder / "work"
    (work / "scratch").mkdir(parents=True, exist_ok=True)
    sources = resolve(config)
    return Job(kind="pool", role="pool", key="k", work=work, inputs={}, config=config, sources=sources, cache=folder / "c.sqlite")


def tasks_file(folder: Path) -> Path:
    file = folder / "tasks.jsonl"
    write_jsonl(file, [{"instruction": task} for task in TASKS])
    return file


def said(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def build(made: Job) -> Outcome:
    return build_pool(made, lambda progress: _nobody(progress))


def _nobody(progress: Progress) -> None:
    """Nobody listens."""


def evolving(body: dict[str, Any]) -> str:
    """Makes each task longer by some words, finds that something was gained, and answers."""
    text = said(body)
    if "Do both ask for the same" in text:
        return "No"
    if "\n\nTask:\n" in text:
        return f"{text.rpartition('Task:')[2].strip()} Name {len(text)} of its people too."
    return f"An answer about villages and their {len(text)} people, in plain words."


def test_tasks_are_evolved_round_after_round_and_their_parents_tell_how(tmp_path: Path, server: ModelServer) -> None:
    server.answer = evolving
    made = job(tmp_path, server, "data=evol", f"data.path={tasks_file(tmp_path)}", "data.max_rounds=2", "data.instructions=100")
    outcome = build(made)
    rows = read_jsonl(made.work / "instances.jsonl")
    assert len(rows) == outcome.metrics["tasks"] == 8 and outcome.metrics["stopped_by"] == "max_rounds"
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        origin, how = row["parents"]
        operation, _, number = how.partition("@")
        assert operation in OPERATIONS and int(number) == row["round"]
        before = by_id[origin]["instruction"] if row["round"] == 2 else TASKS[int(origin.removeprefix("row")) - 1]
        assert row["instruction"].startswith(before) and row["output"].startswith("An answer")
    asked = [said(body) for body in server.requests]
    compared = sum("Do both ask for the same" in text for text in asked)
    assert compared == sum(row["parents"][1].partition("@")[0] != "breadth" for row in rows)
    guess = POOL.requests(made.config, made.sources)
    assert guess is not None and guess.requests == 24 >= len(asked), "rewritten, compared, answered: 4 tasks, 2 rounds"


def test_the_target_ends_the_evolution(tmp_path: Path, server: ModelServer) -> None:
    server.answer = evolving
    made = job(tmp_path, server, "data=evol", f"data.path={tasks_file(tmp_path)}", "data.instructions=3")
    assert build(made).metrics["tasks"] == 3
    assert [row["round"] for row in read_jsonl(made.work / "instances.jsonl")] == [1, 1, 1]


def test_what_is_eliminated_is_listed_with_its_reason_and_its_task_is_evolved_again(tmp_path: Path, server: ModelServer) -> None:
    def answer(body: dict[str, Any]) -> str:
        text = said(body)
        if "Do both ask for the same" in text:
            return "No"
        if "\n\nTask:\n" in text:
            task = text.rpartition("Task:")[2].strip()
            return f"Rewritten task: see the task above. {task}" if "market" in task else f"{task} Add one detail more."
        return {"school": "Sorry, nothing is known of it.", "mill": "It is the."}.get(text.split()[2], "A plain answer.")

    server.answer = answer
    made = job(tmp_path, server, "data=evol", f"data.path={tasks_file(tmp_path)}", "data.max_rounds=2")
    build(made)
    rejected = read_jsonl(made.work / "rejected.jsonl")
    assert sorted({(row["id"].rpartition(".")[2], row["reason"]) for row in rejected}) == [
        ("0", "copies_the_prompt"), ("2", "apology"), ("3", "says_nothing"),
    ]  # fmt: skip
    assert [row["id"] for row in rejected] == ["e1.0", "e1.2", "e1.3", "e2.0", "e2.2", "e2.3"], "evolved again, as they were"
    kept = read_jsonl(made.work / "instances.jsonl")
    assert [row["id"] for row in kept] == ["e1.1", "e2.1"] and kept[1]["parents"][0] == "e1.1"


def test_a_rewritten_task_that_asks_for_the_same_has_gained_nothing(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: "Yes" if "Do both ask for the same" in said(body) else evolving(body)
    made = job(tmp_path, server, "data=evol", f"data.path={tasks_file(tmp_path)}", "data.max_rounds=3")
    build(made)
    kept = read_jsonl(made.work / "instances.jsonl")
    assert all(row["parents"][1].startswith("breadth@") for row in kept), "another task is not compared"
    assert {row["reason"] for row in read_jsonl(made.work / "rejected.jsonl")} == {"no_gain"}


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("I am sorry to hear that.", "stop", "apology"),
        ("He said sorry, and " + "walked on for a while and " * SORRY_WORDS, "stop", "repeats_itself"),
        ("... it is the -- of !", "stop", "says_nothing"),
        ("A mill grinds corn.", "stop", None),
        ("A mill grinds", "length", "truncated"),
        ("", "stop", "empty_output"),
    ],
)
def test_answers_that_eliminate_their_task(text: str, finish: str, reason: str | None) -> None:
    reply = Reply(text=text, finish=finish, prompt_tokens=1, completion_tokens=1)
    assert answer_fault("What does a mill do?", reply) == reason


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_has_a_prompt_that_shows_the_task(operation: str) -> None:
    assert render(f"pool/chat/evol_{operation}", task="Name a river.").rstrip().endswith("Task:\nName a river.")


def backtranslating(body: dict[str, Any]) -> str:
    text = said(body)
    if "Reply with one number" in text:
        return "2" if "market" in text else "Score: 5"
    return "Request: “What is there to see in this village, please?”"


def test_people_s_texts_become_answers_and_low_scores_are_rejected(tmp_path: Path, server: ModelServer) -> None:
    server.answer = backtranslating
    file = tmp_path / "texts.jsonl"
    write_jsonl(file, [{"body": f"{task} It is worth a walk."} for task in TASKS])
    given = [f"data.path={file}", "data.columns.output=body"]
    made = job(tmp_path, server, "data=backtranslate", *given)
    guess = POOL.requests(made.config, made.sources)
    assert guess is not None and guess.requests == 8
    outcome = build(made)
    rows, rejected = read_jsonl(made.work / "instances.jsonl"), read_jsonl(made.work / "rejected.jsonl")
    assert [row["output"] for row in rows] == [f"{task} It is worth a walk." for task in TASKS[1:]], "as people wrote them"
    assert {row["instruction"] for row in rows} == {"What is there to see in this village, please?"}
    assert [row["score"] for row in rows] == [5.0, 5.0, 5.0]
    assert [(row["id"], row["reason"]) for row in rejected] == [("row1", "score_2")]
    assert outcome.metrics["texts"] == 4 and outcome.metrics["tasks"] == 3 and outcome.usage.calls == 8


def test_rows_without_a_text_are_named_or_listed(tmp_path: Path, server: ModelServer) -> None:
    server.answer = backtranslating
    file = tmp_path / "texts.jsonl"
    write_jsonl(file, [{"text": "A text of a person."}, {"text": " "}])
    with pytest.raises(MinilimaError, match="Row 2"):
        POOL.check(*_of(job(tmp_path, server, "data=backtranslate", f"data.path={file}")))
    made = job(tmp_path, server, "data=backtranslate", f"data.path={file}", "data.on_bad_row=reject")
    assert build(made).metrics["rejected"] == 1


def _of(made: Job) -> tuple[Any, Any]:
    return made.config, made.sources


@pytest.mark.parametrize("kind", ["evol", "backtranslate"])
def test_a_pool_that_was_stopped_asks_nothing_twice(kind: str, tmp_path: Path, server: ModelServer) -> None:
    server.answer = evolving if kind == "evol" else backtranslating
    file = tmp_path / "given.jsonl"
    write_jsonl(file, [{"instruction": task} if kind == "evol" else {"text": f"{task} It is worth a walk."} for task in TASKS])
    made = job(tmp_path, server, f"data={kind}", f"data.path={file}")

    server.refuse = lambda body: (401, {"error": {"message": "gone"}}) if len(server.requests) > 5 else None
    with pytest.raises(MinilimaError):
        build(made)
    kept = [said(body) for body in server.requests[:5]]
    server.requests.clear()
    server.refuse = lambda body: None
    build(made)
    assert kept and not set(kept) & {said(body) for body in server.requests}, "replies that came before are kept"


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["data=evol", "generator.style=turns"], "needs a generator that follows requests"),
        (["data=evol", "data.answers_per_task=2"], "one answer to each task"),
    ],
)
def test_what_such_a_pool_does_not_have_is_refused(overrides: list[str], what: str, tmp_path: Path, server: ModelServer) -> None:
    with pytest.raises(MinilimaError, match=what):
        POOL.check(*_of(job(tmp_path, server, *overrides)))


@pytest.mark.parametrize(("text", "score"), [("4", 4.0), ("Score: 5.", 5.0), ("good", None), ("7", None), ("It is 3 of 5", 3.0)])
def test_scores_from_one_to_five_are_read(text: str, score: float | None) -> None:
    assert parse_score(text) == score
