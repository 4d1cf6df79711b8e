"""The 16 defects of the original code (yizhongw/self-instruct at 0b26cca), none of which may come back.

 1  capital letters were lost                   test_texts: test_capital_letters_stay_as_they_are
 2  a cut reply was thrown away as a whole      here, and test_texts: test_only_the_cut_item_is_dropped
 3  "16." in a text ended it                    test_texts: test_numbers_inside_a_text_do_not_cut_it; here: no such stop is sent
 4  a kill lost rows that were finished         test_pool: test_an_interrupted_pool_goes_on_without_asking_again
 5  a failure counted as done, and as "no"      here, and test_client: test_an_empty_reply_is_not_kept
 6  one missing row was paid for five times     test_pool: test_an_interrupted_pool…; here: what a reply's key covers
 7  a resumed run drew the same examples again  here, and test_pool: test_an_interrupted_pool…
 8  a file was named after one engine           here: the steps of two models are kept apart
 9  results depended on the hash seed           here
10  a dead API, or a writer with nothing new,   test_client: test_an_endpoint_that_stays_down_is_explained;
    was an endless loop                         test_pool: test_a_writer_that_repeats_itself_does_not_run_for_ever
11  an API that is gone; base models only       test_pool: test_the_four_steps_lie_open, test_base_models_continue_documents
12  the pool was tokenized again for each pair  here; benchmarks/dedupe.py
13  only a-z counted as words                   test_rouge: test_chinese_duplicates_are_found_with_unicode_tokens
14  prompts and raw replies in every row        here
15  keywords fixed, rejections not to be seen   here
16  JSON as input was a crash                   test_imports: test_each_format_gives_the_same_conversation
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minilima import rouge
from minilima.config.choices import Tokenizer
from minilima.config.schema import DataConfig
from minilima.formats.files import DATA, read_jsonl
from minilima.formats.seeds import load_seeds
from minilima.generate.instructions import _draw
from minilima.generate.methods import parse_examples, parse_list
from minilima.generate.pool import build_pool
from minilima.models.chat import Request, Sampling, ask
from minilima.pipeline import stages
from minilima.rouge import RougeIndex
from minilima.run.sources import resolve
from tests.generate.test_pool import contents, job, on_progress, writer
from tests.server import VALID_KEY, ModelServer


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)


def test_what_is_whole_in_a_cut_json_list_is_kept() -> None:
    assert parse_list('{"tasks": ["Explain rain", "Name a river, th', cut=True) == ["Explain rain"]
    example = '{"instruction": "Add.", "input": "1 2", "output": "3"}'
    assert [candidate.output for candidate in parse_examples(f'{{"tasks": [{example}, {example[:-5]}', cut=True)] == ["3"]


def test_a_cut_and_an_unreadable_list_are_told(tmp_path: Path, server: ModelServer) -> None:
    def answer(body: dict[str, Any]) -> str:
        first = "as a numbered list" in body["messages"][-1]["content"] and len(server.requests) <= 3
        return "I would rather not." if first else writer(body)

    server.answer, server.faults = answer, ["truncated"]
    outcome = build_pool(job(tmp_path, server, "data.requests_per_round=1", "endpoints.generator.concurrency=1"), on_progress)
    assert outcome.metrics["reasons"] == {"unreadable": 1} and outcome.usage.faults["unusable"] == 3
    (row,) = read_jsonl(tmp_path / "work" / "rejected.jsonl")
    assert row["text"] == "I would rather not." and len(row["request"]) == 64
    assert outcome.metrics["instructions"] == 12, "the run went on"


def test_no_text_is_a_reason_to_stop(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    build_pool(job(tmp_path / "chat", server), on_progress)
    assert not any("stop" in body for body in server.requests)


def test_a_task_that_could_not_be_classified_is_no_plain_no(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: "Perhaps" if "Answer Yes or No" in body["messages"][-1]["content"] else writer(body)
    outcome = build_pool(job(tmp_path, server), on_progress)
    assert outcome.metrics["not_classified"] == 12 and outcome.metrics["classification"] == 0
    assert not any("is_classification" in row for row in read_jsonl(tmp_path / "work" / "instances.jsonl"))


def test_a_reply_is_kept_under_all_that_can_change_it() -> None:
    request = Request(messages=ask("One"), sampling=Sampling(temperature=0.0, max_tokens=5))
    others = [
        replace(request, messages=ask("Two")),
        replace(request, sampling=Sampling(temperature=0.1, max_tokens=5)),
        replace(request, sampling=Sampling(temperature=0.0, max_tokens=6)),
        replace(request, sample=1),
        replace(request, schema="{}"),
    ]
    keys = {request.key("a"), request.key("b"), *(other.key("a") for other in others)}
    assert len(keys) == 7


def test_each_prompt_has_a_draw_of_its_own_whatever_was_drawn_before() -> None:
    seeds, data = load_seeds(DATA / "minilima_175.jsonl"), DataConfig()
    drawn = [[task.id for task in _draw(seeds, [], 8, data, f"0:{number}:{slot}")] for number in range(3) for slot in range(3)]
    assert len({tuple(ids) for ids in drawn}) == 9
    assert [task.id for task in _draw(seeds, [], 8, data, "0:2:2")] == drawn[-1]


def test_the_steps_of_two_models_are_kept_apart(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    jobs = [job(tmp_path / name, server, f"generator.model={name}") for name in ("writer-small", "writer-large")]
    keys = {stages(item.config, resolve(item.config))["pool"].key for item in jobs}
    assert len(keys) == 2
    build_pool(jobs[0], on_progress)
    asked = len(server.requests)
    build_pool(replace(jobs[1], cache=jobs[0].cache), on_progress)
    assert len(server.requests) == 2 * asked, "no reply of the other is taken for its own"


HASHED = """
import sys
from minilima.config.schema import DataConfig, DatasetConfig
from minilima.generate.dataset import sift
from minilima.generate.layouts import encode
from minilima.generate.classification import parse_labels
from minilima.generate.instructions import _draw
from minilima.rouge import RougeIndex
from minilima.formats.seeds import load_seeds
from minilima.generate.selection import shuffle
from minilima.formats.records import Example
from minilima.run.sources import DATA

seeds = load_seeds(DATA / "minilima_175.jsonl")
rows = [Example(id=t.id, instruction=t.instruction, input=t.input, output=t.output, source="seed") for t in seeds]
kept, left_out = sift(rows, [], DataConfig(), DatasetConfig())
index = RougeIndex()
for task in seeds:
    index.add(task.id, task.instruction)
print([row.id for row in shuffle(kept, 0)], left_out, [t.id for t in _draw(seeds, [], 8, DataConfig(), "0:0:0")])
print(index.nearest("Write a poem about rain"), parse_labels("b\\na\\nb"), [encode(t.instruction, t.input, t.id) for t in seeds])
"""


def test_nothing_depends_on_pythons_hash_seed() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", HASHED], check=True, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("0", "1")
    }
    assert len(said) == 1 and len(said.pop()) > 1000


def test_each_text_is_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken_apart: list[str] = []
    tokenize = rouge.tokenize

    def noted(text: str, tokenizer: Tokenizer) -> list[str]:
        taken_apart.append(text)
        return tokenize(text, tokenizer)

    monkeypatch.setattr(rouge, "tokenize", noted)
    index = RougeIndex()
    for number in range(20):
        text = f"Explain thing {number} to me"
        index.nearest(text)
        index.add(str(number), text)
    assert len(taken_apart) == 40, "once to compare and once to be compared with, not once a pair"


def test_rows_hold_no_prompt_and_no_raw_reply(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    build_pool(job(tmp_path, server), on_progress)
    files = contents(tmp_path / "work")
    assert all("numbered list" not in text for text in files.values()), "the prompt"
    second = [row["instruction"] for row in read_jsonl(tmp_path / "work" / "instructions.jsonl")][1]
    assert files["instructions.jsonl"].count(json.dumps(second)) == 1, "a list's reply would hold all of its tasks"


def test_words_are_blocked_by_a_setting_and_what_they_left_out_can_be_read(tmp_path: Path, server: ModelServer) -> None:
    server.answer = writer
    outcome = build_pool(job(tmp_path, server, "data.blocked_words=[sketch]", "data.instructions=20"), on_progress)
    left_out = [row for row in read_jsonl(tmp_path / "work" / "rejected.jsonl") if row["reason"] == "blocked_word:sketch"]
    assert left_out and len(left_out) == outcome.metrics["reasons"]["blocked_word:sketch"]
    assert all("Sketch" in row["text"] and row["nearest_id"] and row["nearest_rouge"] >= 0 for row in left_out)
