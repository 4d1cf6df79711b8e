"""Checks of an answer that need no judge: each is a few lines that say yes or no.

CHECKS[kind](answer, **arguments) -> bool; the arguments stand in the set's file beside the prompt.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)")
_FENCE = re.compile(r"```[a-z]*\n(.*?)\n?```", re.DOTALL)

# Words of grammar that are frequent in one of these languages and rare in the others.
_GRAMMAR = {
    "English": "the of and to is that with for it this are you from in a i we",
    "German": "der die das und ist nicht ein eine mit für auf ich wir zu den im",
    "French": "le la les des et est une dans pour que je nous sur un du au",
    "Spanish": "el los las una es y en que por con para del yo un al muy",
    "Italian": "il che di è un per non gli della con sono una nel io la molto",
    "Portuguese": "o os uma é em não que com para do da eu um na no muito",
}


def _plain(text: str) -> str:
    """Without what surrounds a short answer: white space, quotes, a final full stop."""
    return text.strip().strip("\"'`").strip().removesuffix(".").strip()


def _same_number(text: str, value: float) -> bool:
    return abs(float(text.replace(",", "")) - value) < 1e-9


def _in_range(count: int, low: int, high: int | None) -> bool:
    return low <= count and (high is None or count <= high)


def _lines(answer: str) -> list[str]:
    return [line.strip() for line in answer.splitlines() if line.strip()]


def equals(answer: str, texts: Sequence[str]) -> bool:
    """The answer is one of these texts and nothing else; case does not count."""
    return _plain(answer).casefold() in {text.casefold() for text in texts}


def number(answer: str, value: float) -> bool:
    """The answer is this number and nothing else."""
    return bool(_NUMBER.fullmatch(_plain(answer))) and _same_number(_plain(answer), value)


def last_number(answer: str, value: float) -> bool:
    """The last number in the answer is this one."""
    numbers = _NUMBER.findall(answer)
    return bool(numbers) and _same_number(numbers[-1].rstrip(","), value)


def contains(answer: str, words: Sequence[str], times: int | None = None) -> bool:
    """Each of these stands in the answer as a whole word, exactly so many times if that is given."""
    counts = [len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", answer, re.IGNORECASE)) for word in words]
    return all(count == times if times is not None else count > 0 for count in counts)


def excludes(answer: str, words: Sequence[str]) -> bool:
    """None of these stands in the answer as a whole word."""
    return bool(answer.strip()) and not any(contains(answer, [word]) for word in words)


def without(answer: str, characters: str) -> bool:
    """None of these characters stands in the answer, in either case."""
    return bool(answer.strip()) and not set(answer.casefold()) & set(characters.casefold())


def words(answer: str, low: int = 1, high: int | None = None) -> bool:
    """So many words between white space."""
    return _in_range(len(answer.split()), low, high)


def sentences(answer: str, low: int = 1, high: int | None = None) -> bool:
    """So many sentence ends, the end of the answer among them."""
    text = answer.strip()
    ends = len(_SENTENCE_END.findall(text)) + bool(text and not _SENTENCE_END.search(text[-2:]))
    return _in_range(ends, low, high)


def lines(answer: str, low: int = 1, high: int | None = None) -> bool:
    """So many lines that are not empty."""
    return _in_range(len(_lines(answer)), low, high)


def paragraphs(answer: str, low: int = 1, high: int | None = None) -> bool:
    """So many parts between empty lines."""
    return _in_range(len([part for part in re.split(r"\n\s*\n", answer.strip()) if part.strip()]), low, high)


def bullets(answer: str, count: int) -> bool:
    """Exactly so many lines begin with a dash or an asterisk and a space."""
    return sum(bool(re.match(r"[-*] \S", line)) for line in _lines(answer)) == count


def numbered(answer: str, count: int) -> bool:
    """The lines that begin with a number and a full stop or bracket are numbered 1 to `count`."""
    marks = [match.group(1) for line in _lines(answer) if (match := re.match(r"(\d+)[.)] \S", line))]
    return marks == [str(number) for number in range(1, count + 1)]


def _parsed(answer: str) -> Any:
    fenced = _FENCE.fullmatch(answer.strip())
    return json.loads(fenced.group(1) if fenced else answer)


def json_value(answer: str, value: Any) -> bool:
    """The answer is JSON of this value; it may stand in a code block."""
    try:
        return bool(_parsed(answer) == value)
    except (ValueError, RecursionError):
        return False


def json_keys(answer: str, keys: Sequence[str]) -> bool:
    """The answer is a JSON object with exactly these keys; it may stand in a code block."""
    try:
        parsed = _parsed(answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and set(parsed) == set(keys)


def upper(answer: str) -> bool:
    """There are letters, and none of them is a small one."""
    return answer.upper() == answer and any(character.isalpha() for character in answer)


def lower(answer: str) -> bool:
    """There are letters, and none of them is a capital."""
    return answer.lower() == answer and any(character.isalpha() for character in answer)


def capitalised(answer: str) -> bool:
    """Every word begins with a capital letter."""
    begins = [word.lstrip("\"'(")[:1] for word in answer.split()]
    return bool(begins) and all(letter.isupper() for letter in begins)


def begins(answer: str, text: str) -> bool:
    """The answer begins with this text."""
    return answer.lstrip().startswith(text)


def ends(answer: str, text: str) -> bool:
    """The answer ends with this text."""
    return answer.rstrip().endswith(text)


def sequence(answer: str, items: Sequence[str]) -> bool:
    """The answer is these items in this order, between commas or on lines of their own; case does not count."""
    given = [_plain(item).casefold() for item in re.split(r"[,\n]", answer) if item.strip()]
    return given == [item.casefold() for item in items]


def acrostic(answer: str, word: str) -> bool:
    """The first letters of the lines spell this word."""
    return "".join(line[0] for line in _lines(answer)).casefold() == word.casefold()


def pattern(answer: str, expression: str) -> bool:
    """The whole answer, without white space around it, matches a regular expression."""
    return bool(re.fullmatch(expression, answer.strip(), re.DOTALL))


def script(answer: str, names: Sequence[str]) -> bool:
    """At least 80 % of the letters belong to these scripts, by the names that Unicode gives to letters."""
    letters = [character for character in answer if character.isalpha()]
    inside = sum(unicodedata.name(character, "").startswith(tuple(names)) for character in letters)
    return bool(letters) and inside >= 0.8 * len(letters)


def language(answer: str, name: str) -> bool:
    """More words of this language's grammar stand in the answer than of any other's here."""
    said = re.findall(r"[^\W\d_]+", answer.casefold())
    hits = {known: sum(word in grammar.split() for word in said) for known, grammar in _GRAMMAR.items()}
    return hits[name] > max(count for known, count in hits.items() if known != name)


CHECKS: dict[str, Callable[..., bool]] = {
    check.__name__: check
    for check in (
        equals, number, last_number, contains, excludes, without, words, sentences, lines, paragraphs, bullets, numbered,
        json_value, json_keys, upper, lower, capitalised, begins, ends, sequence, acrostic, pattern, script, language,
    )
}  # fmt: skip
"""By the names that the set's file uses."""
