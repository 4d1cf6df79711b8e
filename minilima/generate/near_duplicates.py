"""Exact near-duplicates in a set of any size: an index that skips only pairs whose ROUGE-L F1 cannot be above the limit.

    blocks of texts ─> entries at which a shared token would do ─> bound by bit vectors ─> common subsequence ─> greedy choice
A common subsequence is at most as long as the overlap of two bags of tokens, so a ROUGE-L F1 above t needs an overlap of at
least c = t / 2 (m + n). With the tokens of texts of m and n in one order, rare ones first, the first shared token then stands
among the first m - c + 1 of the one and the first n - c + 1 of the other (prefix filter: Chaudhuri et al. 2006; positions:
Xiao et al. 2008, PPJoin). Entries are sorted by (token, length, position), so that exactly those are read.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cpdist

from minilima.config.choices import Tokenizer
from minilima.generate.long_texts import by_frequency, common_at_least
from minilima.rouge import Vocabulary

BLOCK = 8192
"""Texts that are looked up together."""
_MOST_HITS = 1 << 21
"""Entries that are read at once, which bounds the memory."""
_LONG = 200
"""Tokens of a text beyond which its possible partners have too many lengths for a search of each, and bags of bits are full."""
_MOST_CELLS = 1 << 22
"""Tokens times lengths that are looked up at once, for the same reason: a prompt may have 20,000 tokens."""
_FIELD = 20
"""Bits for a length and for a position in a key; the token's number stands above them."""
_SLACK = 1e-9
"""Keeps the filters from losing a pair to rounding; the score itself decides."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def first_near_duplicates(
    texts: Sequence[str],
    limit: float,
    *,
    tokenizer: Tokenizer = Tokenizer.auto,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[tuple[int, float] | None]:
    """For each text the most similar earlier text that is kept, and the score, where that is above `limit`; else it is kept.

    The decisions are those of a loop that compares each text with all kept ones by rouge_score, the earliest of equals. In a
    few hundred texts and more the index is faster than comparing all pairs, in fewer it takes milliseconds (dedupe.json).
    """
    vocabulary = Vocabulary(tokenizer)
    corpus = _Corpus([vocabulary.encode(text) for text in texts], limit)
    kept = np.zeros(len(texts), dtype=bool)
    entries = corpus.entries(np.empty(0, dtype=np.int64))
    nearest: list[tuple[int, float] | None] = []
    for start in range(0, len(texts), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(texts)))
        own = corpus.entries(block)
        near = [*corpus.pairs(block, entries), *corpus.pairs(block, own)]
        nearest += _choose(block, near, kept)
        entries = entries.merged(corpus.entries(block[kept[block]]))
        on_progress(len(nearest))
    return nearest


def _choose(block: Ints, near: Sequence[tuple[Ints, Ints, Floats]], kept: NDArray[np.bool_]) -> list[tuple[int, float] | None]:
    """The best kept text for each of the block, the earliest of equals; those without one are kept from here on."""
    others: dict[int, list[tuple[float, int]]] = {}
    for texts, earlier, scores in near:
        for text, other, score in zip(texts.tolist(), earlier.tolist(), scores.tolist(), strict=True):
            others.setdefault(text, []).append((score, -other))
    nearest: list[tuple[int, float] | None] = []
    for text in block.tolist():
        score, other = max((pair for pair in others.get(text, ()) if kept[-pair[1]]), default=(0.0, 0))
        kept[text] = score == 0
        nearest.append((-other, score) if score else None)
    return nearest


@dataclass(frozen=True, kw_only=True)
class _Entries:
    """Where tokens stand in texts: keys in ascending order, and the text of each."""

    keys: Ints
    texts: Ints

    def merged(self, more: "_Entries") -> "_Entries":
        at = np.searchsorted(self.keys, more.keys)
        return _Entries(keys=np.insert(self.keys, at, more.keys), texts=np.insert(self.texts, at, more.texts))


class _Corpus:
    """All texts as numbers: their tokens, rare ones first, and what bounds their overlap."""

    def __init__(self, encoded: Sequence[str], limit: float) -> None:
        self._encoded = np.array(by_frequency(encoded), dtype=object)
        self._lengths = np.array([len(text) for text in encoded], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)])
        self._distinct = np.unique(self._lengths)
        self._limit = limit
        longest = int(self._lengths.max(initial=0))
        self._needed = np.ceil(limit / 2 * np.arange(2 * longest + 1) - _SLACK).astype(np.int64)
        """By m + n: the overlap without which a pair is not above the limit."""
        self._tokens = _rare_first(encoded, self._lengths)
        self._bits = _bit_vectors(self._tokens, self._starts)

    def entries(self, texts: Ints) -> _Entries:
        """The entries of the prefixes of some texts."""
        owners, tokens, positions = self._prefixes(texts)
        keys = _key(tokens, self._lengths[owners], positions)
        order = np.argsort(keys, kind="stable")
        return _Entries(keys=keys[order], texts=owners[order])

    def pairs(self, block: Ints, entries: _Entries) -> Iterator[tuple[Ints, Ints, Floats]]:
        """(texts of the block, earlier texts, scores) of all pairs above the limit, in parts."""
        for texts, others in self._hits(block, entries):
            earlier = others < texts
            texts, others = texts[earlier], others[earlier]
            needed = self._needed[self._lengths[texts] + self._lengths[others]]
            possible = self._overlap_at_most(texts, others) >= needed
            pairs = np.unique(texts[possible] << 32 | others[possible])
            texts, others = pairs >> 32, pairs & 0xFFFFFFFF
            scores = self._scores(texts, others)
            above = scores > self._limit
            yield texts[above], others[above], scores[above]

    def _prefixes(self, texts: Ints) -> tuple[Ints, Ints, Ints]:
        """(text, token, position) of the tokens in the texts' prefixes, as long as the shortest possible partner asks for."""
        lengths = self._lengths[texts]
        shortest = np.ceil(lengths * self._limit / (2 - self._limit) - _SLACK).astype(np.int64)
        counts = np.minimum(lengths - shortest + 1, lengths)
        positions = _ranges(counts)
        owners = np.repeat(texts, counts)
        return owners, self._tokens[self._starts[owners] + positions], positions

    def _hits(self, block: Ints, entries: _Entries) -> Iterator[tuple[Ints, Ints]]:
        """(texts of the block, texts of entries) that share a token early enough; a pair may come several times."""
        owners, tokens, positions = self._prefixes(block)
        order = np.argsort(tokens, kind="stable")  # neighbours in the search are neighbours in memory
        owners, tokens, positions = owners[order], tokens[order], positions[order]
        lengths = self._lengths[owners]
        parts = []
        for length in np.unique(lengths):
            others = self._possible_lengths(int(length))
            mine = np.flatnonzero(lengths == length)
            cells = max(1, _MOST_CELLS // max(1, len(others)))
            for some in (mine[start : start + cells] for start in range(0, len(mine), cells)):
                row, begin, end = self._ranges_of_entries(entries, int(length), others, tokens[some], positions[some])
                parts.append((owners[some][row], begin, end - begin))
        if not any(len(part[0]) for part in parts):
            return
        texts, begins, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
        total = np.cumsum(counts)
        cuts = np.unique(np.searchsorted(total, np.arange(0, total[-1], _MOST_HITS), side="right"))
        for first, last in zip(cuts, [*cuts[1:], len(counts)], strict=True):
            part = counts[first:last]
            where = np.repeat(begins[first:last], part) + _ranges(part)
            yield np.repeat(texts[first:last], part), entries.texts[where]

    def _possible_lengths(self, length: int) -> Ints:
        """The lengths of texts whose score with one of `length` tokens can be above the limit."""
        low = max(1, int(np.ceil(length * self._limit / (2 - self._limit) - _SLACK)))
        high = int(length * (2 - self._limit) / self._limit + _SLACK) if self._limit else int(self._distinct[-1])
        possible: Ints = self._distinct[(self._distinct >= low) & (self._distinct <= high)]
        return possible

    def _ranges_of_entries(
        self, entries: _Entries, length: int, others: Ints, tokens: Ints, positions: Ints
    ) -> tuple[Ints, Ints, Ints]:
        """(index into tokens, first entry, end) of the entries that share a token early enough.

        Of a long text, also those that share it too late: reading them costs less than one search for each token and length.
        """
        if length > _LONG:
            begin = np.searchsorted(entries.keys, _key(tokens, others[:1], 0), side="left")
            end = np.searchsorted(entries.keys, _key(tokens, others[-1:] + 1, 0), side="left")
            row = np.arange(len(tokens))
        else:
            needed = self._needed[length + others]
            row, column = np.nonzero(positions[:, None] <= (length - needed)[None, :])
            first = _key(tokens[row], others[column], 0)
            begin = np.searchsorted(entries.keys, first, side="left")
            end = np.searchsorted(entries.keys, first + (others - needed)[column], side="right")
        some = end > begin
        return row[some], begin[some], end[some]

    def _overlap_at_most(self, texts: Ints, others: Ints) -> Ints:
        """A bound on the number of shared tokens: each bit that only one has stands for a token that only it has."""
        mine = theirs = np.zeros(len(texts), dtype=np.uint8)
        for bits in self._bits:
            one, two = bits[texts], bits[others]
            mine, theirs = mine + np.bitwise_count(one & ~two), theirs + np.bitwise_count(two & ~one)
        bound: Ints = np.minimum(self._lengths[texts] - mine, self._lengths[others] - theirs)
        return bound

    def _scores(self, texts: Ints, others: Ints) -> Floats:
        """ROUGE-L F1 of pairs, by rouge_score's formula, operation by operation."""
        if not len(texts):
            return np.empty(0)
        common = np.zeros(len(texts))
        long = np.minimum(self._lengths[texts], self._lengths[others]) > _LONG
        one, two = self._encoded[texts[~long]], self._encoded[others[~long]]
        common[~long] = cpdist(one, two, scorer=LCSseq.similarity, dtype=np.int32)
        common[long] = self._common_of_long(texts[long], others[long])
        precision, recall = common / self._lengths[others], common / self._lengths[texts]
        scores: Floats = 2 * precision * recall / np.where(common, precision + recall, 1)
        return scores

    def _common_of_long(self, texts: Ints, others: Ints) -> list[int]:
        """The tokens in common of pairs of long texts, sorted by the first of a pair; 0 where they are too few to matter.

        A bag of 128 bits says nothing of a long text, so the overlap is counted: each pair takes a look at each token.
        """
        common: list[int] = []
        has = np.zeros(int(self._tokens.max(initial=0)) + 1, dtype=bool)
        marked = -1
        for text, other in zip(texts.tolist(), others.tolist(), strict=True):
            if text != marked:
                has[self._tokens_of(marked)] = False
                has[self._tokens_of(text)] = True
                marked = text
            needed = int(self._needed[self._lengths[text] + self._lengths[other]])
            enough = int(has[self._tokens_of(other)].sum()) >= needed
            common.append(common_at_least(self._encoded[text], self._encoded[other], needed) if enough else 0)
        return common

    def _tokens_of(self, text: int) -> Ints:
        """The tokens of a text; none of text -1."""
        return self._tokens[self._starts[text] : self._starts[text + 1]] if text >= 0 else self._tokens[:0]


def _key(tokens: Ints, lengths: Ints, positions: Ints | int) -> Ints:
    return tokens << 2 * _FIELD | lengths << _FIELD | positions


def _ranges(counts: Ints) -> Ints:
    """0 … count - 1 for each count, one after the other."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def _rare_first(encoded: Sequence[str], lengths: Ints) -> Ints:
    """The tokens of all texts one after the other, each text's in ascending order; rare ones have small numbers.

    The second "the" of a text is another token than the first, and a rarer one.
    """
    flat = np.frombuffer("".join(encoded).encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    order = np.argsort(owners << 32 | flat, kind="stable")
    same = np.zeros(len(flat), dtype=bool)
    same[1:] = (flat[order][1:] == flat[order][:-1]) & (owners[order][1:] == owners[order][:-1])
    positions = np.arange(len(flat))
    occurrence = positions - np.maximum.accumulate(np.where(same, 0, positions))
    _, number, count = np.unique(flat[order] << 32 | occurrence, return_inverse=True, return_counts=True)
    rank = np.empty(len(count), dtype=np.int64)
    rank[np.argsort(count, kind="stable")] = np.arange(len(count))
    return np.sort(owners << 32 | rank[number]) & 0xFFFFFFFF


def _bit_vectors(tokens: Ints, starts: Ints) -> list[NDArray[np.uint64]]:
    """128 bits for each text, in two words, in which each of its tokens sets one."""
    spread = (tokens.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(57)
    filled = np.flatnonzero(np.diff(starts))
    words = []
    for number in range(2):
        bits = np.where(spread >> np.uint64(6) == number, np.uint64(1) << (spread & np.uint64(63)), np.uint64(0))
        word = np.zeros(len(starts) - 1, dtype=np.uint64)
        word[filled] = np.bitwise_or.reduceat(bits, starts[filled]) if len(filled) else 0
        words.append(word)
    return words
