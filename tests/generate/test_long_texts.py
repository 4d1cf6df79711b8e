"""Long texts are compared exactly and with little work, counted in cells of the table that a common subsequence takes."""

import random
from types import SimpleNamespace

import pytest
from rapidfuzz.distance import LCSseq

from minilima.generate import long_texts
from minilima.generate.long_texts import by_frequency, common_at_least
from minilima.generate.near_duplicates import first_near_duplicates
from minilima.rouge import Vocabulary, rouge_l

LIMIT = 0.7


def long_prompts(rng: random.Random, words: int, texts: int = 24) -> list[str]:
    """Texts of 300 to 2,000 of so many words, and changed copies of some on both sides of the limit."""
    made = [[f"w{rng.randrange(words)}" for _ in range(rng.randint(300, 2000))] for _ in range(texts)]
    for at in range(6):
        copy = list(made[at])
        for _ in range(len(copy) * at // 12):
            copy[rng.randrange(len(copy))] = f"new{rng.randrange(words)}"
        made.append(copy[len(copy) * at // 20 :])
    return [" ".join(text) for text in made]


def by_a_loop(texts: list[str]) -> list[tuple[int, float] | None]:
    vocabulary, kept, nearest = Vocabulary(), list[tuple[int, str]](), list[tuple[int, float] | None]()
    for at, text in enumerate(map(vocabulary.encode, texts)):
        score, other = max(((rouge_l(text, one), -index) for index, one in kept), default=(0.0, 0))
        nearest.append((-other, score) if score > LIMIT else None)
        if nearest[-1] is None:
            kept.append((at, text))
    return nearest


@pytest.mark.parametrize(("words", "share"), [(3000, 0.1), (100, 0.5)])
def test_the_decisions_are_those_of_a_loop_and_cost_a_part_of_its_work(
    words: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = long_prompts(random.Random(words), words)
    expected, cells = by_a_loop(texts), 0

    def counted(one: str, two: str) -> int:
        nonlocal cells
        cells += len(one) * len(two)
        return int(LCSseq.similarity(one, two))

    monkeypatch.setattr(long_texts, "LCSseq", SimpleNamespace(similarity=counted))
    assert first_near_duplicates(texts, LIMIT) == expected
    assert sum(near is not None for near in expected) >= 3
    lengths = [len(text.split()) for text in texts]
    possible = sum(one * two for at, one in enumerate(lengths) for two in lengths[:at] if 2 * min(one, two) / (one + two) > LIMIT)
    assert cells < share * possible, "words that unrelated texts do not share, and where they share all, their beginnings decide"


def test_a_common_subsequence_has_its_length_or_is_too_short() -> None:
    rng = random.Random(1)
    for _ in range(300):
        one, two = ("".join(rng.choices("abcdefgh"[: rng.randint(2, 8)], k=rng.randint(1, 60))) for _ in range(2))
        common = LCSseq.similarity(one, two)
        for needed in range(common + 3):
            assert common_at_least(one, two, needed) == (common if common >= needed else 0)


def test_a_renaming_by_frequency_keeps_what_is_equal() -> None:
    assert by_frequency(["aab", "", "cbaa"]) == ["\0\0\1", "", "\2\1\0\0"]
    assert by_frequency([]) == []
