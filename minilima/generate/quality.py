"""A rating of each example by the generator, from 1 to 10: the score of `dataset.select=quality` (after Chen et al. 2023)."""

import re
from collections.abc import Sequence

from minilima.formats.records import Example, OnProgress, user_text
from minilima.generate.prompting import Prompter
from minilima.models.cache import CachedModel
from minilima.models.chat import counted

_NUMBER = re.compile(r"\b(10|[1-9])(\.\d)?\b")
_REPLY_TOKENS = 8


def rate(examples: Sequence[Example], model: CachedModel, prompter: Prompter, on_progress: OnProgress) -> list[float | None]:
    """The ratings; None where no reply had a number."""
    sampling = prompter.greedy(_REPLY_TOKENS)
    requests = [
        prompter.request("rating", [], sampling, request=user_text(example.instruction, example.input), output=example.output)
        for example in examples
    ]
    replies = model.reply_many(
        requests, counted(on_progress, len(requests), "ratings"), usable=lambda reply: parse_rating(reply.text) is not None
    )
    return [parse_rating(reply.text) for reply in replies]


def parse_rating(text: str) -> float | None:
    """The first number from 1 to 10 in a reply."""
    number = _NUMBER.search(text)
    return float(number[0]) if number else None
