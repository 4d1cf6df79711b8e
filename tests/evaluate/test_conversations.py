"""Prompts of several turns: each turn sees the answers before it, and judges see the conversation."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.evaluate.answers import answer_prompts
from minilima.evaluate.judge import judge_pairs
from minilima.evaluate.judged import Judged, JudgedPrompt
from minilima.evaluate.results import compute_results
from minilima.formats.eval_sets import load_eval_set, read_references
from minilima.formats.records import Answer, EvalPrompt, shown_turns
from minilima.models.cache import CachedModel
from minilima.models.chat import OnReply, Reply, Request
from minilima.run.sources import resolve
from minilima.store.job import Job
from tests.server import VALID_KEY, ModelServer

TALK = EvalPrompt(id="1", instruction=shown_turns(["Sum 2 and 3.", "Double it."]), turns=("Sum 2 and 3.", "Double it."))
PLAIN = EvalPrompt(id="2", instruction="Say hello.")


class Echo:
    """Answers with the number of messages that it saw and the last of them."""

    name = "echo"

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        replies = []
        for number, request in enumerate(requests):
            self.seen.append([message.content for message in request.messages])
            text = f"{len(request.messages)}: {request.messages[-1].content}"
            replies.append(Reply(text=text, finish="stop", prompt_tokens=1, completion_tokens=2))
            on_reply(number, replies[-1])
        return replies


def answers(tmp_path: Path) -> tuple[list[Answer], Echo]:
    echo = Echo()
    config = load_config([])
    return answer_prompts([TALK, PLAIN], CachedModel(echo, tmp_path / "c.sqlite"), config, "m", lambda progress: None), echo


def test_each_turn_is_answered_after_the_answers_before_it(tmp_path: Path) -> None:
    (talk, plain), echo = answers(tmp_path)
    assert echo.seen == [["Sum 2 and 3."], ["Say hello."], ["Sum 2 and 3.", "1: Sum 2 and 3.", "Double it."]]
    assert (talk.history, talk.output, talk.tokens) == ((("Sum 2 and 3.", "1: Sum 2 and 3."),), "3: Double it.", 4)
    assert talk.text == "[Turn 1]\n1: Sum 2 and 3.\n\n[Turn 2]\n3: Double it."
    assert (plain.history, plain.text) == (None, "1: Say hello.")


def answer(first: str, last: str, generator: str) -> Answer:
    told: dict[str, Any] = {"generator": generator, "tokens": 2, "truncated": False}
    return Answer(id="1", instruction=TALK.instruction, output=last, history=(("Sum 2 and 3.", first),), **told)


def judge(tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch, name: str) -> JudgedPrompt:
    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)
    (tmp_path / "set.jsonl").write_text(json.dumps({"turns": list(TALK.turns)}))
    address = f"endpoints.judge.base_url={server.url}"
    config = load_config([f"judge={name}", "judge.model=writer-large", address, f"eval_set.path={tmp_path / 'set.jsonl'}"])
    job = Job(
        kind="verdicts", role="verdicts", key="k", work=tmp_path / "work", inputs={}, config=config, sources=resolve(config),
        cache=tmp_path / "c.sqlite",
    )  # fmt: skip
    pair = (answer("6", "12", "base"), answer("5", "10", "tuned"))
    prompt = replace(TALK, references=("5", "10"))
    (verdict,), _ = judge_pairs(job, [pair], {"1": prompt}, lambda progress: None)
    return JudgedPrompt(verdict=verdict, tuned=pair[1], reference=pair[0])


def rated(body: dict[str, Any]) -> str:
    said = body["messages"][-1]["content"].rpartition("# The answer to rate")[2]
    return f"[[{8 if re.search(chr(10) + '(5|10)' + chr(10), said) else 2}]]"


def test_mt_bench_rates_every_turn_in_its_conversation(
    tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = rated
    judged = judge(tmp_path, server, monkeypatch, "mt_bench")
    assert judged.verdict.turn_scores == ((2.0, 8.0), (2.0, 8.0))
    assert (judged.verdict.scores, judged.verdict.preference) == ((2.0, 8.0), 2.0)
    asked = [body["messages"][-1]["content"] for body in server.requests]
    assert len(asked) == 4 and sum("# Assistant, turn 1" in text for text in asked) == 2
    results = compute_results(Judged(prompts=(judged,), tuned_losses=(), reference_losses=()), min_coverage=0.9)
    assert [change.change.value for change in results.turn_scores] == [6.0, 6.0]
    assert results.scores is not None and results.scores.tuned.value == 8.0


def test_a_judge_that_compares_sees_both_conversations(
    tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda body: "[[A=B]]"
    assert judge(tmp_path, server, monkeypatch, "arena_hard").verdict.preference == 1.5
    text = server.requests[0]["messages"][-1]["content"]
    assert all(part in text for part in ("[Turn 2]\nDouble it.", "[Turn 1]\n6", "[Turn 2]\n12", "[Turn 1]\n5", "[Turn 2]\n10"))


def test_answers_to_earlier_turns_are_needed_from_outside_too(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text(json.dumps({"turns": ["Sum 2 and 3.", "Double it."], "references": ["5", "10"]}))
    (prompt,) = load_eval_set(tmp_path / "set.jsonl", None)
    (own,) = read_references(tmp_path / "set.jsonl", "own", [prompt])
    assert (own.history, own.output) == ((("Sum 2 and 3.", "5"),), "10")
    row = {"instruction": prompt.instruction, "output": "10", "generator": "m", "history": [["Sum 2 and 3.", "5"]]}
    (tmp_path / "out.json").write_text(json.dumps([row]))
    assert read_references(tmp_path / "out.json", "other", [prompt])[0].history == own.history
    (tmp_path / "out.json").write_text(json.dumps([{**row, "history": None}]))
    with pytest.raises(MinilimaError, match="earlier turns of prompt 1"):
        read_references(tmp_path / "out.json", "other", [prompt])
