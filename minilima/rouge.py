"""Exact ROUGE-L F1 between a text and all earlier ones, fast: the measure by which Self-Instruct finds near-duplicates.

rapidfuzz gives the score of all pairs in single precision, which is enough to exclude nearly all of them. For the rest
the length of the common subsequence is an exact integer, and the score is computed with the same floating-point operations,
in the same order, as in the `rouge_score` package, so that `> 0.7` decides alike also at exact ties.

A growing pool is compared here, since Self-Instruct records the mean over all earlier texts, which needs every pair. A finished
set is searched by generate/near_duplicates.py, whose index reads few of the pairs.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel, LCSseq
from rapidfuzz.process import cdist

from minilima.config.choices import Tokenizer
from minilima.formats.words import words_of

BLOCK = 256
"""Candidates that are compared with the earlier texts in one call."""

MOST_SIMILAR = 10
"""Earlier texts that are remembered with their scores, as in Self-Instruct."""

_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")
# Scripts that do not separate words by spaces: each of their characters is a token.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_WORD_OR_CHARACTER = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+")
_FIRST_SURROGATE, _SURROGATES = 0xD800, 0x800


def tokenize(text: str, tokenizer: Tokenizer = Tokenizer.auto) -> list[str]:
    """`auto`: by script, of ASCII text the same as `rouge`; `rouge`: runs of a-z and 0-9; `unicode`: words, CJK by character."""
    if tokenizer == Tokenizer.auto:
        return words_of(text)
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

    def __init__(self, tokenizer: Tokenizer = Tokenizer.auto) -> None:
        self._tokenizer = tokenizer
        self._characters: dict[str, str] = {}

    def encode(self, text: str) -> str:
        known = self._characters
        return "".join(known.setdefault(token, _character(len(known))) for token in tokenize(text, self._tokenizer))


class RougeIndex:
    """Texts to compare with."""

    def __init__(self, tokenizer: Tokenizer = Tokenizer.auto) -> None:
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
        nearest: list[Nearest | None] = []
        for start in range(0, len(encoded), BLOCK):
            block = encoded[start : start + BLOCK]
            rough = _rough(block, self._texts)
            nearest += [self._nearest(text, row) for text, row in zip(block, rough, strict=True)]
        return nearest

    def nearest_above(self, texts: Iterable[str], limit: float) -> list[tuple[str, float] | None]:
        """(id, ROUGE-L F1) of the most similar earlier text of each, the earliest of equals; None where none is above `limit`.

        The same as `nearest_many` says, several times as fast, because only the few pairs above the limit are scored exactly.
        """
        encoded = [self._vocabulary.encode(text) for text in texts]
        nearest: list[tuple[str, float] | None] = []
        for start in range(0, len(encoded), BLOCK):
            for pairs in above(encoded[start : start + BLOCK], self._texts, limit):
                index, score = max(pairs, key=lambda pair: (pair[1], -pair[0]), default=(-1, 0.0))
                nearest.append((self._ids[index], score) if pairs else None)
        return nearest

    def _nearest(self, text: str, rough: NDArray[np.float32]) -> Nearest:
        wanted = min(MOST_SIMILAR, len(rough))
        # Everything that could be among the most similar ones, also by rouge_score's last bit.
        indices = np.flatnonzero(rough >= np.partition(rough, -wanted)[-wanted] - _ROUGHNESS).tolist()
        exact = {index: rouge_l(text, self._texts[index]) for index in indices}
        order = sorted(exact, key=lambda index: (-exact[index], index))[:wanted]
        similar = {self._ids[index]: round(exact[index], 4) for index in order}
        return Nearest(id=self._ids[order[0]], rouge=exact[order[0]], most_similar=similar, mean=float(rough.mean()))


def above(block: Sequence[str], others: Sequence[str], limit: float) -> list[list[tuple[int, float]]]:
    """For each encoded text of the block, (index, score) of all others whose ROUGE-L F1 is above the limit."""
    pairs: list[list[tuple[int, float]]] = [[] for _ in block]
    if others:
        for row, index in np.argwhere(_rough(block, others, limit - _ROUGHNESS) > 0):
            score = rouge_l(block[row], others[index])
            if score > limit:
                pairs[row].append((int(index), score))
    return pairs


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
