"""Exact ROUGE-L F1 between a text and all earlier ones, fast: the measure by which Self-Instruct finds near-duplicates.

The longest common subsequence comes from rapidfuzz as an integer; the score is then computed with the same floating-point
operations, in the same order, as the `rouge_score` package does, so that `> 0.7` decides alike also at exact ties.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")
_FIRST_SURROGATE, _SURROGATES = 0xD800, 0x800


def tokenize(text: str) -> list[str]:
    """rouge_score's default tokens: lower-cased runs of a-z and 0-9, unstemmed."""
    return _NOT_ALPHANUMERIC.sub(" ", text.lower()).split()


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The earlier text that a text resembles most."""

    id: str
    rouge: float


class RougeIndex:
    """Texts to compare with. Each distinct token becomes one character, so that a text is a string for rapidfuzz."""

    def __init__(self) -> None:
        self._vocabulary: dict[str, str] = {}
        self._ids: list[str] = []
        self._texts: list[str] = []

    def add(self, identity: str, text: str) -> None:
        self._ids.append(identity)
        self._texts.append(self._encode(text))

    def nearest(self, text: str) -> Nearest | None:
        """The most similar text added so far, the earliest of equals; None if there is none."""
        if not self._texts:
            return None
        scores = rouge_l(self._encode(text), self._texts)
        best = int(scores.argmax())
        return Nearest(id=self._ids[best], rouge=float(scores[best]))

    def _encode(self, text: str) -> str:
        return "".join(self._vocabulary.setdefault(token, _character(len(self._vocabulary))) for token in tokenize(text))


def rouge_l(target: str, predictions: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """ROUGE-L F1 of one encoded text with each of several, shape (len(predictions),)."""
    common = cdist([target], predictions, scorer=LCSseq.similarity, dtype=np.int32)[0].astype(np.float64)
    precision = common / np.maximum(1, np.fromiter(map(len, predictions), dtype=np.float64))
    recall = common / max(1, len(target))
    with np.errstate(invalid="ignore"):
        score = 2 * precision * recall / (precision + recall)
    return np.where(common > 0, score, 0.0)


def _character(number: int) -> str:
    code = number + 1
    return chr(code if code < _FIRST_SURROGATE else code + _SURROGATES)
