"""Which examples come first: an order of all of them, so that every smaller data set lies inside the larger ones.

Each method of `dataset.select` is a function from examples to examples in its order, best first, with the numbers that it went
by in their `score` and `scores`. What it needs beside them (vectors, losses, ratings, targets) it asks of `Tools`; what that
costs stands in selection_methods.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from minilima.config.choices import Perplexity, Select
from minilima.config.schema import DatasetConfig
from minilima.errors import MinilimaError
from minilima.formats.files import sha256_text
from minilima.formats.records import Example, user_text
from minilima.formats.words import count_words
from minilima.generate.orders import (
    Scores,
    Vectors,
    apart_first,
    below_one_first,
    farthest_first,
    highest_first,
    middle_first,
    most_covering_first,
    tags_in_turn,
    targets_in_turn,
    topics_in_turn,
)
from minilima.generate.tools import Text, Tools, mean_losses

NEAR = 0.9
"""Cosine above which deita takes an example for a copy of one that is kept (Liu et al. 2024, section 2.4)."""
DIVERSE_SHARE = 0.2
"""Share of superfiltering's order that superfiltering_diverse arranges by what it covers."""
FOREIGN = 0.9
"""Share of the ratios at or above 1 from which they say more about the template than about the examples."""

Order = Callable[[list[Example], DatasetConfig, Tools], list[Example]]


def arrange(examples: Sequence[Example], dataset: DatasetConfig, seed: int, tools: Tools) -> list[Example]:
    """The examples in the order of `dataset.select`.

    Args:
        examples: the order in which they come does not matter.
        dataset: `select`, and the settings of its method.
        seed: of the random order, which also decides between equals.
        tools: what methods ask for.
    """
    shuffled = shuffle(examples, seed)
    return ORDERS[dataset.select](shuffled, dataset, tools) if len(shuffled) > 1 else shuffled


def shuffle(examples: Sequence[Example], seed: int) -> list[Example]:
    """A permutation that depends on the seed and each example's id only."""
    return sorted(examples, key=lambda example: sha256_text(f"choose:{seed}:{example.source}:{example.id}"))


def _random(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    return examples


def _long(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    return sorted(examples, key=lambda example: -count_words(example.output))


def _quality(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    rated = [replace(example, score=score) for example, score in zip(examples, tools.rate(examples), strict=True)]
    return sorted(rated, key=lambda example: -(example.score or 0.0))


def _diverse(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    return _in(farthest_first(_request_vectors(examples, tools)), examples)


def _stratified(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    return _in(topics_in_turn(_request_vectors(examples, tools), dataset.topics, tools.seed), examples)


def _tags(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    tags = tools.tag(examples)
    scored = [replace(example, score=float(len(own))) for example, own in zip(examples, tags, strict=True)]
    return _in(tags_in_turn(tags), scored)


def _ifd(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    given, alone = (mean_losses(tools.losses(examples, text)) for text in (Text.conversation, Text.answer))
    ratios = given / alone
    _check_template(ratios, "dataset.select=superfiltering, which uses no template")
    return _in(below_one_first(ratios), _scored(examples, ratios, loss=given, loss_alone=alone))


def _superfiltering(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    given, alone = (np.exp(mean_losses(tools.losses(examples, text))) for text in (Text.plain, Text.plain_answer))
    ratios = given / alone
    _check_template(ratios, "another dataset.scorer")
    return _in(below_one_first(ratios), _scored(examples, ratios, perplexity=given, perplexity_alone=alone))


def _superfiltering_diverse(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    ordered = _superfiltering(examples, dataset, tools)
    best = max(1, round(DIVERSE_SHARE * len(ordered)))
    vectors = tools.embed([f"{user_text(each.instruction, each.input)}\n{each.output}" for each in ordered[:best]])
    return [*_in(most_covering_first(vectors), ordered[:best]), *ordered[best:]]


def _perplexity(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    perplexities = np.exp(mean_losses(tools.losses(examples, Text.conversation)))
    by = {Perplexity.low: lambda: highest_first(-perplexities), Perplexity.high: lambda: highest_first(perplexities)}
    return _in(by.get(dataset.perplexity, lambda: middle_first(perplexities))(), _scored(examples, perplexities))


def _deita(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    complexity, quality = tools.ratings(examples).T
    scored = _scored(examples, complexity * quality, complexity=complexity, quality=quality)
    vectors = tools.embed([f"{user_text(each.instruction, each.input)}\n{each.output}" for each in examples])
    kept, skipped = apart_first(highest_first(complexity * quality), vectors, NEAR)
    return _in([*kept, *skipped], scored)


def _rds(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    cosines = tools.states(examples) @ tools.states(tools.targets).T
    return _in(targets_in_turn(cosines), _scored(examples, cosines.max(axis=1)))


def _less(examples: list[Example], dataset: DatasetConfig, tools: Tools) -> list[Example]:
    influence = tools.influence(examples)
    return _in(highest_first(influence), _scored(examples, influence))


ORDERS: Mapping[Select, Order] = {
    Select.random: _random,
    Select.diverse: _diverse,
    Select.stratified: _stratified,
    Select.long: _long,
    Select.quality: _quality,
    Select.tags: _tags,
    Select.ifd: _ifd,
    Select.superfiltering: _superfiltering,
    Select.superfiltering_diverse: _superfiltering_diverse,
    Select.perplexity: _perplexity,
    Select.deita: _deita,
    Select.rds: _rds,
    Select.less: _less,
}


def _request_vectors(examples: Sequence[Example], tools: Tools) -> Vectors:
    return tools.embed([user_text(example.instruction, example.input) for example in examples])


def _in(order: Sequence[int], examples: Sequence[Example]) -> list[Example]:
    return [examples[index] for index in order]


def _scored(examples: Sequence[Example], score: Scores, **scores: Scores) -> list[Example]:
    """The examples with their numbers; one without a number (its answer does not fit into the model) has none."""
    return [
        replace(
            example,
            score=_number(score[index]),
            scores={name: number for name, values in scores.items() if (number := _number(values[index])) is not None} or None,
        )
        for index, example in enumerate(examples)
    ]


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def _check_template(ratios: Scores, instead: str) -> None:
    """Refuses ratios that say nothing of the examples.

    Raises:
        MinilimaError: nearly every question makes its answer less likely.
    """
    known = ratios[~np.isnan(ratios)]
    above = int((known >= 1).sum())
    if above and above >= FOREIGN * len(known):
        raise MinilimaError(
            f"{above:,} of {len(known):,} questions make their answers less likely, by the model that scores.",
            "With a template that a model was not trained on, it sees noise in front of every answer, and the ratio of losses "
            "tells good examples from bad ones no more.",
            f"Choose {instead}, a dataset.scorer that was trained on conversations, or a short training of it before: "
            "dataset.warmup_examples=100 (ifd only).",
        )
