"""What the Batch API answers, checked: openai's client takes whatever JSON or page comes for a batch or a file of replies."""

import json
from collections.abc import Callable
from typing import Any

import openai
from openai.types import Batch, FileObject

from minilima.models.chat import Reply

MALFORMED = (openai.APIResponseValidationError, ValueError, TypeError, AttributeError, KeyError, RecursionError)
"""What an answer that is not of the Batch API, a page of a proxy for example, ends in."""
SILENT = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError, *MALFORMED)
"""No answer, or no useful one."""

Collected = dict[str, tuple[Reply | None, str]]
"""The reply of each request by its key, or None and what went wrong."""


def batch_in(given: object) -> Batch:
    """The same, where it is a batch: the client takes whatever JSON or page comes for one."""
    if not isinstance(given, Batch) or not isinstance(given.id, str) or not isinstance(given.status, str):
        raise ValueError(f"not a batch: {given!r:.300}")
    return given


def named_in(given: object) -> str:
    """The name of a file that was sent."""
    if not isinstance(given, FileObject) or not isinstance(given.id, str):
        raise ValueError(f"not a file: {given!r:.300}")
    return given.id


def file_in(content: bytes) -> bytes:
    """The same, where it is a file of replies: a page in its place would count as a batch without a reply, to be paid again."""
    lines = lines_of(content)
    if lines and not any(map(is_row, lines)):
        raise ValueError(f"not a file of replies: {content[:300].decode(errors='replace')}")
    return content


def lines_of(content: bytes) -> list[bytes]:
    """Lines that are not empty. They end at newlines alone: U+2028 and the like may stand in a reply."""
    return [line for line in content.split(b"\n") if line.strip()]


def is_row(line: bytes) -> bool:
    """Whether a line of a file says what came of a request."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "custom_id" in row


def rows_in(content: bytes, read: Callable[[dict[str, Any]], tuple[Reply | None, str]]) -> Collected:
    """What an output file says of each request."""
    collected: Collected = {}
    for line in lines_of(content):
        try:
            row = json.loads(line)
            collected[str(row["custom_id"])] = read(row)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue  # a broken line: its request counts as expired, and is sent again
    return collected
