"""What is rejected from the pool, and the reason for each: pure predicates over texts."""

import re
from itertools import pairwise

from minilima.config.schema import DataConfig
from minilima.formats.words import UNSPACED, count_words, has_word, lowered
from minilima.generate.refusals import is_refusal
from minilima.rouge import likeness


def instruction_fault(text: str, data: DataConfig) -> str | None:
    """The reason to reject an instruction, or None (Self-Instruct, section 2.2 and its code).

    Unlike the original, texts may begin with a letter of any script, and case is left as it is.
    """
    if not text.strip():
        return "empty"
    if count_words(text) < data.min_words:
        return "too_short"
    if count_words(text) > data.max_words:
        return "too_long"
    if not text[0].isalnum() and text[0] not in _BEGINNINGS:
        return "starts_with_punctuation"
    compared = lowered(text)
    if any(compared.startswith(lowered(beginning)) for beginning in data.blocked_beginnings):
        return "blocked_beginning"
    for blocked in data.blocked_words:
        if has_word(compared, lowered(blocked)):
            return f"blocked_word:{blocked}"
    return "repeats_itself" if is_repetitive(text) else None


_BEGINNINGS = "\"'¿¡(„‚«‹「『《〈【〔（〖"
"""Punctuation with which an instruction may begin; those that English does not have open a quotation or a title."""

_ECHO = 0.7
"""ROUGE-L F1 of an answer with its instruction above which it only says it again."""


def instance_fault(*, instruction: str, input_text: str, output: str, truncated: bool) -> str | None:
    """The reason to reject a worked instance, or None (after prepare_for_finetuning.py)."""
    if truncated:
        return "truncated"
    if not output.strip():
        return "empty_output"
    if output.strip() in (input_text.strip(), instruction.strip()) or likeness(output, instruction) > _ECHO:
        return "output_repeats_input"
    if output.rstrip().endswith((":", "：")) or input_text.rstrip().endswith((":", "：")):
        return "unfinished"
    if is_refusal(output):
        return "refusal"
    if has_broken_list(output):
        return "broken_list"
    return "repeats_itself" if is_repetitive(output) or is_repetitive(input_text) else None


def is_repetitive(text: str, *, window: int = 4, share: float = 0.3) -> bool:
    """True where lines, or over `share` of the runs of `window` words, occur before in the same text: small models loop.

    Of a script without spaces, three characters count as a word.
    """
    lines = [line.strip().lower() for line in text.splitlines() if _length(line) >= 3]
    if len(lines) - len(set(lines)) >= _LINES_AGAIN:
        return True
    words = text.lower().split()
    if _UNSPACED.search(text):
        words, window = _RUN.findall(text.lower()), window * _CHARACTERS_A_WORD
    runs = [tuple(words[start : start + window]) for start in range(len(words) - window + 1)]
    return len(runs) >= 2 * window and 1 - len(set(runs)) / len(runs) > share


_LINES_AGAIN = 2
"""A line that comes back once may be a refrain."""
_CHARACTERS_A_WORD = 3
_UNSPACED = re.compile(f"[{UNSPACED}]")
_RUN = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


def _length(line: str) -> int:
    """Words of a line."""
    return len(line.split()) if not _UNSPACED.search(line) else count_words(line) // _CHARACTERS_A_WORD


# Each form of number is a list of its own: `（1）` below `1、`.
_NUMBERS = (
    r"(\d{1,3})[.)]\s",
    r"(\d{1,3})[、．）](?!\d)",
    r"（(\d{1,3})）",
    r"\((\d{1,3})\)\s*(?=[^\x00-\x7f])",
    r"(\d{1,3})[.)](?=[^\W\d_a-zA-Z])",
)


def has_broken_list(text: str) -> bool:
    """True where items of a list are numbered twice, or their numbers go back or stand still; a new list begins at 1."""
    english, *others = ([int(number) for number in re.findall(rf"^\s*{form}", text, re.MULTILINE)] for form in _NUMBERS)
    twice = re.search(r"^\s*\d{1,3}[.)]\s+\d{1,3}[.)]\s|^\s*\d{1,3}[、．）]\s*\d{1,3}[、．）]", text, re.MULTILINE)
    return bool(twice) or english[:2] == [1, 1] or any(_goes_back(numbers) for numbers in (english, *others))


def _goes_back(numbers: list[int]) -> bool:
    return any(after <= before and after != 1 for before, after in pairwise(numbers))
