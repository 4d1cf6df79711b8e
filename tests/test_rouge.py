"""Near-duplicates: the scores are rouge_score's, bit for bit."""

import random

import pytest
from rouge_score import rouge_scorer

from minilima.config.choices import Tokenizer
from minilima.formats.files import DATA
from minilima.formats.seeds import load_seeds
from minilima.generate import near_duplicates
from minilima.rouge import RougeIndex, tokenize

REFERENCE = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)


def ours(target: str, prediction: str) -> float:
    index = RougeIndex(Tokenizer.rouge)
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


def test_unicode_tokens_are_words_of_any_script_and_single_chinese_characters() -> None:
    assert tokenize("Skriv på fløjte, 写诗!", Tokenizer.unicode) == ["skriv", "på", "fløjte", "写", "诗"]
    assert tokenize("写诗", Tokenizer.rouge) == [], "the original sees nothing here, so that nothing was ever a duplicate"


def test_chinese_duplicates_are_found_with_unicode_tokens() -> None:
    index = RougeIndex(Tokenizer.unicode)
    index.add("one", "请写一首关于大海的诗")
    nearest = index.nearest("请写一首关于大海的诗歌")
    assert nearest is not None and nearest.rouge > 0.9


def test_the_most_similar_texts_and_the_mean_are_kept() -> None:
    texts = [f"write about {thing} today" for thing in ("cats", "dogs", "rain")] + ["something else entirely"]
    index = RougeIndex()
    for text in texts:
        index.add(text, text)
    nearest = index.nearest("write about dogs today")
    assert nearest is not None and nearest.id == texts[1] and nearest.rouge == 1.0
    assert list(nearest.most_similar) == [texts[1], texts[0], texts[2], texts[3]]
    assert nearest.mean == pytest.approx(sum(theirs("write about dogs today", text) for text in texts) / 4, abs=1e-6)


def greedy(texts: list[str], limit: float) -> list[tuple[int, float] | None]:
    """What a loop over rouge_score decides."""
    kept: list[int] = []
    nearest: list[tuple[int, float] | None] = []
    for index, text in enumerate(texts):
        scores = [(theirs(text, texts[other]), -other) for other in kept]
        best = max(scores, default=(0.0, 0))
        nearest.append((-best[1], best[0]) if best[0] > limit else None)
        if best[0] <= limit:
            kept.append(index)
    return nearest


@pytest.mark.parametrize("limit", [0.3, 0.7])
def test_the_index_decides_as_a_loop_over_rouge_score(limit: float) -> None:
    rng = random.Random(1)
    words = ["a", "b", "c", "the", "the", "poem", "–", "tell", "story"]
    texts = [" ".join(rng.choices(words, k=rng.randint(0, 12))) for _ in range(400)]
    texts += [task.instruction for task in load_seeds(DATA / "minilima_175.jsonl")]
    expected = greedy(texts, limit)
    assert sum(item is not None for item in expected) > 30
    assert near_duplicates.first_near_duplicates(texts, limit) == expected


@pytest.mark.parametrize("limit", [0.0, 0.1, 0.5, 0.7, 0.9, 1.0])
def test_the_index_decides_as_all_pairs_in_random_texts_of_any_length(limit: float) -> None:
    rng = random.Random(limit)
    for words, lengths, count in ((3, (0, 4), 30), (40, (1, 15), 30), (400, (190, 230), 6)):
        vocabulary = [f"w{number}" for number in range(words)]
        texts = [" ".join(rng.choices(vocabulary, k=rng.randint(*lengths))) for _ in range(count)]
        texts += [" ".join(word for word in rng.choice(texts).split() if rng.random() > 0.1) for _ in range(count)]
        assert near_duplicates.first_near_duplicates(texts, limit) == greedy(texts, limit)


def test_the_nearest_above_a_limit_is_the_nearest_of_all() -> None:
    rng = random.Random(2)
    texts = [" ".join(rng.choices(["a", "b", "c", "d", "e"], k=rng.randint(0, 9))) for _ in range(700)]
    index = RougeIndex()
    for number, text in enumerate(texts[:200]):
        index.add(str(number), text)
    nearest = index.nearest_many(texts)
    expected = [(one.id, one.rouge) if one and one.rouge > 0.6 else None for one in nearest]
    assert 50 < sum(one is not None for one in expected) < 690
    assert index.nearest_above(texts, 0.6) == expected
