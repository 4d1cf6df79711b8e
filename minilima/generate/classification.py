"""What models reply about classification tasks: yes or no, with which odds, which labels, and how evenly these occur. Pure."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from minilima.formats.files import sha256_text
from minilima.formats.records import Example
from minilima.formats.words import count_words, lowered
from minilima.generate.methods import json_items, list_schema

KINDS = {True: "classification", False: "generation"}

LABELS_SCHEMA = list_schema("labels", {"type": "string"})

_FEWEST_LABELS, _MOST_LABELS, _LABEL_WORDS = 2, 12, 6
"""Fewer or more items, or an item of more words, make a reply no list of labels."""


def odds(logprobs: Mapping[str, float]) -> float:
    """Log-odds of the word for classification against the other.

    A word that is not among the listed tokens gets the log-probability of the least likely listed one.
    """
    least = min(logprobs.values(), default=0.0)
    yes, no = (
        max((value for token, value in logprobs.items() if token.strip() and word.startswith(token.strip())), default=least)
        for word in KINDS.values()
    )
    return yes - no


def best_limit(known: Sequence[tuple[float, bool]]) -> float:
    """The limit above which a value most often means True, by (value, whether it does) of known cases; the highest of equals."""
    values = sorted({value for value, _ in known}, reverse=True)
    between = [math.inf, *((above + below) / 2 for above, below in pairwise(values)), -math.inf]
    return max(between, key=lambda limit: (sum((value > limit) == truth for value, truth in known), limit), default=0.0)


# A word ends where no letter, mark or hyphen follows; Chinese, Japanese and Thai words need no end, but must not begin others.
_YES = "ja|jawohl|oui|sí|sì|si|sim|evet|да|نعم|हाँ|हां|जी हाँ|जी हां|네|예|맞습니다|그렇습니다"
_NO = "nein|non|não|nee|nej|hayır|değil|нет|لا|नहीं|जी नहीं|아니요|아니오|아닙니다"
_UNSPACED_YES = "是(?!否|不是)|对(?!于|不)|對(?!於|不)|属于|正确|はい|ใช่(?!ไหม|หรือ)"
_UNSPACED_NO = "不是|不属于|否(?!则)|不对|不(?=[。，,.!！]|$)|いいえ|いえ(?=[、。]|$)|ไม่ใช่|ไม่(?=\\W|$)"
_WORD_FOR_IT = re.compile(
    rf"[\W_]*(?:(?P<yes>(?:{_YES})(?![\w\u0900-\u094f'’-])|{_UNSPACED_YES})|(?:(?:{_NO})(?![\w\u0900-\u094f'’-])|{_UNSPACED_NO}))",
    re.IGNORECASE,
)


def says_yes(text: str) -> bool | None:
    """True for a yes, False for a no, None for anything else; the prompt asks in English, and models reply in many languages."""
    word = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
    if word is not None:
        return word[1].lower() == "yes"
    other = _WORD_FOR_IT.match(text)
    return None if other is None else other["yes"] is not None


# Numbers as in `1. `, `2)`, `3、` and `（4）`, and circled ones.
_LABEL_NUMBER = r"^\W*(?:(?:\d+\s*[.)、．）]|[①-⑳])\s*)?\W*"
_BETWEEN_LABELS = (
    r",|;|\bor\b|[，、；؛،]|\b(?:oder|ou|veya|ya da|или|أو|또는)\b|(?<=\s)या(?=\s)"
    r"|(?<=\w)\s*(?:或者|または|もしくは|หรือ)\s*(?=\w)"
    r"|(?<=[^\W\d_]{2}) o (?=[^\W\d_]{2})"
)
_AROUND_LABELS = " .*\"'“`”„«»「」『』。．，、；！।"


def parse_labels(text: str) -> list[str]:
    """The labels of a list, one per line or divided by commas; empty if the text is no such list."""
    listed = json_items(text, "labels")
    # A line that ends in a colon is a heading.
    lines = [line for line in text.strip().splitlines() if line.strip(" *") and not line.rstrip(" *").endswith((":", "："))]
    if listed is not None:
        lines = [str(item) for item in listed]
    if len(lines) == 1 and listed is None:
        lines = re.split(_BETWEEN_LABELS, lines[0])
    labels = list(dict.fromkeys(re.sub(_LABEL_NUMBER, "", line).strip(_AROUND_LABELS) for line in lines))
    fits = all(label and _is_short(label) for label in labels)
    return labels if fits and _FEWEST_LABELS <= len(labels) <= _MOST_LABELS else []


def _is_short(label: str) -> bool:
    words = label.split()
    return len(words) <= _LABEL_WORDS and count_words(label) <= _LABEL_WORDS * (1 if count_words(label) == len(words) else 3)


def label_in_turn(labels: Sequence[str], identity: str, number: int) -> str:
    """The label of an instance: each task starts at a label of its own and goes through them in turn."""
    return labels[(int(sha256_text(identity)[:8], 16) + number) % len(labels)] if labels else ""


def label_balance(examples: Sequence[Example]) -> dict[str, object]:
    """The most frequent labels of classification examples, and the share of the first."""
    labels = [example.output.lower() for example in examples if example.is_classification]
    counts = Counter(lowered(label) for label in labels)
    if not counts:
        return {}
    written = {lowered(label): label.replace("i\u0307", "i") for label in reversed(labels)}
    most = {written[label]: count for label, count in counts.most_common(10)}
    return {"labels": most, "most_common_label_share": round(counts.most_common(1)[0][1] / len(labels), 3)}
