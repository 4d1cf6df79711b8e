"""What the generator says of each example: a rating from 1 to 10 (dataset.select=quality, after Chen et al. 2023), or what it
asks for, in a few words (dataset.select=tags, after Lu et al. 2023)."""

import re
from collections.abc import Sequence

from minilima.formats.records import Example, OnProgress, user_text
from minilima.generate.prompting import Prompter
from minilima.models.cache import CachedModel
from minilima.models.chat import counted

_NUMBER = re.compile(r"\b(10|[1-9])(\.\d)?\b")
_REPLY_TOKENS = 8
_TAG_TOKENS = 48
_MOST_TAGS, _TAG_WORDS = 8, 4
"""More tags than asked for, or tags that are sentences, are a model's chatter."""


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


def tag(examples: Sequence[Example], model: CachedModel, prompter: Prompter, on_progress: OnProgress) -> list[frozenset[str]]:
    """The tags of each example; none where no reply had any."""
    sampling = prompter.greedy(_TAG_TOKENS)
    requests = [
        prompter.request("tags", [], sampling, request=user_text(example.instruction, example.input)) for example in examples
    ]
    replies = model.reply_many(
        requests, counted(on_progress, len(requests), "tags"), usable=lambda reply: bool(parse_tags(reply.text))
    )
    return [parse_tags(reply.text) for reply in replies]


def parse_tags(text: str) -> frozenset[str]:
    """The tags in a reply: parts between commas or lines, in lower case, without numbers and marks around them."""
    parts = (" ".join(re.sub(r"^[\W\d_]+|[\W_]+$", "", part).lower().split()) for part in re.split(r"[,;\n]", text))
    return frozenset([part for part in parts if part and len(part.split()) <= _TAG_WORDS][:_MOST_TAGS])
