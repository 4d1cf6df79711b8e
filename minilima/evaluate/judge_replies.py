"""What a judge's reply states, read strictly: a verdict of five, a rating from 1 to 10, or how likely yes is.

reply ─> read_verdict (`[[A>>B]]` or words) · read_rating (`[[7]]` or words) · read_yes_no (log-probabilities of words)
A reply that was cut may have gone on otherwise, and one that states two things states none: both are read as None.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from minilima.models.chat import Reply

Value = TypeVar("Value")

LOWEST, HIGHEST = 1.0, 10.0
"""Of a rating."""
VERDICTS = ("A>>B", "A>B", "A=B", "B>A", "B>>A")
"""Arena-Hard's labels: A is much better, better, as good, and so on."""

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = rf"(\d+(?:\.\d+)?|{'|'.join(_NUMBERS)})"
_LABEL = r"([AB])\s*(>>|>|=|<<|<)\s*([AB])"
_IN_BRACKETS = re.compile(rf"\[\[\s*(?:{_LABEL}|(A|B|C|tie))\s*\]\]", re.IGNORECASE)
_BARE = re.compile(rf"(?<!\w){_LABEL}(?!\w)")
_SIDE = r"(?:assistant|answer|response|output|model)\s*\(?([AB])\)?(?!\w)"
_PRAISED = re.compile(rf"{_SIDE}\s+(?:is|was|wins)\b([^.;]*)", re.IGNORECASE)
_STRONGLY = re.compile(r"\b(?:significantly|much|far|vastly|considerably)\b", re.IGNORECASE)
_BETTER = re.compile(r"\b(?:better|best|preferable|superior|stronger|winner)\b", re.IGNORECASE)
_TIED = re.compile(r"\b(?:tied?|draw|equal(?:ly)?|as good as)\b", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:not|\w+n't|neither|nor|worse|cannot|unclear)\b", re.IGNORECASE)
_RATED_IN_BRACKETS = re.compile(rf"\[\[\s*{_NUMBER}(?:\s*/\s*10)?\s*\]\]", re.IGNORECASE)
_RATED = re.compile(
    rf"\b(?:rating|score|grade)\b(?:\s+(?:is|of|as|would be))*\W*{_NUMBER}\b(?!\s*(?:-|–|to)\s*\d)"
    rf"|{_NUMBER}\s*(?:/|out of)\s*10\b",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"\W*{_NUMBER}\W*", re.IGNORECASE)


def read_verdict(reply: Reply) -> str | None:
    """One of VERDICTS; None where the reply was cut, or states none or several in its last line that states any."""
    if reply.finish == "length":
        return None
    if stated := _in_json(reply.text, "verdict"):
        return _only(_labels(f"[[{stated}]]", _IN_BRACKETS))
    lines = _lines(reply.text)
    for line in lines:
        if found := _labels(line, _IN_BRACKETS):
            return _only(found)
    last = lines[0] if lines else ""
    return _only(_labels(last, _BARE)) or _in_words(last)


def _labels(text: str, pattern: re.Pattern[str]) -> list[str | None]:
    return [_label(*match.groups()) for match in pattern.finditer(text)]


def _label(left: str | None, sign: str | None, right: str | None, lone: str | None = None) -> str | None:
    if lone is not None:
        return {"A": "A>B", "B": "B>A"}.get(lone.upper(), "A=B")
    assert left is not None and sign is not None and right is not None, "the pattern has all three or the lone letter"
    one, two = left.upper(), right.upper()
    if one == two:
        return None
    if sign == "=":
        return "A=B"
    return f"{two}{'>' * len(sign)}{one}" if "<" in sign else f"{one}{sign}{two}"


def _in_words(line: str) -> str | None:
    """`Assistant A is significantly better`, for models that leave the label out."""
    if _DENIED.search(line):
        return None
    praised = [(side.upper(), words) for side, words in _PRAISED.findall(line) if _BETTER.search(words)]
    if not praised:
        return "A=B" if _TIED.search(line) else None
    side, words = praised[0]
    if len(praised) > 1:
        return None
    return f"{side}{'>>' if _STRONGLY.search(words) else '>'}{'B' if side == 'A' else 'A'}"


def read_rating(reply: Reply) -> float | None:
    """A number from LOWEST to HIGHEST; None where the reply was cut, or states none, several, or one out of that range."""
    if reply.finish == "length":
        return None
    if stated := _in_json(reply.text, "rating", "score"):
        return _only([_number(stated)])
    lines = _lines(reply.text)
    for line in lines:
        if found := [_number(match.group(1)) for match in _RATED_IN_BRACKETS.finditer(line)]:
            return _only(found)
    last = lines[0] if lines else ""
    if found := [_number(match.group(1) or match.group(2)) for match in _RATED.finditer(last)]:
        return _only(found)
    alone = _ALONE.fullmatch(last)
    return _number(alone.group(1)) if alone else None


def _number(text: str) -> float | None:
    word = text.strip().lower()
    try:
        value = _NUMBERS.index(word) + 1.0 if word in _NUMBERS else float(word)
    except ValueError:
        return None
    return value if LOWEST <= value <= HIGHEST else None


def read_yes_no(reply: Reply) -> float | None:
    """P(yes) - P(no) of the reply's first token, -1 to 1; None where neither word is among the likeliest tokens.

    Spellings of a word count together: `Yes`, ` yes`, `YES`.
    """
    likely = reply.logprobs or {}
    yes, no = (_probability(likely, word) for word in ("yes", "no"))
    return yes - no if yes or no else None


def _probability(logprobs: Mapping[str, float], word: str) -> float:
    return sum(math.exp(value) for token, value in logprobs.items() if token.strip().lower() == word)


def _in_json(text: str, *names: str) -> str:
    """What a reply that is a JSON object holds under one of these names; empty where it is none."""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(content, Mapping):
        return ""
    return next((str(content[name]) for name in names if isinstance(content.get(name), str | int | float)), "")


def _lines(text: str) -> list[str]:
    """The lines that are not empty, the last first."""
    return [line.strip() for line in reversed(text.splitlines()) if line.strip()]


def _only(stated: Iterable[Value | None]) -> Value | None:
    """What all of them state; None where they differ, or one of them states nothing."""
    values = set(stated)
    return values.pop() if len(values) == 1 else None
