"""Checks of an answer that need no judge: each is a few lines that say yes or no.

CHECKS[kind](answer, **arguments) -> bool; the arguments stand in the set's file beside the prompt.
Kinds that IFEval has too say what IFEval's checkers say (lm-eval 0.4.13); where they differ, the check tells how and why.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_STOP = re.compile(r"(\S*?)([.!?]+)[\"')\]”’]*(?=\s+(\S)|\s*$)")
"""A word, the marks after it, and the first character of what follows."""
_TITLES = {"Mr", "Mrs", "Ms", "Dr", "Prof", "St"}
_FENCED = re.compile(r"(?:```(?:[a-z]*\n|json)?)?(.*?)(?:```)?", re.DOTALL | re.IGNORECASE)

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
    """The answer is one of these texts and nothing else; case does not count.

    IFEval's constrained_response takes any answer in which one of its options stands, in its case. The texts here are short, as
    `odd`, and stand in wrong answers too.
    """
    return _plain(answer).casefold() in {_plain(text).casefold() for text in texts}


def number(answer: str, value: float) -> bool:
    """The answer is this number and nothing else."""
    return bool(_NUMBER.fullmatch(_plain(answer))) and _same_number(_plain(answer), value)


def last_number(answer: str, value: float) -> bool:
    """The last number in the answer is this one."""
    numbers = _NUMBER.findall(answer)
    return bool(numbers) and _same_number(numbers[-1].rstrip(","), value)


def contains(answer: str, words: Sequence[str], times: int | None = None) -> bool:
    """Each of these stands in the answer as a whole word, exactly so many times if that is given.

    IFEval's existence and frequency also find them inside of longer words, `yes` in `yesterday`; the prompts here ask for words.
    """
    counts = [len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", answer, re.IGNORECASE)) for word in words]
    return all(count == times if times is not None else count > 0 for count in counts)


def excludes(answer: str, words: Sequence[str]) -> bool:
    """None of these stands in the answer as a whole word."""
    return bool(answer.strip()) and not any(contains(answer, [word]) for word in words)


def without(answer: str, characters: str) -> bool:
    """None of these characters stands in the answer, in either case."""
    return bool(answer.strip()) and not set(answer.lower()) & set(characters.lower())


def words(answer: str, low: int = 1, high: int | None = None) -> bool:
    """So many words between white space; a dash or a bullet of its own is none.

    IFEval's number_words counts `well-known` and `it's` as two words each. That matters little to its thresholds in the hundreds,
    and much to `exactly five words`.
    """
    return _in_range(sum(any(map(str.isalnum, word)) for word in answer.split()), low, high)


def sentences(answer: str, low: int = 1, high: int | None = None) -> bool:
    """So many sentence ends, the end of the answer among them.

    IFEval's number_sentences uses NLTK's tables of abbreviations, which are not packaged here. Both read titles, initials, quotes
    and numbers alike. NLTK knows more abbreviations (`Jan.`), lacks others (`e.g.`), sees no end in dots before a capital, and
    takes asterisks after the last full stop for a sentence.
    """
    stops = list(_STOP.finditer(answer.strip()))
    goes_on = bool(answer.strip()) and not (stops and stops[-1].end() == len(answer.strip()))
    return _in_range(sum(_ends_sentence(*stop.groups()) for stop in stops) + goes_on, low, high)


def _ends_sentence(word: str, marks: str, following: str | None) -> bool:
    """Whether the marks after a word end a sentence: not after titles and initials, nor where dots go on with a small letter."""
    if following is None or set(marks) != {"."}:
        return True
    if len(marks) > 1 or "." in word:
        return not following.islower()
    return not (word.lstrip("\"'(“‘") in _TITLES or re.fullmatch(r"[\"'(“‘]*[A-Z]", word))


def lines(answer: str, low: int = 1, high: int | None = None) -> bool:
    """So many lines that are not empty."""
    return _in_range(len(_lines(answer)), low, high)


def paragraphs(answer: str, low: int = 1, high: int | None = None) -> bool:
    """So many parts between empty lines.

    IFEval's nth_paragraph_first_word divides so too, except at an empty line with spaces in it, which no reader can see. Its
    number_paragraphs counts parts between three asterisks, which is another request.
    """
    return _in_range(len([part for part in re.split(r"\n\s*\n", answer.strip()) if part.strip()]), low, high)


def bullets(answer: str, count: int) -> bool:
    """Exactly so many lines begin with a dash or an asterisk and a space.

    IFEval's number_bullet_lists needs no space, and so counts `-5 degrees`, `---` and `*stressed* words`; the prompts here ask
    for the space.
    """
    return sum(bool(re.match(r"[-*] \S", line)) for line in _lines(answer)) == count


def numbered(answer: str, count: int) -> bool:
    """The lines that begin with a number and a full stop or bracket are numbered 1 to `count`."""
    marks = [match.group(1) for line in _lines(answer) if (match := re.match(r"(\d+)[.)] \S", line))]
    return marks == [str(number) for number in range(1, count + 1)]


def _parsed(answer: str) -> Any:
    inside = _FENCED.fullmatch(answer.strip())
    assert inside is not None, "both fences may be missing"
    return json.loads(inside.group(1))


def json_value(answer: str, value: Any) -> bool:
    """The answer is JSON of this value, or a code block of it. IFEval's json_format asks only for JSON."""
    try:
        return bool(_parsed(answer) == value)
    except (ValueError, RecursionError):
        return False


def json_keys(answer: str, keys: Sequence[str]) -> bool:
    """The answer is a JSON object with exactly these keys, or a code block of it. IFEval's json_format asks only for JSON."""
    try:
        parsed = _parsed(answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and set(parsed) == set(keys)


def upper(answer: str) -> bool:
    """There are capitals and no small letters. IFEval's english_capital also asks langdetect for English, and errs on words."""
    return answer.isupper()


def lower(answer: str) -> bool:
    """There are small letters and no capitals. IFEval's english_lowercase also asks langdetect for English, as for `upper`."""
    return answer.islower()


def capitalised(answer: str) -> bool:
    """Every word begins with a capital letter."""
    begins = [word.lstrip("\"'(")[:1] for word in answer.split()]
    return bool(begins) and all(letter.isupper() for letter in begins)


def begins(answer: str, text: str) -> bool:
    """The answer begins with this text, in this case; IFEval runs no check of this kind."""
    return answer.lstrip().startswith(text)


def ends(answer: str, text: str) -> bool:
    """The answer ends with this text; case does not count, nor quotes around the answer, as in IFEval's end_checker.

    Where the text is itself a quotation mark, as IFEval's quotation asks for, it must be there.
    """
    shown = answer.strip().lower()
    return any(form.endswith(text.lower()) for form in (shown, shown.strip('"')))


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
    """More words of this language's grammar stand in the answer than of any other's here.

    IFEval's response_language asks langdetect, which guesses at short texts by chance and takes a text without letters for any
    language. They agree on whole sentences.
    """
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
