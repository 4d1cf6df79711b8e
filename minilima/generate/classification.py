"""What models reply about classification tasks: yes or no, with which odds, which labels, and how evenly these occur. Pure."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from minilima.formats.files import sha256_text
from minilima.formats.records import Example
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


def says_yes(text: str) -> bool | None:
    """True for a yes, False for a no, None for anything else."""
    word = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
    return None if word is None else word[1].lower() == "yes"


def parse_labels(text: str) -> list[str]:
    """The labels of a list, one per line or divided by commas; empty if the text is no such list."""
    listed = json_items(text, "labels")
    # A line that ends in a colon is a heading.
    lines = [line for line in text.strip().splitlines() if line.strip(" *") and not line.rstrip(" *").endswith(":")]
    if listed is not None:
        lines = [str(item) for item in listed]
    if len(lines) == 1 and listed is None:
        lines = re.split(r",|;|\bor\b", lines[0])
    labels = list(dict.fromkeys(re.sub(r"^\W*(\d+\s*[.)])?\W*", "", line).strip(" .*\"'“”`") for line in lines))
    fits = all(label and len(label.split()) <= _LABEL_WORDS for label in labels)
    return labels if fits and _FEWEST_LABELS <= len(labels) <= _MOST_LABELS else []


def label_in_turn(labels: Sequence[str], identity: str, number: int) -> str:
    """The label of an instance: each task starts at a label of its own and goes through them in turn."""
    return labels[(int(sha256_text(identity)[:8], 16) + number) % len(labels)] if labels else ""


def label_balance(examples: Sequence[Example]) -> dict[str, object]:
    """The most frequent labels of classification examples, and the share of the first."""
    counts = Counter(example.output.lower() for example in examples if example.is_classification)
    total = sum(counts.values())
    if not total:
        return {}
    return {"labels": dict(counts.most_common(10)), "most_common_label_share": round(counts.most_common(1)[0][1] / total, 3)}
