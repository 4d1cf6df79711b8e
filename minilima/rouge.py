"""Exact ROUGE-L F1 between a text and all earlier ones, fast: the measure by which Self-Instruct finds near-duplicates.

rapidfuzz gives the score of all pairs in single precision, which is enough to leave out nearly all of them. For the rest
the length of the common subsequence is found as an integer, and the score is computed with the same floating-point
operations, in the same order, as the `rouge_score` package does, so that `> 0.7` decides alike also at exact ties.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel, LCSseq
from rapidfuzz.process import cdist

from minilima.config.choices import Tokenizer

BLOCK = 256
"""Candidates that are compared with the earlier texts in one call."""

MOST_SIMILAR = 10
"""Earlier texts that are remembered with their scores, as in Self-Instruct."""

_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")
# Scripts that do not separate words by spaces: each of their characters is a token.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_WORD_OR_CHARACTER = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+")
_FIRST_SURROGATE, _SURROGATES = 0xD800, 0x800


def tokenize(text: str, tokenizer: Tokenizer = Tokenizer.rouge) -> list[str]:
    """`rouge`: rouge_score's tokens, lower-cased runs of a-z and 0-9; `unicode`: words of any script, CJK by character."""
    if tokenizer == Tokenizer.unicode:
        return _WORD_OR_CHARACTER.findall(text.casefold())
    return _NOT_ALPHANUMERIC.sub(" ", text.lower()).split()


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The earlier texts that a text resembles."""

    id: str
    """The most similar one, the earliest of equals."""
    rouge: float
    most_similar: dict[str, float]
    """ROUGE-L F1 by id, the MOST_SIMILAR most similar ones."""
    mean: float
    """Mean over all earlier texts."""


class Vocabulary:
    """Turns each distinct token into one character, so that a text is a string for rapidfuzz."""

    def __init__(self, tokenizer: Tokenizer = Tokenizer.rouge) -> None:
        self._tokenizer = tokenizer
        self._characters: dict[str, str] = {}

    def encode(self, text: str) -> str:
        known = self._characters
        return "".join(known.setdefault(token, _character(len(known))) for token in tokenize(text, self._tokenizer))


class RougeIndex:
    """Texts to compare with."""

    def __init__(self, tokenizer: Tokenizer = Tokenizer.rouge) -> None:
        self._vocabulary = Vocabulary(tokenizer)
        self._ids: list[str] = []
        self._texts: list[str] = []

    def add(self, identity: str, text: str) -> None:
        self._ids.append(identity)
        self._texts.append(self._vocabulary.encode(text))

    def nearest(self, text: str) -> Nearest | None:
        """What resembles a text most among those added so far; None if there is none."""
        return self.nearest_many([text])[0]

    def nearest_many(self, texts: Iterable[str]) -> list[Nearest | None]:
        """The same for several texts at once, which is much faster."""
        encoded = [self._vocabulary.encode(text) for text in texts]
        if not self._texts:
            return [None] * len(encoded)
        found: list[Nearest | None] = []
        for start in range(0, len(encoded), BLOCK):
            block = encoded[start : start + BLOCK]
            rough = _rough(block, self._texts)
            found += [self._nearest(text, row) for text, row in zip(block, rough, strict=True)]
        return found

    def _nearest(self, text: str, rough: NDArray[np.float32]) -> Nearest:
        wanted = min(MOST_SIMILAR, len(rough))
        # Everything that could be among the most similar ones, also by rouge_score's last bit.
        places = np.flatnonzero(rough >= np.partition(rough, -wanted)[-wanted] - _ROUGHNESS)
        others = [self._texts[place] for place in places]
        exact = {int(place): rouge_l(text, other) for place, other in zip(places, others, strict=True)}
        order = sorted(exact, key=lambda place: (-exact[place], place))[:wanted]
        similar = {self._ids[place]: round(exact[place], 4) for place in order}
        return Nearest(id=self._ids[order[0]], rouge=exact[order[0]], most_similar=similar, mean=float(rough.mean()))


def first_near_duplicates(
    texts: Sequence[str],
    limit: float,
    *,
    tokenizer: Tokenizer = Tokenizer.rouge,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[tuple[int, float] | None]:
    """Which texts a greedy pass leaves out: for each, the kept earlier text nearest to it and the score, where above `limit`.

    Every text is compared with all kept ones, BLOCK candidates a call: O(N²), about 15 ns a pair. Beyond 200,000 texts
    `prefix_index.first_near_duplicates` gives the same decisions from an index.
    """
    vocabulary = Vocabulary(tokenizer)
    encoded = [vocabulary.encode(text) for text in texts]
    kept: list[int] = []
    kept_texts: list[str] = []
    found: list[tuple[int, float] | None] = []
    for start in range(0, len(encoded), BLOCK):
        block = encoded[start : start + BLOCK]
        before = above(block, kept_texts, limit)
        inside = above(block, block, limit)
        fresh: set[int] = set()
        for place in range(len(block)):
            near = [(kept[other], score) for other, score in before[place]]
            near += [(start + other, score) for other, score in inside[place] if other in fresh]
            found.append(max(near, key=lambda item: (item[1], -item[0])) if near else None)
            if not near:
                fresh.add(place)
        kept += [start + place for place in sorted(fresh)]
        kept_texts += [block[place] for place in sorted(fresh)]
        on_progress(len(found))
    return found


def above(block: Sequence[str], others: Sequence[str], limit: float) -> list[list[tuple[int, float]]]:
    """For each encoded text of the block, (place, score) of all others whose ROUGE-L F1 is above the limit."""
    found: list[list[tuple[int, float]]] = [[] for _ in block]
    if others:
        for row, place in np.argwhere(_rough(block, others, limit - _ROUGHNESS) > 0):
            score = rouge_l(block[row], others[place])
            if score > limit:
                found[row].append((int(place), score))
    return found


_ROUGHNESS = 1e-5
"""Single precision is exact to about 1e-7."""


def _rough(block: Sequence[str], others: Sequence[str], cutoff: float | None = None) -> NDArray[np.float32]:
    """2 L / (m + n) in single precision, shape (len(block), len(others)); 0 where it is below the cutoff."""
    scores: NDArray[np.float32] = cdist(
        block, others, scorer=Indel.normalized_similarity, score_cutoff=cutoff, dtype=np.float32
    )  # rapidfuzz calls two empty texts alike, rouge_score does not
    scores[np.array([not text for text in block])] = 0
    return scores


def rouge_l(target: str, prediction: str) -> float:
    """ROUGE-L F1 of two encoded texts, by rouge_score's formula, operation by operation."""
    return f1(LCSseq.similarity(target, prediction), len(target), len(prediction))


def likeness(one: str, two: str) -> float:
    """ROUGE-L F1 of two texts."""
    vocabulary = Vocabulary()
    return rouge_l(vocabulary.encode(one), vocabulary.encode(two))


def f1(common: int, target: int, prediction: int) -> float:
    """ROUGE-L F1 of texts of `target` and `prediction` tokens with a common subsequence of `common` tokens."""
    if not common:
        return 0.0
    precision, recall = common / prediction, common / target
    return 2 * precision * recall / (precision + recall)


def _character(number: int) -> str:
    code = number + 1
    return chr(code if code < _FIRST_SURROGATE else code + _SURROGATES)
