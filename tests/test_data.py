"""The packaged seed tasks and evaluation set keep what they promise."""

import gzip
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import DATA
from minilima.formats.seeds import load_seeds
from minilima.generate.languages import languages
from minilima.rouge import RougeIndex
from tests.conftest import SHARED

SEEDS = load_seeds(DATA / "minilima_175.jsonl")
_EVAL_FILE = DATA / "minilima_100.jsonl"
EVAL = load_eval_set(_EVAL_FILE, None)
_DEV_FILE = DATA / "minilima_dev_50.jsonl"
DEV = load_eval_set(_DEV_FILE, None)
GERMAN_SEEDS = load_seeds(DATA / "minilima_de_50.jsonl")
GERMAN_EVAL = load_eval_set(DATA / "minilima_de_40.jsonl", None)
LIMIT = 0.7


def highest(texts: list[str], others: list[str]) -> float:
    index = RougeIndex()
    for number, text in enumerate(others):
        index.add(str(number), text)
    return max((near.rouge for text in texts if (near := index.nearest(text))), default=0.0)


def test_there_are_175_seeds_with_enough_classification() -> None:
    assert len(SEEDS) == 175
    assert sum(task.is_classification for task in SEEDS) >= 26


def test_there_are_100_prompts_in_at_least_8_categories_with_references() -> None:
    assert len(EVAL) == 100
    assert len(Counter(prompt.category for prompt in EVAL)) >= 8
    assert all(prompt.output for prompt in EVAL)


def test_every_start_of_the_evaluation_set_is_balanced() -> None:
    for start in range(0, 100, 10):
        assert len({prompt.category for prompt in EVAL[start : start + 10]}) == 10


def test_there_are_50_dev_prompts_balanced_over_the_categories_with_references() -> None:
    assert len(DEV) == 50
    assert set(Counter(prompt.category for prompt in DEV).values()) == {5}
    assert {prompt.category for prompt in DEV} == {prompt.category for prompt in EVAL}
    assert all(prompt.output for prompt in DEV)


def test_no_dev_prompt_resembles_a_seed_or_an_evaluation_prompt_or_another() -> None:
    dev = [prompt.instruction for prompt in DEV]
    assert highest(dev, [*(task.instruction for task in SEEDS), *(prompt.instruction for prompt in EVAL)]) <= LIMIT
    assert all(highest([text], dev[:index]) <= LIMIT for index, text in enumerate(dev) if index)


def test_no_two_seeds_resemble_each_other() -> None:
    index = RougeIndex()
    for task in SEEDS:
        near = index.nearest(task.instruction)
        assert near is None or near.rouge <= LIMIT, (task.id, near)
        index.add(task.id, task.instruction)


def test_no_seed_resembles_an_evaluation_prompt() -> None:
    assert highest([task.instruction for task in SEEDS], [prompt.instruction for prompt in EVAL]) <= LIMIT


def test_there_are_50_german_seeds_and_40_german_prompts_balanced_over_the_categories_with_references() -> None:
    assert len(GERMAN_SEEDS) == 50 and sum(task.is_classification for task in GERMAN_SEEDS) == 10
    assert len(GERMAN_EVAL) == 40 and all(prompt.output for prompt in GERMAN_EVAL)
    for start in range(0, 40, 10):
        assert {prompt.category for prompt in GERMAN_EVAL[start : start + 10]} == {prompt.category for prompt in EVAL}


def test_german_texts_are_german_with_whole_letters() -> None:
    texts = [f"{task.instruction} {task.input} {task.output}" for task in GERMAN_SEEDS]
    texts += [f"{prompt.instruction} {prompt.output}" for prompt in GERMAN_EVAL]
    guessed = languages(texts)
    assert guessed["German"] >= 84, "the others are too short to guess, or translations"
    assert all(unicodedata.is_normalized("NFC", text) and not re.search("[\ufffdÃ]", text) for text in texts)
    assert not re.search(r"\b(?:fuer|ueber|koennen|moeglich|groesser|muessen|waere|haette)\b", " ".join(texts)), (
        "umlauts are written"
    )


def test_no_german_seed_or_prompt_resembles_another_or_an_english_one() -> None:
    english = [*(task.instruction for task in SEEDS), *(prompt.instruction for prompt in (*EVAL, *DEV))]
    german = [*(task.instruction for task in GERMAN_SEEDS), *(prompt.instruction for prompt in GERMAN_EVAL)]
    assert highest(german, english) <= LIMIT
    assert all(highest([text], german[:index]) <= LIMIT for index, text in enumerate(german) if index)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published sets for comparison are not on this machine")
@pytest.mark.parametrize("name", ["self-instruct", "alpaca_eval"])
def test_no_seed_or_prompt_resembles_a_published_one(name: str) -> None:
    if name == "self-instruct":
        lines = (SHARED / "self-instruct" / "seed_tasks.jsonl").read_text().splitlines()
        published = [json.loads(line)["instruction"] for line in lines]
    else:
        file = SHARED / "alpaca_eval" / "model_outputs" / "gpt4_1106_preview.REFERENCE.json.gz"
        published = [row["instruction"] for row in json.loads(gzip.decompress(Path(file).read_bytes()))]
    ours = [task.instruction for task in SEEDS] + [prompt.instruction for prompt in (*EVAL, *DEV)]
    assert highest(ours, published) <= LIMIT
