"""The pool: the same bytes whatever the concurrency or interruption, and nothing asked twice."""

import json
import random
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilima.config.choices import Select, Style
from minilima.config.compose import load_config
from minilima.config.schema import DataConfig, DatasetConfig
from minilima.errors import MinilimaError
from minilima.formats.files import DATA, read_jsonl, sha256_text
from minilima.formats.records import EvalPrompt, Example, Progress
from minilima.formats.seeds import load_seeds
from minilima.generate.dataset import build_dataset, sift, with_fewer_seeds
from minilima.generate.instances import Classified, Instances
from minilima.generate.instructions import Instruction
from minilima.generate.layouts import encode
from minilima.generate.orders import Vectors
from minilima.generate.pool import build_pool, connect_generator
from minilima.generate.prompting import Prompter
from minilima.generate.selection import arrange, shuffle
from minilima.generate.selection_methods import METHODS
from minilima.generate.tools import Text, Tools
from minilima.models.cache import CachedModel
from minilima.models.chat import OnReply, Reply, Request
from minilima.run.sources import resolve
from minilima.store.job import Job
from tests.server import VALID_KEY, ModelServer

VERBS = ("Explain", "Compare", "List", "Judge", "Invent", "Name", "Recount", "Sketch")


def writer(body: dict[str, Any]) -> str:
    """A model that answers as asked, differently to every prompt but always the same to one."""
    prompt = body["messages"][-1]["content"]
    number = int(sha256_text(json.dumps(body["messages"]))[:6], 16)
    if "as a numbered list" in prompt:
        wanted = int(re.findall(r"Write (\d+) new", prompt)[0])
        return "\n".join(
            f"{i + 1}. {VERBS[(number + i) % 8]} thing{number + i} of kind{i} for group{number}." for i in range(wanted)
        )
    if "Answer Yes or No" in prompt:
        return "Yes" if number % 3 == 0 else "No"
    if "Which labels can the answer be" in prompt:
        return "short\nlong"
    if "Does this task come with" in prompt:
        return "None" if number % 2 else f"Some text {number}"
    return f"Result {number}"


def job(tmp_path: Path, server: ModelServer, *overrides: str, role: str = "pool", inputs: dict[str, Path] | None = None) -> Job:
    config = load_config(
        [
            "generator=openai", "generator.model=writer-small", f"endpoints.generator.base_url={server.url}",
            "data.instructions=12", "data.requests_per_round=3", "data.instructions_per_request=3", *overrides,
        ]
    )  # fmt: skip
    work = tmp_path / "work"
    (work / "scratch").mkdir(parents=True, exist_ok=True)
    cache = tmp_path / "cache.sqlite"
    return Job(kind=role, role=role, key="k", work=work, inputs=inputs or {}, config=config, sources=resolve(config), cache=cache)


def on_progress(progress: Progress) -> None:
    """Nobody listens."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)


def test_near_duplicates_of_an_import_are_rejected_with_what_they_resemble() -> None:
    text = "Name three rivers that flow through the north of France and into the sea."
    rows = [("a", text, "Seine"), ("b", f"Please {text}", "Somme"), ("c", "Write a poem about rain.", "Rain")]
    examples = [Example(id=id_, instruction=asked, input="", output=given, source="file") for id_, asked, given in rows]
    assert len(sift(examples, [], DataConfig(), DatasetConfig())[0]) == 3, "by default only exact duplicates are rejected"
    kept, rejected = sift(examples, [], DataConfig(), DatasetConfig(max_similarity=0.7))
    assert [example.id for example in kept] == ["a", "c"]
    assert [(row.id, row.reason, row.nearest_id) for row in rejected] == [("b", "near_duplicate", "a")]
    assert rejected[0].nearest_rouge == 0.9655  # 14 shared tokens of 14 and 15: 2 * 14 / 29


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(folder.glob("*.jsonl"))}


def test_the_four_steps_lie_open(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    outcome = build_pool(job(tmp_path, server), on_progress)
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
        build_pool(job(tmp_path / name, server, f"endpoints.generator.concurrency={concurrency}"), on_progress)
    assert contents(tmp_path / "one" / "work") == contents(tmp_path / "many" / "work")


def test_an_interrupted_pool_goes_on_without_asking_again(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    build_pool(job(tmp_path / "whole", server), on_progress)
    whole = len(server.requests)
    server.requests.clear()

    def dies(body: dict[str, Any]) -> str:
        if len(server.requests) > 20:
            server.faults = [401] * 100
        return writer(body)

    server.answer = dies
    with pytest.raises(MinilimaError, match="refuses the key"):
        build_pool(job(tmp_path / "killed", server), on_progress)
    server.faults, server.answer = [], writer
    build_pool(job(tmp_path / "killed", server), on_progress)
    assert contents(tmp_path / "killed" / "work") == contents(tmp_path / "whole" / "work")
    assert len(server.requests) == whole, "every answered request was paid once"


def test_a_writer_that_repeats_itself_does_not_run_for_ever(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: "1. Always the very same task." if "numbered list" in body["messages"][-1]["content"] else "No"
    with pytest.raises(MinilimaError, match=r"'near_duplicate': \d+.*stopped by saturation"):
        build_pool(job(tmp_path, server), on_progress)
    assert len(read_jsonl(tmp_path / "work" / "instructions.jsonl")) == 1
    rejected = read_jsonl(tmp_path / "work" / "rejected.jsonl")
    assert rejected[0]["nearest_rouge"] == 1.0


def test_an_alpaca_file_is_imported_and_selected(tmp_path: Path, server: ModelServer) -> None:
    rows = [{"instruction": f"Task number {n}", "input": "", "output": f"Answer {n}"} for n in range(9)]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    build_pool(job(tmp_path, server, "data=file", f"data.path={tmp_path / 'mine.json'}"), on_progress)
    dataset = job(
        tmp_path / "d", server, "data=file", f"data.path={tmp_path / 'mine.json'}", "dataset.size=4",
        role="dataset", inputs={"pool": tmp_path / "work"},
    )  # fmt: skip
    outcome = build_dataset(dataset, on_progress)
    assert (outcome.metrics["examples"], outcome.metrics["available"]) == (4, 9)


def test_a_bad_row_of_an_imported_file_is_named(tmp_path: Path, server: ModelServer) -> None:
    (tmp_path / "mine.json").write_text(json.dumps([{"instruction": "Do", "output": "Done"}, {"instruction": 3, "output": "x"}]))
    with pytest.raises(MinilimaError, match="Row 2"):
        build_pool(job(tmp_path, server, "data=file", f"data.path={tmp_path / 'mine.json'}"), on_progress)


def example(identity: str, instruction: str, given: str = "") -> Example:
    return Example(id=identity, instruction=instruction, input=given, output="x", source="machine")


def test_smaller_data_sets_lie_inside_larger_ones() -> None:
    pool = [example(str(n), f"Task {n}") for n in range(300)]
    ordered = shuffle(pool, seed=1)
    assert shuffle(pool[::-1], seed=1) == ordered, "the order of the pool does not matter"
    assert shuffle(pool, seed=2) != ordered
    assert shuffle(pool[:100], seed=1) == [item for item in ordered if int(item.id) < 100], "nor what else is in it"


def test_seed_tasks_above_the_most_make_room_for_what_was_written() -> None:
    written = [example(f"w{n}", f"Task {n}") for n in range(3)]
    seeds = [replace(example(f"s{n}", f"Seed {n}"), source="seed") for n in range(20)]
    few, more = (with_fewer_seeds([*seeds, *written], most, seed=1) for most in (4, 9))
    assert [item.id for item in few[-3:]] == ["w0", "w1", "w2"] and len(few) == 7
    assert {item.id for item in few} < {item.id for item in more}, "a higher limit adds and exchanges nothing"
    assert with_fewer_seeds([*seeds, *written], None, seed=1) == [*seeds, *written]
    assert {item.id for item in with_fewer_seeds(seeds, 4, seed=2)} != {item.id for item in few} - {"w0", "w1", "w2"}


def test_what_resembles_an_evaluation_prompt_is_left_out() -> None:
    prompts = [EvalPrompt(id="e1", instruction="Translate the sentence into French: The cat sleeps on the warm roof")]
    pool = [
        example("same", "Translate the sentence into French: The cat sleeps on the warm roof."),
        example("split", "Translate the sentence into French", "The cat sleeps on the warm roof"),
        example("other", "Translate the sentence into French", "We will arrive at noon tomorrow with two friends"),
        example("twice", "Something else entirely, on bread"),
        example("twice again", "Something else entirely, on bread"),
    ]
    kept, rejected = sift(pool, prompts, DataConfig(), DatasetConfig())
    assert [item.id for item in kept] == ["other", "twice"]
    assert [(item.id, item.reason, item.nearest_id) for item in rejected] == [
        ("same", "contamination", "e1"),
        ("split", "contamination", "e1"),
        ("twice again", "duplicate", "twice"),
    ]


def test_classification_tasks_take_their_labels_in_turn(tmp_path: Path, server: ModelServer) -> None:
    def answer(body: dict[str, Any]) -> str:
        prompt = body["messages"][-1]["content"]
        if "Which labels can the answer be" in prompt:
            return "good\nbad"
        return f"Text {sha256_text(prompt)[:8]}" if "Make up a short input" in prompt else writer(body)

    server.answer = answer
    outcome = build_pool(job(tmp_path, server, "data.classification_only=true", "data.instances_per_task=2"), on_progress)
    assert outcome.metrics["labels"] == {"good": 12, "bad": 12}
    rows = read_jsonl(tmp_path / "work" / "instances.jsonl")
    assert {row["is_classification"] for row in rows} == {True}
    seeds = {row["id"]: row for row in read_jsonl(DATA / "minilima_175.jsonl")}
    first = [row for row in read_jsonl(tmp_path / "work" / "instructions.jsonl") if row["round"] == 0]
    assert all(seeds[parent]["is_classification"] for row in first for parent in row["parents"])


def test_a_task_without_labels_is_answered_like_the_others(tmp_path: Path, server: ModelServer) -> None:
    def answer(body: dict[str, Any]) -> str:
        prompt = body["messages"][-1]["content"]
        if "Which labels can the answer be" in prompt:
            return "It depends on what you mean by that, and on much else."
        return "Yes" if "Answer Yes or No" in prompt else writer(body)

    server.answer = answer
    outcome = build_pool(job(tmp_path / "all", server), on_progress)
    rows = read_jsonl(tmp_path / "all" / "work" / "instances.jsonl")
    assert outcome.metrics["classification"] == len(rows) == 12, "no task is lost"
    assert all(row["output"].startswith("Result") and "is_classification" not in row for row in rows)
    with pytest.raises(MinilimaError, match="'empty_output': 12"):  # nothing else is wanted
        build_pool(job(tmp_path / "only", server, "data.classification_only=true"), on_progress)


def test_no_task_is_a_classification_where_that_is_not_asked(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: "Yes" if "Answer Yes or No" in body["messages"][-1]["content"] else writer(body)
    outcome = build_pool(job(tmp_path, server, "data.identify_classification=false"), on_progress)
    asked = [body["messages"][-1]["content"] for body in server.requests]
    assert outcome.metrics["not_classified"] == 12 and not any("Answer Yes or No" in prompt for prompt in asked)
    assert all(row["output"].startswith("Result") for row in read_jsonl(tmp_path / "work" / "instances.jsonl"))


def test_several_instances_are_written_and_contradictions_dropped(tmp_path: Path, server: ModelServer) -> None:
    def answer(body: dict[str, Any]) -> str:
        prompt = body["messages"][-1]["content"]
        if "Does this task come with" in prompt:
            return "always the same text"
        if "Answer Yes or No" in prompt:
            return "No"
        return f"Answer {len(server.requests)}" if "always the same text" in prompt else writer(body)

    server.answer = answer
    with pytest.raises(MinilimaError, match="'contradictory_outputs': 6"):
        build_pool(job(tmp_path, server, "data.instances_per_task=2", "data.instructions=3"), on_progress)


class Biased:
    """A small model: it would always say generation, but less surely where a task names labels."""

    name = "biased"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        replies = []
        for index, request in enumerate(requests):
            self.asked.append(request.messages[0].content)
            odds = -3.0 if is_labelled(self.asked[-1].rpartition("Task: ")[2]) else -5.0
            said = {" generation": -0.01, " classification": -0.01 + odds, " the": -9.0}
            replies.append(
                Reply(text=" generation", finish="length", prompt_tokens=1, completion_tokens=1, logprobs=said, key="k")
            )
            on_reply(index, replies[-1])
        return replies


def is_labelled(text: str) -> bool:
    return any(word in text for word in ("Classify", "classify", "Is ", "Does ", "which", "Which", "Label"))


def test_a_small_model_tells_kinds_by_odds_measured_on_the_seeds(tmp_path: Path) -> None:
    config = load_config([])
    seeds = load_seeds(DATA / "minilima_175.jsonl")
    model = Biased()
    prompter = Prompter(generator=config.generator, data=config.data)
    writer = Instances(seeds, CachedModel(model, tmp_path / "c.sqlite"), prompter, 0, on_progress)
    texts = ("Classify the tone of this note.", "Write a haiku about rain.")
    tasks = [
        Instruction(id=text, instruction=text, round=0, parents=(), request="", nearest_id=None, nearest_rouge=None)
        for text in texts
    ]
    assert [item.is_classification for item in writer.classify(tasks)] == [True, False], "though it never says classification"
    assert all(text.count("Kind: classification") == text.count("Kind: generation") == 8 for text in model.asked)
    large = replace(config.generator, style=Style.chat)
    assert not Prompter(generator=large, data=config.data).weighs_kinds, "a model that can be asked is asked"


def test_further_instances_are_asked_for_after_the_ones_before(tmp_path: Path, server: ModelServer) -> None:
    def answer(body: dict[str, Any]) -> str:
        prompt = body["messages"][-1]["content"]
        if "Does this task come with" in prompt:
            return "None" if "List" in prompt else f"Text {prompt.count('Text')}."
        if "Make up a short input" in prompt:
            label = re.findall('the answer is "([a-z]+)"', prompt)[0]
            return f"Label text {label} {prompt.count('Label text')}."
        if "Which labels" in prompt:
            return "good, bad"
        if "Answer Yes or No" in prompt:
            return "Yes" if "Judge" in prompt else "No"
        return writer(body)

    server.answer = answer
    build_pool(job(tmp_path, server, "data.instances_per_task=3", "generator.temperature=0", "data.instructions=36"), on_progress)
    inputs: dict[str, list[str]] = {}
    for row in read_jsonl(tmp_path / "work" / "instances.jsonl"):
        inputs.setdefault(row["instruction"].split()[0], []).append(row["input"])
    assert inputs["Explain"][:3] == ["Text 0.", "Text 1.", "Text 2."], "a greedy model too writes another one each time"
    judged = [(text.split()[2], text.split()[3]) for text in inputs["Judge"][:3]]
    assert judged in ([("good", "0."), ("bad", "0."), ("good", "1.")], [("bad", "0."), ("good", "0."), ("bad", "1.")]), (
        "the labels take turns"
    )
    assert set(inputs["List"]) == {""} and len(inputs["List"]) < len(inputs["Explain"]), "without an input there is one instance"


def test_labels_and_whole_examples_can_come_as_json(tmp_path: Path, server: ModelServer) -> None:
    def answer(body: dict[str, Any]) -> str:
        if "response_format" not in body:
            return "Some text"
        schema = body["response_format"]["json_schema"]["schema"]["properties"]
        if "labels" in schema:
            return '{"labels": ["short", "long"]}'
        number = sha256_text(json.dumps(body["messages"]))[:6]
        if schema["tasks"]["items"]["type"] == "string":
            return json.dumps({"tasks": [f"Judge whether {number}{item} is long." for item in range(3)]})
        return json.dumps({"tasks": [{"instruction": f"Say {number} in French.", "input": "", "output": f"Voilà {number}."}]})

    server.answer = answer
    wanted = ("generator.json_schema=true", "data.instructions=3", "data.max_similarity=0.99")
    outcome = build_pool(job(tmp_path / "labels", server, *wanted, "data.classification_only=true"), on_progress)
    assert set(outcome.metrics["labels"]) <= {"short", "long"} and outcome.metrics["tasks"] == 3
    build_pool(job(tmp_path / "whole", server, *wanted, "data=alpaca"), on_progress)
    assert {row["output"][:5] for row in read_jsonl(tmp_path / "whole" / "work" / "instances.jsonl")} == {"Voilà"}


EXAMPLES = """1. Instruction: Say {n} in French.
1. Input: none
1. Output: Voilà {n}.

2. Instruction: Count the letters of the word below, number {n}.
2. Input: {n}{n}
2. Output: Many."""


def test_whole_examples_come_from_one_call(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: EXAMPLES.replace("{n}", sha256_text(json.dumps(body["messages"]))[:6])
    outcome = build_pool(job(tmp_path, server, "data=alpaca", "data.instructions=4", "data.max_similarity=0.95"), on_progress)
    rows = read_jsonl(tmp_path / "work" / "instances.jsonl")
    assert len(rows) == 4 and outcome.usage.calls == len(server.requests) == 3
    assert rows[1]["input"] and rows[0]["output"].startswith("Voilà")
    assert rows[0]["parents"] and rows[0]["round"] == 0 and len(rows[0]["request"]) == 64


def test_the_seed_tasks_are_answered_at_length(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    build_pool(job(tmp_path, server, "data=answers"), on_progress)
    rows = read_jsonl(tmp_path / "work" / "instances.jsonl")
    assert len(rows) > 150 and rows[0]["output"].startswith("Result")
    assert "about 260 words" in server.requests[0]["messages"][-1]["content"]


def test_a_model_may_open_the_conversation_itself(tmp_path: Path, server: ModelServer) -> None:
    def answer(body: dict[str, Any]) -> str:
        return f"Tell me of place {len(server.requests)} please." if body.get("prompt") == "<user>" else "It is far away."

    server.answer = answer
    overrides = ("data=magpie", "data.magpie_prefix='<user>'", "data.instructions=5", "data.requests_per_round=5")
    build_pool(job(tmp_path, server, *overrides, "data.max_similarity=0.99"), on_progress)
    rows = read_jsonl(tmp_path / "work" / "instances.jsonl")
    assert len(rows) == 5 and rows[0]["output"] == "It is far away."
    with pytest.raises(MinilimaError, match="magpie_prefix"):
        build_pool(job(tmp_path / "none", server, "data=magpie"), on_progress)


def test_no_input_is_asked_for_where_the_writer_gave_one(tmp_path: Path, server: ModelServer) -> None:
    at = job(tmp_path, server)
    model, prompter = connect_generator(at), Prompter(generator=at.config.generator, data=at.config.data)
    tasks = [
        Instruction(
            id=str(number), instruction="Sum it up.", input=text, complete=True, round=0, parents=(), request="",
            nearest_id=None, nearest_rouge=None,
        )
        for number, text in enumerate(("A long text.", ""))
    ]  # fmt: skip
    classified = [Classified(id=task.id, instruction=task.instruction, is_classification=False) for task in tasks]
    made = Instances([], model, prompter, 0, on_progress).instances(tasks, classified)
    assert [item.input for item in made] == ["A long text.", ""]
    assert sorted(body["messages"][-1]["content"] for body in server.requests) == ["Sum it up.", "Sum it up.\n\nA long text."]


def test_base_models_continue_documents(tmp_path: Path, server: ModelServer) -> None:
    def answer(body: dict[str, Any]) -> str:
        prompt, number = body["prompt"], sha256_text(body["prompt"])[:6]
        if prompt.rstrip().endswith("9."):
            return f" Explain {number} to a child.\n10. List the parts of {number} and more."
        return " No" if "Is the answer" in prompt else f" Result {number}"

    server.answer = answer
    build_pool(
        job(tmp_path, server, "generator.style=completion", "data.instructions=4", "data.max_similarity=0.99"), on_progress
    )
    assert all("prompt" in body and "messages" not in body for body in server.requests)
    assert any("\n###" in body.get("stop", []) for body in server.requests)
    rows = read_jsonl(tmp_path / "work" / "instances.jsonl")
    assert len(rows) == 4 and rows[0]["instruction"].startswith(("Explain", "List")) and rows[0]["output"].startswith("Result")


def test_lists_can_come_as_json(tmp_path: Path, server: ModelServer) -> None:
    def answer(body: dict[str, Any]) -> str:
        if "response_format" not in body:
            return writer(body)
        number = sha256_text(json.dumps(body["messages"]))[:6]
        return json.dumps({"tasks": [f"Explain {number} to a child.", f"List what {number} is made of."]})

    server.answer = answer
    build_pool(job(tmp_path, server, "data.instructions=4", "generator.json_schema=true"), on_progress)
    assert [row["instruction"].split()[0] for row in read_jsonl(tmp_path / "work" / "instructions.jsonl")][:2] == [
        "Explain",
        "List",
    ]


def test_growth_stops_while_the_budget_still_covers_the_instances(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    cap = "endpoints.generator.budget.requests=150"
    outcome = build_pool(job(tmp_path, server, "data.instructions=500", cap), on_progress)
    assert outcome.metrics["stopped_by"] == "budget"
    assert outcome.metrics["tasks"] > 30 and 100 < len(server.requests) <= 150, "most of it is used"
    again = build_pool(job(tmp_path, server, "data.instructions=500", cap), on_progress)
    assert again.metrics == outcome.metrics and again.usage.calls == 0


def test_a_cap_below_a_round_still_yields_what_it_pays_for(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    small = ("data.instructions=500", "data.requests_per_round=8", "data.instructions_per_request=8")
    outcome = build_pool(job(tmp_path, server, *small, "endpoints.generator.budget.requests=100"), on_progress)
    assert (outcome.metrics["stopped_by"], outcome.metrics["instructions"]) == ("budget", (100 - 8) // 4)
    assert len(server.requests) <= 100
    asked = len(server.requests)
    with pytest.raises(MinilimaError, match="stopped by budget"):
        build_pool(job(tmp_path / "none", server, *small, "endpoints.generator.budget.requests=10"), on_progress)
    assert len(server.requests) == asked, "a round that leads to nothing is not asked for"


def test_with_a_higher_cap_nothing_is_asked_twice(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    caps = [f"endpoints.generator.budget.requests={cap}" for cap in (100, 150)]
    first = build_pool(job(tmp_path, server, "data.instructions=500", caps[0]), on_progress)
    asked = len(server.requests)
    second = build_pool(job(tmp_path, server, "data.instructions=500", caps[1]), on_progress)
    assert second.metrics["instructions"] > first.metrics["instructions"] and asked < len(server.requests) <= 150
    sent = [json.dumps(body["messages"]) + str(body) for body in server.requests]
    assert second.usage.cached >= 0.9 * asked and len(sent) == asked + second.usage.calls


def test_a_cap_reserves_no_more_than_the_way_of_asking_needs(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: EXAMPLES.replace("{n}", sha256_text(json.dumps(body["messages"]))[:6])
    settings = ("data=alpaca", "data.instructions=4", "data.max_similarity=0.95", "endpoints.generator.budget.requests=3")
    outcome = build_pool(job(tmp_path, server, *settings), on_progress)
    assert (outcome.metrics["stopped_by"], outcome.metrics["tasks"], outcome.usage.calls) == ("target", 4, 3)


def test_a_row_names_the_reply_that_it_was_read_from(tmp_path: Path, server: ModelServer) -> None:
    said: dict[str, int] = {}

    def answer(body: dict[str, Any]) -> str:
        prompt = json.dumps(body["messages"])
        said[prompt] = said.get(prompt, 0) + 1
        return "Not now." if said[prompt] == 1 and "as a numbered list" in prompt else writer(body)

    server.answer = answer
    build_pool(job(tmp_path, server, "data.requests_per_round=2"), on_progress)
    database = sqlite3.connect(tmp_path / "cache.sqlite")
    for row in [row for name in ("instructions", "instances") for row in read_jsonl(tmp_path / "work" / f"{name}.jsonl")]:
        kept = database.execute("SELECT reply FROM replies WHERE key = ?", (row["request"],)).fetchone()
        written = row["input"] if row.get("is_classification") else row.get("output", row["instruction"])
        assert written in json.loads(kept[0])["text"]


def test_what_was_refused_stands_with_its_answer_and_its_neighbour(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: "I'm sorry, but I cannot." if writer(body).startswith("Result") else writer(body)
    outcome = build_pool(job(tmp_path, server), on_progress)
    rows = read_jsonl(tmp_path / "work" / "rejected.jsonl")
    assert outcome.metrics["reasons"] == {"refusal": len(rows)} and rows
    assert all(row["output"] == "I'm sorry, but I cannot." and row["nearest_id"] and len(row["request"]) == 64 for row in rows)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('[{"instruction": "Do"}, {"instruction": 3}]', "Row 2 of .*has no valid instruction"),
        ('[{"instruction": "Do"}, {"instruction": ""}]', "Row 2 of .*has no valid instruction"),
        ('[{"instruction": "Do", "input": ["a"]}]', "Row 1 of .*has no valid input"),
        ('["Do"]', "Row 1 of .*is not an object"),
        ("", "holds no task"),
        ('{"instruction": "Do"', "Line 1"),
    ],
)
def test_a_bad_task_to_be_answered_is_named(tmp_path: Path, server: ModelServer, content: str, named: str) -> None:
    (tmp_path / "tasks.json").write_text(content)
    with pytest.raises(MinilimaError, match=named):
        build_pool(job(tmp_path, server, "data=answers", f"data.path={tmp_path / 'tasks.json'}"), on_progress)


def test_examples_that_never_came_are_counted(tmp_path: Path, server: ModelServer) -> None:
    def answer(body: dict[str, Any]) -> str:
        return "  " if "Answer Yes or No" not in str(body) and len(server.requests) % 4 == 0 else writer(body)

    server.answer = answer
    outcome = build_pool(
        job(tmp_path, server, "endpoints.generator.max_retries=0", "endpoints.generator.concurrency=1"), on_progress
    )
    assert 0 < outcome.metrics["reasons"]["no_reply"] <= outcome.usage.faults["given_up"]
    ids = {name: {row["id"] for row in read_jsonl(tmp_path / "work" / f"{name}.jsonl")} for name in ("instances", "rejected")}
    written = {row["id"] for row in read_jsonl(tmp_path / "work" / "instructions.jsonl")}
    assert written == ids["instances"] | (ids["rejected"] & written), "every task has an answer or a reason"


@pytest.mark.parametrize("select", list(METHODS))
def test_every_way_to_select_gives_nested_data_sets(select: Select) -> None:
    rng = random.Random(0)
    words = {name: [f"{name}{n}" for n in range(20)] for name in ("cook", "sail", "code")}
    pool = [
        replace(example(f"{name}{n}", " ".join(rng.choices(words[name], k=6))), output=" ".join("w" * (n + 1)))
        for name in words
        for n in range(10)
    ]

    def embed(texts: Sequence[str]) -> Vectors:
        vectors = np.array([[sum(token in text for token in tokens) for tokens in words.values()] for text in texts], dtype=float)
        unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return unit

    def rate(examples: Sequence[Example]) -> list[float | None]:
        return [float(item.id.startswith("sail")) for item in examples]

    def numbers(examples: Sequence[Example]) -> Vectors:
        found: Vectors = np.array([[1 + int(sha256_text(each.id)[:4], 16) % 5] * 2 for each in examples], dtype=np.float32)
        return found

    def losses(examples: Sequence[Example], text: Text) -> Vectors:
        factors = [1, 1] if text in (Text.conversation, Text.plain) else [2, 1]
        found: Vectors = numbers(examples) * np.array(factors, dtype=np.float32)
        return found

    tools = Tools(
        seed=1, targets=pool[:2], embed=embed, rate=rate, losses=losses, ratings=numbers,
        tag=lambda examples: [frozenset(each.instruction.split()[:2]) for each in examples],
        states=lambda examples: embed([each.instruction for each in examples]),
        influence=lambda examples: numbers(examples)[:, 0],
    )  # fmt: skip
    data = DatasetConfig(select=select, topics=3)
    ordered = arrange(pool, data, 1, tools)
    assert sorted(item.id for item in ordered) == sorted(item.id for item in pool)
    assert [item.id for item in arrange(pool[::-1], data, 1, tools)] == [item.id for item in ordered]
    first = [item.id.rstrip("0123456789") for item in ordered]
    if select in (Select.diverse, Select.stratified):
        assert set(first[:3]) == {"cook", "sail", "code"}
    if select == Select.stratified:
        assert all(first[:15].count(name) == 5 for name in words)
    if select == Select.long:
        assert [len(item.output.split()) for item in ordered[:3]] == [10, 10, 10]
    if select == Select.quality:
        assert set(first[:10]) == {"sail"} and ordered[0].score == 1.0


def test_a_generator_rates_examples_for_the_data_set(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: "9" if "Task number 7" in body["messages"][-1]["content"] else "I give it a 3."
    rows = [{"instruction": f"Task number {n}", "input": "", "output": f"Answer {n}"} for n in range(9)]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    options = ("data=file", f"data.path={tmp_path / 'mine.json'}", "dataset.select=quality", "dataset.size=2")
    build_pool(job(tmp_path, server, *options), on_progress)
    outcome = build_dataset(
        job(tmp_path / "d", server, *options, role="dataset", inputs={"pool": tmp_path / "work"}), on_progress
    )
    chosen = read_jsonl(tmp_path / "d" / "work" / "dataset.jsonl")
    assert [row["score"] for row in chosen] == [9.0, 3.0] and chosen[0]["instruction"] == "Task number 7"
    assert outcome.usage.calls == 9


def test_answers_outside_the_window_are_left_out() -> None:
    pool = [replace(example(str(n), f"Task {n} of its own kind"), output="w " * n) for n in range(1, 8)]
    kept, rejected = sift(pool, [], DataConfig(), DatasetConfig(min_output_words=3, max_output_words=5))
    assert [len(item.output.split()) for item in kept] == [3, 4, 5]
    assert {item.reason for item in rejected} == {"output_too_short", "output_too_long"}


def test_layouts_are_drawn_for_each_example_and_keep_its_text() -> None:
    texts = {encode("Use {braces}", "x {y}", str(n)) for n in range(60)}
    assert len(texts) == 7 and all("Use {braces}" in text and "x {y}" in text for text in texts)
    assert len({encode("Use {braces}", "", str(n)) for n in range(60)}) == 6
    assert encode("a", "b", "same") == encode("a", "b", "same")


def test_rows_that_hold_no_task_are_rejected_with_their_reason_where_that_is_asked_for(
    tmp_path: Path, server: ModelServer
) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"instruction": "Add 1 and 1."}\n{"other": "What?"}\n')
    server.answer = writer
    settings = ["data=answers", f"data.path={tmp_path / 'tasks.jsonl'}", "data.on_bad_row=reject"]
    outcome = build_pool(job(tmp_path, server, *settings), on_progress)
    assert (outcome.metrics["tasks"], outcome.metrics["reasons"]) == (1, {"has no valid instruction": 1})
    (row,) = read_jsonl(tmp_path / "work" / "rejected.jsonl")
    assert row["id"] == "row2" and "What?" in row["text"]
