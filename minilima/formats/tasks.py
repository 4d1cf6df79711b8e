"""What a row of a table asks: instruction (or prompt, question, query) and input, or context, or a list of instances."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minilima.formats.broken import BrokenRowError, as_object
from minilima.formats.layouts import answer, request, the_answer
from minilima.formats.meaning import PICTURES, SYSTEMS, check_options, check_text
from minilima.formats.records import user_text

UNSEEN = (
    *SYSTEMS, "history", "tools", "documents", "chat_template_kwargs", *PICTURES,
)  # fmt: skip
"""Columns that change what is asked, and that a task on its own cannot carry."""

_MARK = re.compile(r"\s*[<\[(]\s*(?:no[ _-]?input|none|无输入|無輸入|入力なし|입력 없음)\s*[>\])]\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of a row, and its answer where there is one."""

    instruction: str
    input: str
    output: str | None

    @property
    def text(self) -> str:
        """What a user says to pose it."""
        return user_text(self.instruction, self.input)


def read_row(given: object) -> list[Task]:
    """The task of a row; of a row with instances, one for each of them.

    Raises:
        BrokenRowError: a part is missing or of the wrong kind, or a column changes the task in a way that is not understood.
    """
    row = as_object(given)
    if carried := [name for name in UNSEEN if row.get(name)]:
        raise BrokenRowError(
            f"has the column {carried[0]}, which is not understood here", "Without it the model would be asked something else."
        )
    asked = request(row) or "instruction"
    instruction = _text(row, asked, needed=True)
    if "instances" not in row or row.get("output") is not None:
        given = "" if asked == "input" else _input(row)
        check_options(row, f"{instruction}\n{given}")
        return [Task(instruction=instruction, input=given, output=_output(row, answer(row)))]
    instances = row["instances"]
    if not isinstance(instances, list) or not instances or not all(isinstance(one, Mapping) for one in instances):
        raise BrokenRowError("has no proper instances", "They must be a list of objects with input and output.")
    return [Task(instruction=instruction, input=_input(one), output=_output(one, "output")) for one in instances]


def without_mark(text: str) -> str:
    """An input, empty where it is the mark of data sets for none: `<noinput>` (Self-Instruct, Alpaca)."""
    return "" if _MARK.fullmatch(text) else text


def _input(row: Mapping[str, Any]) -> str:
    given, context = without_mark(_text(row, "input")), _text(row, "context")
    if given and context:
        raise BrokenRowError("has both an input and a context", "Which of them is part of the task is not known.")
    return given or context


def _output(row: Mapping[str, Any], name: str | None) -> str | None:
    output = the_answer(row.get(name)) if name else None
    if not isinstance(output, str | None):
        raise BrokenRowError("has no proper output", "It must be a text, or left out.")
    return output


def _text(row: Mapping[str, Any], name: str, *, needed: bool = False) -> str:
    value = row.get(name)
    if (value is None and not needed) or (isinstance(value, str) and (value.strip() or not needed)):
        check_text(value or "", name)
        return value if value and value.strip() else ""
    there = ", ".join(str(column) for column in row) or "none"
    empty = " that is not empty" if needed else ""
    raise BrokenRowError(f"has no valid {name}", f"It must be a text{empty}; the columns that are there: {there}.")
