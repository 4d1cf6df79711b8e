"""Exact near-duplicates among very many texts: an index that leaves out only pairs which cannot be above the limit.

A common subsequence is at most as long as the overlap of two bags of tokens, so a ROUGE-L F1 above t needs an overlap of at
least t / 2 (m + n). With tokens in one fixed order, rare ones first, two such texts must share a token among the first
p = m - ceil(m t / (2 - t)) + 1 of each (prefix filter: Chaudhuri et al. 2006; positions: Xiao et al. 2008, PPJoin).
"""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from minilima.config import Tokenizer
from minilima.construct.rouge import Vocabulary, above

_FIELD = 16
"""Bits for a length and for a position in a posting; longer texts are cut for the filter only, which stays exact."""
_MASK = (1 << _FIELD) - 1
_SLACK = 1e-9
"""Keeps the filters from losing a pair to rounding; the score itself decides."""


def first_near_duplicates(
    texts: Sequence[str], limit: float, *, tokenizer: Tokenizer = Tokenizer.rouge, tell: Callable[[int], None] = lambda done: None
) -> list[tuple[int, float] | None]:
    """The same as `rouge.first_near_duplicates`, from an index."""
    vocabulary = Vocabulary(tokenizer)
    encoded = [vocabulary.encode(text) for text in texts]
    index = PrefixIndex(Counter(character for text in encoded for character in text), limit)
    found: list[tuple[int, float] | None] = []
    for place, text in enumerate(encoded):
        best = index.nearest(text)
        found.append(best)
        if best is None:
            index.add(place, text)
        if place % 10_000 == 9_999:
            tell(place + 1)
    return found


class PrefixIndex:
    """Encoded texts, found again by the rare tokens in their prefixes. `frequency` orders the tokens."""

    def __init__(self, frequency: Counter[str], limit: float) -> None:
        ordered = sorted(frequency, key=lambda character: (frequency[character], character))
        self._rank = {character: place for place, character in enumerate(ordered)}
        self._limit = limit
        self._ids: list[int] = []
        self._texts: list[str] = []
        self._postings: dict[tuple[int, int], array[int]] = defaultdict(lambda: array("q"))

    def add(self, identity: int, text: str) -> None:
        place, length = len(self._ids), min(len(text), _MASK)
        self._ids.append(identity)
        self._texts.append(text)
        for position, token in enumerate(self._prefix(text)):
            self._postings[token].append(place << 2 * _FIELD | length << _FIELD | min(position, _MASK))

    def nearest(self, text: str) -> tuple[int, float] | None:
        """(id, score) of the best text above the limit, the earliest of equals; None where there is none."""
        places = self._candidates(text)
        near = above([text], [self._texts[place] for place in places], self._limit)[0]
        best = max(near, key=lambda item: (item[1], -item[0]), default=None)
        return (self._ids[places[best[0]]], best[1]) if best else None

    def _prefix(self, text: str) -> list[tuple[int, int]]:
        """(rank, occurrence) of the first tokens of a text, rare ones first; the second "the" is another token."""
        seen: Counter[str] = Counter()
        tokens = []
        for character in text:
            tokens.append((self._rank[character], seen[character]))
            seen[character] += 1
        shortest = math.ceil(len(text) * self._limit / (2 - self._limit) - _SLACK)
        # The rarest first; a repeated token is rarer than its first occurrence, whatever its rank.
        return sorted(tokens, key=lambda token: (-token[1], token[0]))[: len(text) - shortest + 1]

    def _candidates(self, text: str) -> NDArray[np.int64]:
        """Places, ascending, of all texts that can be above the limit."""
        length = len(text)
        shortest, longest = length * self._limit / (2 - self._limit), length * (2 - self._limit) / self._limit
        parts = []
        for position, token in enumerate(self._prefix(text)):
            if (posting := self._postings.get(token)) is None:
                continue
            entries = np.frombuffer(posting, dtype=np.int64)
            lengths = entries >> _FIELD & _MASK
            left = np.minimum(length - position, lengths - (entries & _MASK))
            fits = (lengths >= shortest - _SLACK) & (lengths <= longest + _SLACK)
            fits &= left >= self._limit / 2 * (length + lengths) - _SLACK
            parts.append(entries[fits] >> 2 * _FIELD)
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
