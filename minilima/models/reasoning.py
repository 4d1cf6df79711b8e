"""Takes a model's reasoning apart from its answer: the only module that reads `<think>…</think>`. Pure.

    reply ─> split_reasoning ─> reasoning (kept in the reply cache) + answer (judged, counted, trained on)
A block counts only at the beginning of a reply: an answer may speak about such blocks further down.
"""

import re
from dataclasses import dataclass, replace

from minilima.config.choices import Thinking
from minilima.models.chat import Reply, Request

OPEN, CLOSE = "<think>", "</think>"
EMPTY_BLOCK = re.compile(rf"\s*{OPEN}\s*{CLOSE}\s*")
"""What templates write before an answer without reasoning."""
OPENED_PROMPT = re.compile(rf"{OPEN}\s*(?:{CLOSE}\s*)?$")
"""How a prompt ends that opens a block, or opens and closes it."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A reply taken apart; `reasoning` is None where there is no block, and empty where there is nothing in it."""

    answer: str
    reasoning: str | None = None
    closed: bool = True
    """False where the block has no end: the reply was cut in it, and has no answer."""


def split_reasoning(text: str, *, opened: bool | None = False) -> Parts:
    """The answer of a reply, and the reasoning before it.

    Args:
        text: of the reply.
        opened: whether the prompt ends with an open block, so that the reply begins in it; None = not known, so a closing
            tag without an opening one counts.
    """
    begins = text.lstrip().startswith(OPEN)
    if not begins and not opened and (opened is False or CLOSE not in text):
        return Parts(answer=text)
    block, closing, answer = (text.lstrip().removeprefix(OPEN) if begins else text).partition(CLOSE)
    return Parts(answer=answer.lstrip(), reasoning=block.strip(), closed=bool(closing))


def without_reasoning(reply: Reply, request: Request | None, *, opened: bool | None = None) -> Reply:
    """The reply with its reasoning apart from its text, unless the request wants both; one cut in its reasoning has no text."""
    if request is not None and request.thinking == Thinking.keep:
        return reply
    parts = split_reasoning(reply.text, opened=opened)
    if parts.reasoning is None:
        return reply
    reasoning = "\n\n".join(filter(None, (reply.reasoning, parts.reasoning))) or None
    if not parts.closed:
        return replace(reply, text="", finish="length", reasoning=reasoning)
    return replace(reply, text=parts.answer, reasoning=reasoning)
