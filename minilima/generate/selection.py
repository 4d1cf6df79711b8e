"""Which examples come first: an order of all of them, so that every smaller data set lies inside the larger ones."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from minilima.config.choices import Select
from minilima.config.schema import DatasetConfig
from minilima.formats.files import sha256_text
from minilima.formats.records import Example, user_text
from minilima.formats.words import count_words

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
Rate = Callable[[Sequence[Example]], list[float | None]]


def arrange(examples: Sequence[Example], dataset: DatasetConfig, seed: int, *, embed: Embed, rate: Rate) -> list[Example]:
    """The examples in the order of `dataset.select`.

    Args:
        examples: the order in which they come does not matter.
        dataset: `select`, and for stratified `topics`.
        seed: of the random order, which also decides between equals.
        embed: texts to unit vectors, shape (n, d); called for diverse and stratified.
        rate: a rating of each example, None where there is none; called for quality.
    """
    shuffled = shuffle(examples, seed)
    if dataset.select == Select.long:
        return sorted(shuffled, key=lambda example: -count_words(example.output))
    if dataset.select == Select.quality:
        rated = [replace(example, score=score) for example, score in zip(shuffled, rate(shuffled), strict=True)]
        return sorted(rated, key=lambda example: -(example.score or 0.0))
    if dataset.select == Select.random or len(shuffled) < 2:
        return shuffled
    vectors = embed([user_text(example.instruction, example.input) for example in shuffled])
    order = farthest_first(vectors) if dataset.select == Select.diverse else topics_in_turn(vectors, dataset.topics, seed)
    return [shuffled[index] for index in order]


def shuffle(examples: Sequence[Example], seed: int) -> list[Example]:
    """A permutation that depends on the seed and each example's id only."""
    return sorted(examples, key=lambda example: sha256_text(f"choose:{seed}:{example.source}:{example.id}"))


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
    wanted = min(topics, len(np.unique(vectors, axis=0)))
    labels = KMeans(n_clusters=wanted, n_init=4, random_state=seed).fit_predict(vectors)
    members = [list(np.flatnonzero(labels == label)) for label in range(wanted)]
    members.sort(key=lambda member: (-len(member), member[0]))
    turns = max(len(member) for member in members)
    return [int(member[turn]) for turn in range(turns) for member in members if turn < len(member)]
