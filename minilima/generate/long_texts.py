"""The longest common subsequence of two long texts, where it reaches a needed length; cheaper bounds decide most pairs.

    tokens that both have ─> bound by their number ─> the beginnings ─> the whole
The work of a common subsequence grows with the product of two lengths: of 20,000 tokens each it takes 30 ms, and a few hundred
prompts make tens of thousands of pairs. Tokens that one of the texts lacks are in no common subsequence and are taken out first.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq

Codes = NDArray[np.uint32]

_FIRST_SURROGATE, _SURROGATES = 0xD800, 0x800


def by_frequency(encoded: Sequence[str]) -> list[str]:
    """The same texts with the most frequent tokens as the first characters, which rapidfuzz looks up by index and not by hash."""
    flat = _codes("".join(encoded))
    counts = np.bincount(flat)
    order = np.argsort(-counts, kind="stable").astype(np.uint32)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order), dtype=np.uint32)
    rank[rank >= _FIRST_SURROGATE] += _SURROGATES
    text = _text(rank[flat])
    ends = [0, *accumulate(map(len, encoded))]
    return [text[start:end] for start, end in pairwise(ends)]


def common_at_least(one: str, two: str, needed: int) -> int:
    """The length of the longest common subsequence of two encoded texts; 0 where it is below `needed`."""
    short, long = _shared(_codes(one), _codes(two))
    if min(len(short), len(long)) < needed:
        return 0
    # With `needed` matches at most `missed` tokens of any part have none, and a match lies at most `skipped` tokens further on.
    missed, skipped = len(short) - needed, len(long) - needed
    part = missed + missed // 2
    if part < len(short):
        beginning = LCSseq.similarity(_text(short[:part]), _text(long[: part + skipped]))
        if beginning < part - missed:
            return 0
    common = int(
        LCSseq.similarity(_text(short), _text(long))
    )  # its score_cutoff can lose a pair that reaches it exactly (rapidfuzz 3.14.6)
    return common if common >= needed else 0


def _codes(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def _text(codes: Codes) -> str:
    return codes.tobytes().decode("utf-32-le")


def _shared(one: Codes, two: Codes) -> tuple[Codes, Codes]:
    """Both texts without the tokens that the other lacks."""
    return one[np.isin(one, two)], two[np.isin(two, one)]
