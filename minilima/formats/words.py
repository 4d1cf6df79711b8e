"""Words of a text in the script that it is written in: separated by spaces, or a character each where a script has no spaces."""

import re
import sys
import unicodedata
from functools import cache

# Thai, Lao, Myanmar, Khmer, kana, Chinese characters: text without spaces between words.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0002fa1f"
)
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_OTHER_WORD = re.compile(r"\w*[^\W\x00-\x7f]\w*")
_UNSPACED = re.compile(f"[{UNSPACED}]")
_PUNCTUATION = re.compile("[\u3000-\u3004\u3008-\u3020\u30fb\uff01-\uff0f\uff1a-\uff20\u2018-\u201d\u2026]")


def words_of(text: str) -> list[str]:
    """Lower-case words for comparisons; of text that is nearly all ASCII the tokens of rouge_score: runs of a-z and 0-9."""
    if text.isascii() or _nearly_ascii(text):
        return _ASCII_WORD.findall(text.lower())
    return _any_script().findall(_without_dots(unicodedata.normalize("NFC", text).casefold()))


def count_words(text: str) -> int:
    """Runs between white space; of a script without spaces, each character with its marks."""
    if not _UNSPACED.search(text):
        return len(text.split())
    return len(_unspaced().sub(" x ", _PUNCTUATION.sub(" ", text)).split())


def lowered(text: str) -> str:
    """Lower case for comparisons, in which Turkish words are the same however they were written: İYİ and iyi, ISI and ısı."""
    return _without_dots(text.lower())


def _without_dots(text: str) -> str:
    return text.replace("i\u0307", "i").replace("ı", "i")


def has_word(text: str, word: str) -> bool:
    """Whether a word, or several, stand in a text as a whole; letters of a script without spaces may touch them."""
    if text.isascii() or not word:
        return re.search(rf"\b{re.escape(word)}\b", text) is not None
    spans = (match.span() for match in re.finditer(re.escape(word), text))
    return any(
        not _joins(text[max(0, begin - 1) : begin], word[0]) and not _joins(text[end : end + 1], word[-1]) for begin, end in spans
    )


def _joins(neighbour: str, edge: str) -> bool:
    """Whether a character beside a word makes it part of a longer one."""
    if neighbour and unicodedata.category(neighbour)[0] == "M":
        return True
    return all(_is_letter(one) and not _UNSPACED.match(one) for one in (neighbour, edge))


def _is_letter(character: str) -> bool:
    """Whether it belongs to words; marks are no letters for `re`."""
    return character != "" and (re.match(r"\w", character) is not None or unicodedata.category(character)[0] == "M")


def _nearly_ascii(text: str) -> bool:
    """Whether a stray word at most has other letters, as `café` in English: such texts keep the scores of rouge_score."""
    other, words = len(_OTHER_WORD.findall(text)), len(text.split())
    return not _UNSPACED.search(text) and other <= max(1, words // 10) and 2 * other < words


@cache
def marks() -> str:
    """For a class of characters: all combining marks. Vowel signs of Hindi and Thai are no letters for `re`."""
    return "".join(re.escape(chr(code)) for code in range(0x300, sys.maxunicode) if unicodedata.category(chr(code))[0] == "M")


@cache
def _unspaced() -> re.Pattern[str]:
    return re.compile(f"[{UNSPACED}][{marks()}]*")


@cache
def _any_script() -> re.Pattern[str]:
    return re.compile(f"[{UNSPACED}][{marks()}]*|(?:(?![{UNSPACED}_])[\\w{marks()}])+")
