"""Reads one row of a data set: a task with its answer, a task with instances, or a conversation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minilima.formats.broken import BrokenRowError
from minilima.formats.llamafactory import Layout
from minilima.formats.records import Example, Rejected
from minilima.formats.tasks import without_mark

ALPACA = Layout(history="history", system="system")
SHAREGPT = Layout(formatting="sharegpt", system="system")
OPENAI = replace(
    SHAREGPT, messages="messages", role_tag="role", content_tag="content", user_tag="user", assistant_tag="assistant"
)

UNANSWERED = "unanswered"
"""Reason for rejecting a prompt at the end of a conversation."""
EMPTY = "empty_output"
"""Reason for rejecting a prompt whose answer is empty."""
_OTHER_NAMES: dict[str | None, str] = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "assistant": "assistant", "system": "system", "developer": "system",
}  # fmt: skip
"""Roles of ShareGPT and OpenAI, which data sets such as BELLE's mix."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """A turn: who speaks, what, and whether it is to be learnt (None: nothing says so)."""

    role: str
    text: str
    trained: str | None = None
    """Reason for not learning it: `weight_0` or `train_false`."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row with its number, for errors that name it."""

    number: int
    values: Mapping[str, Any]
    line: str | None = None
    """The line as it stands where no row can be read in it."""

    def broken(self, what: str, why: str) -> BrokenRowError:
        return BrokenRowError(what, why)

    def text(self, value: object, what: str) -> str:
        """`value`, if it is a text with something in it that can be written as UTF-8."""
        if not isinstance(value, str) or not value.strip():
            raise self.broken(f"has no proper {what}", f"It must be a text that is not empty.{self.columns()}")
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise self.broken(f"has half a character in its {what}", "A \\ud8…-escape stands there without its second half.")
        if "<image>" in value:
            raise self.broken(f"has the mark <image> in its {what}", "A text model does not see pictures.")
        return value

    def columns(self) -> str:
        """The names that are there, to be shown where one is missing."""
        names = ", ".join(map(str, self.values))
        return f" Its columns: {names}; say which is which with data.columns.instruction=NAME." if names else ""

    def optional(self, column: str | None) -> str | None:
        """The text of a column that may be missing, null or blank."""
        value = self.values.get(column) if column else None
        return None if value is None or (isinstance(value, str) and not value.strip()) else self.text(value, str(column))

    def system(self, column: str | None) -> str | None:
        """The system message of a row; OpenOrca and others call it system_prompt."""
        system, prompt = self.optional(column), self.optional("system_prompt") if column in (None, "system") else None
        if system and prompt and system != prompt:
            raise self.broken("has two system messages", "They stand in system and system_prompt.")
        return system or prompt

    def begin(self) -> str:
        """How the row begins, for messages."""
        return (self.line if self.line is not None else json.dumps(self.values, ensure_ascii=True, default=str))[:80]

    def rejected(self, text: str, reason: str, output: str | None = None) -> Rejected:
        return Rejected(id=f"row{self.number}", text=text, reason=reason, output=output)


def recognised(row: Row) -> Layout:
    """The layout that follows from a row's columns."""
    _check_one_meaning(row)
    for column in ("messages", "conversations"):
        if column in row.values and (row.values[column] or "instruction" not in row.values):
            turns = row.values[column]
            has_roles = isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict) and "role" in turns[0]
            named = has_roles or (column == "messages" and not (isinstance(turns, list) and turns and "from" in turns[0]))
            return replace(OPENAI if named else SHAREGPT, messages=column)
    if "instruction" in row.values:
        layout = ALPACA
        if "output" not in row.values and "response" in row.values:  # Dolly's names
            layout = replace(layout, response="response")
        return layout
    raise row.broken(
        "is of no known format",
        "It needs instruction with output (alpaca) or instances (Self-Instruct), conversations (LIMA, ShareGPT) or messages "
        f"(OpenAI).{row.columns()}",
    )


def _check_one_meaning(row: Row) -> None:
    """Refuses a row that says two things in the columns of two formats; one that is empty, or the same, says nothing else."""
    forms = [name for name in ("messages", "conversations") if row.values.get(name)]
    if len(forms) == 2 and row.values["messages"] != row.values["conversations"]:
        raise row.broken("has messages and conversations", "Which of them is meant is not known.")
    output, response = row.values.get("output"), row.values.get("response")
    if output and response and output != response and not forms:
        raise row.broken("has an output and a response", "Which of them is the answer is not known.")
    if forms and row.values.get("instruction") and output:
        turns = row.values[forms[0]]
        said = list(turns[-1].values()) if isinstance(turns, list) and turns and isinstance(turns[-1], dict) else turns
        if output not in (said or ()):
            raise row.broken(f"has an instruction with output beside its {forms[0]}", "Which of them is meant is not known.")


def worked(row: Row) -> tuple[list[Example], list[Rejected]]:
    """The examples with answers of a task in Self-Instruct's own format, an example each."""
    instances = row.values["instances"]
    if not isinstance(instances, list) or not instances or not all(isinstance(one, dict) for one in instances):
        raise row.broken("has no proper instances", "They must be a list of objects with input and output.")
    examples, rejected = [], []
    for number, one in enumerate(instances, start=1):
        task = {**{name: row.values.get(name) for name in ("instruction", "system", "system_prompt")}, **one}
        made, left = alpaca(replace(row, values=task), ALPACA)
        end = f".{number}" if number > 1 else ""
        examples += [replace(example, id=example.id + end) for example in made]
        rejected += [replace(item, id=item.id + end) for item in left]
    return examples, rejected


def alpaca(row: Row, layout: Layout) -> tuple[list[Example], list[Rejected]]:
    """The example of a row with a column for each part."""
    history = row.values.get(layout.history) if layout.history else None
    if history is not None and not (isinstance(history, list) and all(isinstance(turn, list | tuple) for turn in history)):
        raise row.broken(f"has no proper {layout.history}", "It must be a list of [prompt, answer] pairs.")
    if any(len(turn) != 2 for turn in history or ()):
        raise row.broken(f"has an uneven turn in its {layout.history}", "It must be a list of [prompt, answer] pairs.")
    instruction = row.text(row.values.get(str(layout.prompt)), "instruction")
    given = without_mark(row.optional(layout.query) or "")
    context = row.optional("context") if layout.query == "input" else None
    if given and context:
        raise row.broken("has both an input and a context", "Which of them is part of the task is not known.")
    response = str(layout.response)
    answer = row.values.get(response)
    if response in row.values and (answer is None or (isinstance(answer, str) and not answer.strip())):
        return [], [row.rejected(instruction, EMPTY)]
    example = Example(
        id=f"row{row.number}",
        instruction=instruction,
        input=given or context or "",
        output=row.text(answer, "output"),
        source="file",
        history=tuple((row.text(user, "history"), row.text(answer, "history")) for user, answer in history or ()),
        system=row.system(layout.system),
    )
    return [example], []


def conversation(row: Row, layout: Layout, *, named: bool) -> tuple[list[Example], list[Rejected]]:
    """The example in a list of turns, and the prompts at its end that have no answer to learn.

    Args:
        row: the row.
        layout: where the turns are.
        named: whether an entry of a dataset_info.json gave the layout, so that other names of roles are not known.
    """
    turns = row.values.get(str(layout.messages))
    if not isinstance(turns, list) or not turns:
        raise row.broken(f"has no proper {layout.messages}", "It must be a list with at least one turn.")
    said = [
        _turn(row, layout, turn, number, last=number == len(turns), named=named) for number, turn in enumerate(turns, start=1)
    ]
    system = row.system(layout.system)
    if said[0].role == "system":
        opened = said.pop(0).text
        if system and opened and system != opened:
            raise row.broken("has two system messages", f"One is a turn, the other stands in {layout.system}.")
        system = opened or system
    _check_order(row, said, len(turns))
    return _dialogue(row, said, system)


def _check_order(row: Row, said: Sequence[Said], turns: int) -> None:
    for number, one in enumerate(said):
        if one.role != (expected := ("user", "assistant")[number % 2]):
            raise row.broken(
                f"has the {one.role} speak in turn {number + 1 + turns - len(said)}, where the {expected} should",
                "A system message may come first; then user and assistant alternate, and the user begins.",
            )
    if not said:
        raise row.broken("has a system message only", "A conversation needs a user and an assistant.")


def _dialogue(row: Row, said: list[Said], system: str | None) -> tuple[list[Example], list[Rejected]]:
    rejected = [row.rejected(said.pop().text, UNANSWERED)] if len(said) % 2 else []
    while said and (reason := EMPTY if not said[-1].text else said[-1].trained):
        answer, asked = said.pop(), said.pop()
        rejected.insert(0, row.rejected(asked.text, reason, answer.text or None))
    if any(one.trained and one.role == "assistant" for one in said):
        raise row.broken(
            "has an answer that is not to be learnt, with one after it that is", "Every answer of a conversation is learnt."
        )
    if not said:
        return [], rejected
    texts = [one.text for one in said]
    *history, (instruction, output) = zip(texts[::2], texts[1::2], strict=True)
    example = Example(
        id=f"row{row.number}",
        instruction=instruction,
        input="",
        output=output,
        source="file",
        history=tuple(history),
        system=system,
    )
    return [example], rejected


def _turn(row: Row, layout: Layout, turn: object, number: int, *, last: bool, named: bool) -> Said:
    if isinstance(turn, str):  # LIMA's files hold texts alone, the user's first
        speaker = ("user", "assistant")[(number - 1) % 2]
        return Said(role=speaker, text=_spoken(row, turn, speaker, number, last=last))
    if not isinstance(turn, dict):
        raise row.broken(f"has no proper turn {number}", f"It must be an object with {layout.role_tag} and {layout.content_tag}.")
    roles: dict[str | None, str] = {layout.user_tag: "user", layout.assistant_tag: "assistant", layout.system_tag: "system"}
    role = turn.get(str(layout.role_tag))
    known: dict[str | None, str] = roles if named else {**_OTHER_NAMES, **roles}
    if not isinstance(role, str) or role not in known:
        raise row.broken(
            f"has the {layout.role_tag} {role!r} in turn {number}",
            f"The roles are: {', '.join(tag for tag in roles if tag)}. Tools are not understood.",
        )
    check_keys(row, turn, f" in turn {number}")
    text = _spoken(row, _joined(row, turn.get(str(layout.content_tag)), number), known[role], number, last=last)
    return Said(role=known[role], text=text, trained=left_out(row, turn))


def _joined(row: Row, content: object, number: int) -> object:
    """The text of a content that comes in parts, as OpenAI's may; any other content as it is."""
    if not isinstance(content, list) or not content or not all(isinstance(part, Mapping) for part in content):
        return content
    if others := [part.get("type") for part in content if part.get("type") != "text" or not isinstance(part.get("text"), str)]:
        raise row.broken(f"has a part of the type {others[0]!r} in turn {number}", "Only parts with text are understood.")
    return "".join(part["text"] for part in content)


def _spoken(row: Row, value: object, role: str, number: int, *, last: bool) -> str:
    """The text of a turn: a system message, and the answer at the end, may be empty."""
    if (role == "system" or (role == "assistant" and last)) and (value is None or (isinstance(value, str) and not value.strip())):
        return ""
    return row.text(value, f"turn {number}")


_NOT_UNDERSTOOD = {
    **dict.fromkeys(("image", "images", "audio", "audios", "video", "videos"), "A text model neither sees nor hears."),
    **dict.fromkeys(("tools", "functions", "tool_calls", "function_call"), "Calls of tools are not learnt here."),
    **dict.fromkeys(
        ("reasoning_content", "reasoning", "thinking"),
        "Thoughts before an answer are not learnt here.",
    ),
}


def check_keys(row: Row, values: Mapping[str, Any], where: str = "") -> None:
    """Refuses a key of a row or of a turn that changes what the row means, and that cannot be honoured."""
    for key, why in _NOT_UNDERSTOOD.items():
        if key in values and values[key] not in (None, "", [], {}, "[]", "{}"):
            raise row.broken(f"has {key}{where}, which is not understood", why)


def left_out(row: Row, values: Mapping[str, Any]) -> str | None:
    """Why a row or a turn says of itself that it is not to be learnt: weight 0 or train false."""
    for key, reason in (("weight", "weight_0"), ("train", "train_false")):
        learnt = truth(row, key, values[key]) if values.get(key) not in (None, "") else True
        if not learnt:
            return reason
    return None


def truth(row: Row, key: str, value: object) -> bool:
    """A yes or no, which tables without types hold as a text."""
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    if (said := known.get(str(value).lower())) is None:
        raise row.broken(f"has the {key} {value!r}", "Only 0 and 1, or true and false, are understood.")
    return said
