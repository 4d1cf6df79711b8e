"""A conversation as a model's chat template renders it: its tokens, and which of them are answers with their ends.

    turns ─> render ─> Rendered(ids, answers) ─> the mask of the loss, the loss on reference answers
          └> prompt_ids ─> what the model is asked with: always the beginning of the same rendering
Training, losses and answering all read the template here, so that they cannot differ. Where an answer stands is found in the
rendered text; a rendering that says anything else than the conversation is refused.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from minilima.config.choices import Thinking
from minilima.errors import MinilimaError
from minilima.models.reasoning import CLOSE, EMPTY_BLOCK, OPEN, OPENED_PROMPT, split_reasoning

_PATTERNS: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[tuple[str, ...], re.Pattern[str]]] = WeakKeyDictionary()
"""For each tokenizer its special tokens, and what ends a turn as long as these are the same."""

Turns = Sequence[dict[str, str]]
"""role and content of each turn."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A conversation in tokens. `answers`: where each answer starts, and where it ends with its end-of-turn token included."""

    ids: list[int]
    answers: tuple[tuple[int, int], ...]


def render(tokenizer: PreTrainedTokenizerBase, turns: Turns, thinking: Thinking | None = None, row: str = "") -> Rendered:
    """The tokens of a conversation, and which of them the model has to write.

    Args:
        tokenizer: with a chat template.
        turns: the last one, and any number of those before it, by the assistant.
        thinking: `model.thinking`; reasoning in answers is left out for off and on.
        row: names the conversation in errors.

    Raises:
        MinilimaError: the rendering is not the conversation, changes what stands before an answer, or does not end answers.
    """
    turns = [_spoken(turn, thinking, row) for turn in turns]
    text = prompt_text(tokenizer, turns, thinking, row, complete=True)
    for turn in turns:
        if turn["role"] != "assistant" and turn["content"].strip() not in text:
            raise _differs(f"leaves out what the {turn['role']} says", row)
    ends = _ends(tokenizer)
    spans, after = [], 0
    for index, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        final = index == len(turns) - 1
        prompt = prompt_text(tokenizer, turns[:index], thinking, row)
        span = _locate(text, prompt, turn["content"], ends, thinking, row, final=final, after=after)
        if not final:
            alone = prompt_text(tokenizer, turns[: index + 1], thinking, row, complete=True)
            if _locate(alone, prompt, turn["content"], ends, thinking, row, final=True).end_text != span.end_text:
                raise _no_end(row)
        spans.append((span.start, span.end))
        after = span.end
    return _tokens(tokenizer, text, spans, row)


def prompt_text(
    tokenizer: PreTrainedTokenizerBase, turns: Turns, thinking: Thinking | None = None, row: str = "", *, complete: bool = False
) -> str:
    """The conversation as text, up to where the assistant speaks; `complete`: without asking it to.

    Raises:
        MinilimaError: the template refuses the conversation.
    """
    thinks = thinking in (Thinking.on, Thinking.keep)
    try:
        return str(
            tokenizer.apply_chat_template(
                list(turns), add_generation_prompt=not complete, tokenize=False, enable_thinking=thinks, thinking=thinks
            )
        )
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        raise MinilimaError(
            f"The model's chat template refuses a conversation{_of(row)}.",
            f"It says: {error}. The roles are: {', '.join(turn['role'] for turn in turns)}.",
            "Use a model whose template takes these roles, or take that conversation out of the data.",
        ) from None


def prompt_ids(tokenizer: PreTrainedTokenizerBase, turns: Turns, thinking: Thinking | None = None) -> list[int]:
    """What the model is asked with: the conversation up to where the assistant speaks."""
    return _encode(tokenizer, prompt_text(tokenizer, turns, thinking))


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends an answer by the template; the tokenizer's own end where the template has none."""
    try:
        sample = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        rendered = render(tokenizer, sample)
    except MinilimaError:
        end: int | None = tokenizer.eos_token_id
        return end
    return rendered.ids[rendered.answers[-1][1] - 1]


@dataclass(frozen=True, kw_only=True)
class _Span:
    """Where in a rendered text an answer stands, its end of turn included, and what that end is."""

    start: int
    end: int
    end_text: str


def _spoken(turn: dict[str, str], thinking: Thinking | None, row: str) -> dict[str, str]:
    """The turn as it is to be learned: without reasoning, unless that is asked for."""
    if turn["role"] != "assistant" or thinking == Thinking.keep:
        return turn
    parts = split_reasoning(turn["content"])
    if not parts.closed:
        raise MinilimaError(
            f"An answer ends in the middle of its reasoning{_of(row)}.", f"It has {OPEN} without {CLOSE}.",
            "Take that conversation out of the data.",
        )  # fmt: skip
    if parts.reasoning and thinking is None:
        raise MinilimaError(
            f"An answer holds reasoning{_of(row)}.",
            f"It begins with {OPEN}…{CLOSE}, and nothing says whether that is to be learned.",
            "Set model.thinking=off to leave reasoning out, or model.thinking=keep to train on it.",
        )
    return {**turn, "content": parts.answer} if parts.reasoning is not None else turn


def _locate(
    text: str,
    prompt: str,
    answer: str,
    ends: re.Pattern[str],
    thinking: Thinking | None,
    row: str,
    *,
    final: bool,
    after: int = 0,
) -> _Span:
    start = _start(text, prompt, final=final)
    if start is None or start < after:
        raise MinilimaError(
            f"The chat template is not consistent{_of(row)}.",
            "With the answer added, the text before it changes: the model would be trained on other prompts than it is asked.",
            "Use a model whose template has a fixed generation prompt, or model.thinking=off where it opens a block of thought.",
        )
    block = None if EMPTY_BLOCK.match(answer) else EMPTY_BLOCK.match(text, start)
    begin = block.end() if block else start
    stop = _behind(text, begin, answer)
    if stop is None and thinking == Thinking.keep:
        stop = _behind_reasoning(text, begin, answer, opened=bool(re.search(rf"{OPEN}\s*$", prompt)))
    if stop is None:
        raise _differs("does not render an answer as it is", row)
    end = ends.search(text, stop)
    if end is None or text[stop : end.start()].strip():
        raise _no_end(row)
    # With reasoning switched on, an empty block is no answer: learned, it would switch it off.
    return _Span(start=begin if thinking == Thinking.on else start, end=end.end(), end_text=end[0])


def _start(text: str, prompt: str, *, final: bool) -> int | None:
    """Where the answer to `prompt` begins; templates drop what a prompt says of reasoning once others follow."""
    if text.startswith(prompt):
        return len(prompt)
    opened = None if final else OPENED_PROMPT.search(prompt)
    return opened.start() if opened and text.startswith(prompt[: opened.start()]) else None


def _behind(text: str, start: int, answer: str) -> int | None:
    """The position after the answer, which may have lost whitespace at its ends; None where something else stands there."""
    words = answer.strip()
    while start < len(text) and text[start].isspace() and not text.startswith(words, start):
        start += 1
    if not text.startswith(words, start):
        return None
    return start + len(words)


def _behind_reasoning(text: str, start: int, answer: str, *, opened: bool) -> int | None:
    """As `_behind`, for an answer with reasoning, around which templates set whitespace of their own."""
    wanted, close = split_reasoning(answer), text.find(CLOSE, start)
    if wanted.reasoning is None or close < 0:
        return None
    rendered = split_reasoning(text[start : close + len(CLOSE)], opened=opened)
    return _behind(text, close + len(CLOSE), wanted.answer) if rendered.reasoning == wanted.reasoning else None


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str, spans: Sequence[tuple[int, int]], row: str) -> Rendered:
    """Tokens of the text; a token that would hold both the end of a prompt and the beginning of an answer is divided there,
    since the model is asked with the prompt alone."""
    ids = _encode(tokenizer, text)
    counts = [tuple(_count(tokenizer, text[:char], ids) for char in span) for span in spans]
    if all(count is not None for pair in counts for count in pair):
        return Rendered(ids=ids, answers=tuple((start or 0, end or 0) for start, end in counts))
    cuts = [0, *(start for start, _ in spans), len(text)]
    pieces = [text[begin:end] for begin, end in itertools.pairwise(cuts)]
    encoded = [_encode(tokenizer, piece) for piece in pieces]
    joined = [token for piece in encoded for token in piece]
    answers, begin = [], len(encoded[0])
    for number, (start, end) in enumerate(spans, start=1):
        length = _count(tokenizer, text[start:end], encoded[number])
        if length is None or tokenizer.decode(joined) != tokenizer.decode(ids):
            raise MinilimaError(
                f"The tokens of an answer cannot be separated from those of its prompt{_of(row)}.",
                "Its first characters melt into one token with the last ones of the prompt.",
                "Take the whitespace from the beginning of that answer, or the row out of the data.",
            )
        answers.append((begin, begin + length))
        begin += len(encoded[number])
    return Rendered(ids=joined, answers=tuple(answers))


def _count(tokenizer: PreTrainedTokenizerBase, beginning: str, ids: Sequence[int]) -> int | None:
    """How many of `ids` make up the beginning of their text; None where its tokens are others."""
    own = _encode(tokenizer, beginning)
    return len(own) if list(ids[: len(own)]) == own else None


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _ends(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches any token that can end a turn: all that the tokenizer never divides, but whitespace and marks of reasoning.

    Gemma has 6,400 of them, and to collect them, or only to count the vocabulary, takes longer than to render a conversation.
    """
    marks = tuple(tokenizer.all_special_tokens)
    if (kept := _PATTERNS.get(tokenizer)) is not None and kept[0] == marks:
        return kept[1]
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
    words = sorted((word for word in added if word.strip() and word not in (OPEN, CLOSE)), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, words)) or r"(?!)")
    _PATTERNS[tokenizer] = (marks, pattern)
    return pattern


def _of(row: str) -> str:
    return f" ({row})" if row else ""


def _differs(how: str, row: str) -> MinilimaError:
    return MinilimaError(
        f"The chat template {how}{_of(row)}.",
        "What the model would learn is not what the data says (templates cut reasoning, or drop roles they do not know).",
        "Use a model whose template renders it, set model.thinking=off to leave reasoning out, or take that row out of the data.",
    )


def _no_end(row: str) -> MinilimaError:
    return MinilimaError(
        f"The chat template does not end a turn with a token of its own{_of(row)}.",
        "The model would never learn to stop.",
        "Use a model whose template ends every answer with a special token, such as its eos_token.",
    )
