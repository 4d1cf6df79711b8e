"""What is left out of the pool, and the reason for each: pure predicates over texts."""

import re
from itertools import pairwise

from minilima.config.schema import DataConfig
from minilima.formats.words import count_words
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
    if not text[0].isalnum() and text[0] not in "\"'¿¡(":
        return "starts_with_punctuation"
    lowered = text.lower()
    if any(lowered.startswith(beginning.lower()) for beginning in data.blocked_beginnings):
        return "blocked_beginning"
    for blocked in data.blocked_words:
        if re.search(rf"\b{re.escape(blocked.lower())}\b", lowered):
            return f"blocked_word:{blocked}"
    return "repeats_itself" if is_repetitive(text) else None


_VERBS = (
    "add adapt advise analyse analyze answer apply argue arrange ask assess assign balance boil brainstorm break build "
    "calculate categorise categorize change check choose cite classify combine come compare complete compose compress "
    "compute condense consider construct continue contrast convert correct count craft create critique debug decide decline "
    "deduce define describe design detect determine develop devise diagnose differentiate discuss distinguish divide draft "
    "edit elaborate eliminate estimate evaluate expand explain express extend extract figure fill find finish fix flag "
    "format formulate generate get give grade guess help highlight identify illustrate imagine implement improve infer "
    "insert interpret introduce invent judge justify keep label link list make mark match mention merge modify name negate "
    "note offer order organise organize outline paraphrase parse pick plan point practise predict prepare present produce "
    "proofread propose prove provide pull punctuate put quote rank rate read rearrange recommend reconstruct reduce "
    "refactor refer remove rename reorder repeat rephrase replace reply report respond restate return reverse review revise "
    "reword rewrite rhyme round route say scale schedule score select separate shift shorten show simplify sketch solve "
    "sort specify spell split spot state subtract suggest sum summarise summarize swap tag take tell test think trace "
    "transform translate transcribe triage try turn update use verify weigh work write"
)
_TELLS = re.compile(
    r"(?:^|[.!:;,\n\"'(]\s*|\b(?:please|you (?:need|have|are asked) to|and|then|i want you to)\s+)"
    rf"(?:{_VERBS.replace(' ', '|')})\b",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"(?:^|[.!?,\n]\s*)(?:who|whom|whose|what|when|where|which|why|how)\b|\?(?![\"”'’])", re.IGNORECASE)
_POINTS = re.compile(
    r"\b(?:this|these|following|below|above|given|provided|options?|translate|rewrite|rephrase|summari[sz]e|shorten|correct"
    r"|classify|the (?:passage|paragraph|text|sentence|article|story|poem|code|message|email|review|claim|statement|argument"
    r"|list|table|notes|numbers|words|data))\b|:$",
    re.IGNORECASE,
)


def asks(text: str) -> bool:
    """Whether an English text asks a question (other than in a quotation) or tells somebody to do something."""
    return bool(_TELLS.search(text) or _QUESTION.search(text))


def points_to_an_input(instruction: str) -> bool:
    """Whether an English instruction speaks of something that stands below it: small models also write on without that."""
    return bool(_POINTS.search(instruction))


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
    """True where lines, or over `share` of the runs of `window` words, occur before in the same text: small models loop."""
    lines = [line.strip().lower() for line in text.splitlines() if len(line.split()) >= 3]
    if len(lines) - len(set(lines)) >= _LINES_AGAIN:
        return True
    words = text.lower().split()
    runs = [tuple(words[start : start + window]) for start in range(len(words) - window + 1)]
    return len(runs) >= 2 * window and 1 - len(set(runs)) / len(runs) > share


_LINES_AGAIN = 2
"""A line that comes back once may be a refrain."""


def has_broken_list(text: str) -> bool:
    """True where items of a list are numbered twice, or their numbers go back or stand still; a new list begins at 1."""
    numbers = [int(number) for number in re.findall(r"^\s*(\d{1,3})[.)]\s", text, re.MULTILINE)]
    twice = re.search(r"^\s*\d{1,3}[.)]\s+\d{1,3}[.)]\s", text, re.MULTILINE)
    return bool(twice) or any(after <= before and after != 1 for before, after in pairwise(numbers)) or numbers[:2] == [1, 1]


_REFUSAL = re.compile(
    r"^(?:(?:i['’]m (?:very |so )?sorry|i am (?:very |so )?sorry|sorry|i apologi[sz]e|unfortunately|my apologies)\b[,.!]?\s*"
    r"(?:but |that |for the \w+[,.]? but )?(?:as an ai\b|i\b|i['’]m\b|we\b|it is not possible|there is no)"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|i (?:cannot|can['’]t|can not|could not|couldn['’]t|won['’]t|will not|am unable|am not able|do not have (?:access|personal)"
    r"|don['’]t have (?:access|personal))\b|i['’]m (?:unable|not able|just an ai|only an ai)\b)",
    re.IGNORECASE,
)


def is_refusal(output: str) -> bool:
    """True where an answer begins by declining."""
    return bool(_REFUSAL.match(output.strip()))
