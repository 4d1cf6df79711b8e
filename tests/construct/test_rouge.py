"""Near-duplicates: the scores are rouge_score's, bit for bit."""

import random

import pytest
from rouge_score import rouge_scorer

from minilima.construct.rouge import RougeIndex, tokenize
from minilima.construct.seeds import load_seeds
from minilima.sources import DATA

REFERENCE = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)


def ours(target: str, prediction: str) -> float:
    index = RougeIndex()
    index.add("it", prediction)
    nearest = index.nearest(target)
    assert nearest is not None
    return nearest.rouge


def theirs(target: str, prediction: str) -> float:
    return float(REFERENCE.score(target, prediction)["rougeL"].fmeasure)


def test_scores_equal_rouge_score_on_real_instructions() -> None:
    texts = [task.instruction for task in load_seeds(DATA / "minilima_175.jsonl")]
    rng = random.Random(0)
    for _ in range(1000):
        one, two = rng.choice(texts), rng.choice(texts)
        assert ours(one, two) == theirs(one, two)


@pytest.mark.parametrize(("common", "m", "n"), [(7, 7, 13), (14, 15, 25), (7, 10, 10), (21, 29, 31)])
def test_decisions_at_exact_ties_equal_rouge_score(common: int, m: int, n: int) -> None:
    shared = [f"s{i}" for i in range(common)]
    one = " ".join(shared + [f"a{i}" for i in range(m - common)])
    two = " ".join(shared + [f"b{i}" for i in range(n - common)])
    assert ours(one, two) == theirs(one, two)
    assert (ours(one, two) > 0.7) == (theirs(one, two) > 0.7)


def test_texts_without_tokens_resemble_nothing() -> None:
    assert ours("!?", "…") == theirs("!?", "…") == 0.0


def test_the_most_similar_earlier_text_is_found() -> None:
    index = RougeIndex()
    assert index.nearest("anything") is None
    index.add("cats", "Write a poem about cats")
    index.add("dogs", "Write a poem about dogs")
    nearest = index.nearest("Write a long poem about dogs")
    assert nearest is not None and nearest.id == "dogs"


def test_tokens_are_lower_case_letters_and_digits() -> None:
    assert tokenize("It's 3 o'clock, U.S.A.!") == ["it", "s", "3", "o", "clock", "u", "s", "a"]
