"""What the generator says of each example: a rating from 1 to 10 (dataset.select=quality, after Chen et al. 2023), or what it
asks for, in a few words (dataset.select=tags, after Lu et al. 2023)."""

import re
import unicodedata
from collections.abc import Sequence

from minilima.formats.records import Example, OnProgress, user_text
from minilima.formats.words import UNSPACED
from minilima.generate.prompting import Prompter
from minilima.models.cache import CachedModel
from minilima.models.chat import counted

_NUMBER = re.compile(r"\b(10|[1-9])(\.\d)?\b")
_DECIMAL_COMMA = re.compile(r"\W*([1-9]),(\d)(?:\s*(?:/|von|sur|de|su|из|üzerinden)\s*10)?\W*")
_SCALE = re.compile(
    r"\b(?:von 1 bis 10|de 1 à 10|de 1 a 10|от 1 до 10)\b|满分\s*[是为]?\s*(?:10|十)\s*分|[从從]?\s*1\s*[到至分~-]+\s*10\s*分?"
    r"|10\s*点満点(?:中|で)?|1\s*から\s*10|10\s*점\s*만점(?:에서|에)?|1\s*부터\s*10\s*까지|من 1 إلى 10|1 से 10|จาก\s*10|1 ถึง 10",
    re.IGNORECASE,
)
_TOUCHING = re.compile(f"[{UNSPACED}\uac00-\ud7a3]")
"""Letters that stand beside a number without a space: 8分."""
_BESIDE_LETTERS = re.compile(r"(?<![\d.,A-Za-z])(10|[1-9])(\.\d)?(?!\d|[.,]\d|[A-Za-z])")
_NUMERALS = "一二三四五六七八九十"
_NUMERAL = re.compile(rf"(?:^\W*|(?<=[：:是为打给]))([{_NUMERALS}])\s*(?:[分点]|\W*$)")
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
    """The first number from 1 to 10 in a reply, in the digits of its script; the scale that it names is no rating."""
    text = _SCALE.sub(" ", text if text.isascii() else _western(text))
    if (comma := _DECIMAL_COMMA.fullmatch(text.strip())) is not None:
        return float(f"{comma[1]}.{comma[2]}")
    if _TOUCHING.search(text) is None:
        number = _NUMBER.search(text)
        return float(number[0]) if number else None
    number = _BESIDE_LETTERS.search(text)
    if number is not None:
        return float(number[0])
    numeral = _NUMERAL.search(text)
    return float(_NUMERALS.index(numeral[1]) + 1) if numeral else None


def _western(text: str) -> str:
    """The text with digits of all scripts as 0 to 9."""
    return "".join(str(unicodedata.digit(char)) if char.isdecimal() else char for char in text)


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
