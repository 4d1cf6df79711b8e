"""Recognises where a row without an entry in a dataset_info.json keeps its parts, from the names of its columns.

    {"prompt": …, "completion": …} ─> Layout(prompt="prompt", response="completion"), and so for question, query and the like
A row that says two things, in columns of two formats, is refused.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilima.formats.broken import BrokenRowError
from minilima.formats.llamafactory import Layout
from minilima.formats.row import Row

ALPACA = Layout(history="history", system="system")
SHAREGPT = Layout(formatting="sharegpt", system="system")
OPENAI = replace(
    SHAREGPT, messages="messages", role_tag="role", content_tag="content", user_tag="user", assistant_tag="assistant"
)
TURNS = ("messages", "conversations", "conversation", "dialog", "dialogue")
"""Columns with a list of turns."""
ROLE_TAGS, CONTENT_TAGS = ("role", "from", "speaker"), ("content", "value", "text")
PAIRS = (("human", "assistant"), ("user", "assistant"), ("input", "output"), ("question", "answer"), ("prompt", "response"))
"""Names of the two halves of a turn that holds what is asked and what is answered."""
_REQUESTS = ("prompt", "question", "query", "inputs")
"""Columns with what is asked, where there is no instruction."""
_ANSWERS = ("output", "response", "completion", "answer", "answers", "targets")


def recognised(row: Row) -> Layout:
    """The layout that follows from a row's columns.

    Raises:
        BrokenRowError: they are not known, or say two things.
    """
    turns = _turns(row)
    _check_one_meaning(row, turns)
    if turns:
        return _of_turns(turns[0], row.values[turns[0]])
    asked, answered = request(row.values), answer(row.values)
    if asked is not None and (answered is not None or asked == "instruction"):
        if layout_of_others := [name for name in _REQUESTS if asked == "instruction" and _is_another(row.values, name)]:
            raise row.broken(f"has an instruction and a {layout_of_others[0]}", "Which of them is asked is not known.")
        return replace(ALPACA, prompt=asked, query=None if asked == "input" else "input", response=answered or "output")
    if empty := [name for name in TURNS[:2] if name in row.values]:
        return _of_turns(empty[0], row.values[empty[0]])
    if set(row.values) & {"text", "content"} and len(row.values) < 3:
        raise row.broken(
            "is of no known format: it holds a text alone",
            f"What is asked and what is answered must stand in columns, or turns, of their own.{row.columns()}",
        )
    raise row.broken(
        "is of no known format",
        "It needs instruction with output (alpaca) or instances (Self-Instruct), conversations (LIMA, ShareGPT), messages "
        f"(OpenAI), prompt with completion, or question with answer.{row.columns()}",
    )


def request(values: Mapping[str, Any]) -> str | None:
    """The column with what is asked: instruction, or else the only one of the others.

    Raises:
        BrokenRowError: there are several, and they differ.
    """
    if "instruction" in values:
        return "instruction"
    names = [name for name in _REQUESTS if _has(values, name)]
    if len({str(values[name]) for name in names}) > 1:
        raise BrokenRowError(f"has a {names[0]} and a {names[1]}", "Which of them is asked is not known.")
    return names[0] if names else "input" if _has(values, "input") else None


def answer(values: Mapping[str, Any]) -> str | None:
    """The column with the answer; one that is there and empty where no other is.

    Raises:
        BrokenRowError: there are several, and they differ.
    """
    names = [name for name in _ANSWERS if _has(values, name)]
    if "instruction" in values:  # an `answer` beside the output of an alpaca row is a short form of it
        names = [name for name in names if name in _ANSWERS[:2]] or names
    if len({str(values[name]) for name in names}) > 1:
        raise BrokenRowError(f"has {names[0]} and {names[1]}", "Which of them is the answer is not known.")
    return next((name for name in (*names, *_ANSWERS) if name in values), None)


def the_answer(value: object) -> object:
    """An answer out of a list, as reading tests hold several that are right; any other value as it is."""
    given = value.get("text") if isinstance(value, Mapping) else value
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        return value
    if len(set(given)) > 1:
        raise BrokenRowError("has several answers", "Which of them is to be learnt is not known.")
    return given[0] if given else None


def as_turns(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row whose prompt or completion is a list of turns (TRL), as one conversation; any other row as it is."""
    asked, said = values.get("prompt"), values.get("completion")
    if not (_are_turns(asked) and said) and not (_are_turns(said) and asked):
        return values
    before = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    after = said if isinstance(said, list) else [{"role": "assistant", "content": said}]
    rest = {name: value for name, value in values.items() if name not in ("prompt", "completion")}
    if rest.get("messages"):
        raise BrokenRowError("has messages beside its prompt and completion", "Which of them is meant is not known.")
    return {**rest, "messages": [*before, *after]}


def _are_turns(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def _has(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name)
    return bool(value.strip()) if isinstance(value, str) else value not in (None, [], {})


def _turns(row: Row) -> list[str]:
    """The columns with turns; one of the rarer names only where it holds a list."""
    return [name for name in TURNS if row.values.get(name) and (name in TURNS[:2] or isinstance(row.values[name], list))]


def _of_turns(column: str, turns: object) -> Layout:
    first = turns[0] if isinstance(turns, list) and turns else None
    has_roles = isinstance(first, dict) and "role" in first
    named = has_roles or (column == "messages" and not (isinstance(first, dict) and "from" in first))
    return replace(OPENAI if named else SHAREGPT, messages=column)


def _is_another(values: Mapping[str, Any], name: str) -> bool:
    """Whether a column asks something else than the instruction: neither is part of the other."""
    given, instruction = values.get(name), values.get("instruction")
    if not isinstance(given, str) or not given.strip() or not isinstance(instruction, str):
        return False
    return instruction.strip() not in given and given.strip() not in f"{instruction}\n{values.get('input')}"


def _check_one_meaning(row: Row, forms: list[str]) -> None:
    """Refuses a row that says two things in the columns of two formats; one that is empty, or the same, says nothing else."""
    if len(forms) > 1 and any(row.values[name] != row.values[forms[0]] for name in forms):
        raise row.broken(f"has {forms[0]} and {forms[1]}", "Which of them is meant is not known.")
    output, response = row.values.get("output"), row.values.get("response")
    if output and response and output != response and not forms:
        raise row.broken("has an output and a response", "Which of them is the answer is not known.")
    if forms and row.values.get("context"):
        raise row.broken(f"has a context beside its {forms[0]}", "Where it belongs in the conversation is not known.")
    if forms and row.values.get("instruction") and output:
        turns = row.values[forms[0]]
        said = list(turns[-1].values()) if isinstance(turns, list) and turns and isinstance(turns[-1], dict) else turns
        if output not in (said or ()):
            raise row.broken(f"has an instruction with output beside its {forms[0]}", "Which of them is meant is not known.")
