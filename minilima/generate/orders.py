"""Orders of all examples from their vectors and scores: best first, farthest first, topics or targets in turn. Pure."""

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Scores = NDArray[np.floating[Any]]

_BLOCK = 1024


def highest_first(scores: Scores) -> list[int]:
    """Indices by falling score; equals as they are given, those without a score (NaN) at the end."""
    return [int(index) for index in np.argsort(np.where(np.isnan(scores), np.inf, -scores), kind="stable")]


def below_one_first(ratios: Scores) -> list[int]:
    """Ratios below 1, the highest first; then those of 1 and more, the lowest first: a question that makes its answer less
    likely does not belong to it (Li et al. 2024, section 2.2)."""
    ranks = np.where(ratios < 1, ratios, -ratios)  # falling: 0.9, 0.5, -1.1, -3
    return highest_first(ranks)


def middle_first(scores: Scores) -> list[int]:
    """Indices by the distance of their rank from the middle one."""
    rising = highest_first(-scores)[: int((~np.isnan(scores)).sum())]
    ranks = np.full(len(scores), np.nan)
    ranks[rising] = np.arange(len(rising))
    return highest_first(-np.abs(ranks - (len(rising) - 1) / 2))


def farthest_first(vectors: Vectors) -> list[int]:
    """Indices in max-min order: the first vector, then always the one farthest from all before it (Gonzalez 1985).

    Args:
        vectors: unit vectors, shape (n, d); distances are cosine distances. Takes O(n² d) time and O(n d) memory.
    """
    order = [0]
    nearest = vectors @ vectors[0]
    nearest[0] = np.inf
    for _ in range(len(vectors) - 1):
        index = int(nearest.argmin())
        order.append(index)
        nearest = np.maximum(nearest, vectors @ vectors[index])
        nearest[index] = np.inf
    return order


def topics_in_turn(vectors: Vectors, topics: int, seed: int) -> list[int]:
    """Indices so that clusters (k-means on unit vectors) take turns, larger ones first, each in the given order."""
    from sklearn.cluster import KMeans

    wanted = min(topics, len(np.unique(vectors, axis=0)))
    labels = KMeans(n_clusters=wanted, n_init=4, random_state=seed).fit_predict(vectors)
    members = [list(np.flatnonzero(labels == label)) for label in range(wanted)]
    members.sort(key=lambda member: (-len(member), member[0]))
    turns = max(len(member) for member in members)
    return [int(member[turn]) for turn in range(turns) for member in members if turn < len(member)]


def most_covering_first(vectors: Vectors) -> list[int]:
    """Indices so that each adds most to the facility location: the sum over all vectors of their largest cosine with a chosen
    one. Greedy, within 1 - 1/e of the best choice of every size (Nemhauser et al. 1978), and lazy: gains only fall.

    Args:
        vectors: unit vectors, shape (n, d); a negative cosine counts as none.
    """
    covered = np.zeros(len(vectors), dtype=np.float32)
    blocks = (vectors[at : at + _BLOCK] @ vectors.T for at in range(0, len(vectors), _BLOCK))
    sums = np.concatenate([np.maximum(cosines, 0).sum(axis=1) for cosines in blocks])
    heap = [(-float(gain), index) for index, gain in enumerate(sums)]
    heapq.heapify(heap)
    order: list[int] = []
    while heap:
        _, index = heapq.heappop(heap)
        nearest = np.maximum(covered, vectors @ vectors[index])
        gain = -float((nearest - covered).sum())
        if heap and (gain, index) > heap[0]:
            heapq.heappush(heap, (gain, index))
            continue
        covered = nearest
        order.append(index)
    return order


def apart_first(order: Sequence[int], vectors: Vectors, limit: float) -> tuple[list[int], list[int]]:
    """Divides an order in two: what is closer than a cosine of `limit` to something kept before it is skipped, and comes last.

    Args:
        vectors: unit vectors, shape (n, d).

    Returns:
        The kept ones and the skipped ones, both in the given order.
    """
    kept: list[int] = []
    skipped: list[int] = []
    for at in range(0, len(order), _BLOCK):
        block = list(order[at : at + _BLOCK])
        own = vectors[block]
        before = _nearest(own, vectors, kept)
        within, chosen = own @ own.T, list[int]()
        for position, index in enumerate(block):
            near = max(float(before[position]), float(within[position, chosen].max()) if chosen else 0.0)
            if near > limit:
                skipped.append(index)
            else:
                chosen.append(position)
                kept.append(index)
    return kept, skipped


def _nearest(own: Vectors, vectors: Vectors, kept: Sequence[int]) -> Vectors:
    """The largest cosine of each of `own` with a kept vector, in blocks; 0 where none is above."""
    nearest = np.zeros(len(own), dtype=np.float32)
    for at in range(0, len(kept), 8 * _BLOCK):
        nearest = np.maximum(nearest, (own @ vectors[kept[at : at + 8 * _BLOCK]].T).max(axis=1))
    return nearest


def targets_in_turn(cosines: NDArray[np.float32]) -> list[int]:
    """Indices so that targets take turns, each choosing its closest example that is not chosen yet (Ivison et al. 2025).

    Args:
        cosines: of examples and targets, shape (n, targets).
    """
    wishes = [iter(highest_first(column)) for column in cosines.T]
    chosen = np.zeros(len(cosines), dtype=bool)
    order: list[int] = []
    while len(order) < len(cosines):
        for wish in wishes:
            index = next((index for index in wish if not chosen[index]), None)
            if index is not None:
                chosen[index] = True
                order.append(index)
    return order


def tags_in_turn(tags: Sequence[frozenset[str]]) -> list[int]:
    """Indices by InsTag's complexity-first diverse sampling (Lu et al. 2024): in each round those with most tags first, and only
    what brings a tag that is new in the round; the next round begins with the rest."""
    rest = sorted(range(len(tags)), key=lambda index: -len(tags[index]))
    order: list[int] = []
    while rest:
        covered: set[str] = set()
        left: list[int] = []
        for index in rest:
            if tags[index] - covered:
                covered |= tags[index]
                order.append(index)
            else:
                left.append(index)
        if len(left) == len(rest):  # no tags at all
            return order + left
        rest = left
    return order
