"""Reads data sets that exist: alpaca, Self-Instruct, LIMA, ShareGPT, OpenAI, and entries of LLaMA-Factory's dataset_info.json.

    file ─> rows ─> the row's layout (named by an entry, or told by its columns) ─> turns ─> examples
                                                                                       └─> rejected: prompts without an answer
A broken row stops the import and is named: a data set that silently shrinks is not the one that was asked for.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.formats.files import read_rows
from minilima.formats.llamafactory import Layout
from minilima.formats.records import Example, Rejected

ALPACA = Layout(history="history", system="system")
SHAREGPT = Layout(formatting="sharegpt", system="system")
OPENAI = replace(
    SHAREGPT, messages="messages", role_tag="role", content_tag="content", user_tag="user", assistant_tag="assistant"
)

UNANSWERED = "unanswered"
"""Reason for leaving out a prompt at the end of a conversation."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The examples of a file, and the prompts in it that nobody answers."""

    examples: list[Example]
    rejected: list[Rejected]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A row with its place, for errors that name it."""

    path: Path
    number: int
    values: dict[str, Any]

    def broken(self, what: str, why: str) -> MinilimaError:
        begin = json.dumps(self.values, ensure_ascii=True)[:80]
        return MinilimaError(f"Row {self.number} of {self.path} {what}.", why, f"Mend that row; it begins: {begin}")

    def text(self, value: object, what: str) -> str:
        """`value`, if it is a text with something in it that can be written as UTF-8."""
        if not isinstance(value, str) or not value.strip():
            raise self.broken(f"has no proper {what}", "It must be a text that is not empty.")
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise self.broken(f"has half a character in its {what}", "A \\ud8…-escape stands there without its second half.")
        return value

    def optional(self, column: str | None) -> str | None:
        """The text of a column that may be missing, null or blank."""
        value = self.values.get(column) if column else None
        return None if value is None or (isinstance(value, str) and not value.strip()) else self.text(value, str(column))


def read_file(path: Path, layout: Layout | None = None) -> Imported:
    """The examples of a JSON or JSONL file.

    Args:
        path: the file.
        layout: where the rows keep their parts; None: each row's columns tell.

    Raises:
        MinilimaError: a row is broken and named, or no example is in the file.
    """
    examples: list[Example] = []
    rejected: list[Rejected] = []
    for number, values in enumerate(_rows(path), start=1):
        if not isinstance(values, dict):
            raise _Row(path=path, number=number, values={"": values}).broken("is not an object", "Each row needs named columns.")
        row = _Row(path=path, number=number, values=values)
        if layout is None and "instances" in values and "output" not in values:
            examples += _worked(row)
            continue
        chosen = layout or _recognised(row)
        example, unanswered = _alpaca(row, chosen) if chosen.formatting == "alpaca" else _conversation(row, chosen)
        examples += [example] if example else []
        rejected += [Rejected(id=f"row{number}", text=unanswered, reason=UNANSWERED)] if unanswered else []
    if not examples:
        why = f"None of its {len(rejected):,} prompts has an answer." if rejected else "The file is empty."
        raise MinilimaError(f"{path} holds no example.", why, "Give another file with data.path=…")
    return Imported(examples=examples, rejected=rejected)


def read_tasks(path: Path) -> list[tuple[str, str, str]]:
    """(id, instruction, input) of each row of a file with tasks to be answered; what else is in a row is not looked at.

    Raises:
        MinilimaError: a row has no proper instruction or input and is named, or the file is empty.
    """
    tasks = []
    for number, values in enumerate(_rows(path), start=1):
        named = values if isinstance(values, dict) else {"": values}
        row = _Row(path=path, number=number, values=named)
        tasks.append((f"row{number}", row.text(named.get("instruction"), "instruction"), row.optional("input") or ""))
    if not tasks:
        raise MinilimaError(f"{path} holds no task.", "The file is empty.", "Give another file with data.path=…")
    return tasks


def _rows(path: Path) -> Sequence[object]:
    try:
        return read_rows(path)
    except UnicodeDecodeError as error:
        raise MinilimaError(
            f"{path} is not a text in UTF-8.",
            f"The byte at position {error.start:,} does not fit; imports are JSON or JSONL.",
            "Convert the file (iconv -f latin1 -t utf8 is often right) and give the new one.",
        ) from None


def _recognised(row: _Row) -> Layout:
    """The layout that a row's columns tell."""
    if "messages" in row.values:
        return OPENAI
    if "conversations" in row.values:
        return SHAREGPT
    if "instruction" in row.values:
        return ALPACA
    raise row.broken(
        "is of no known format",
        "It needs instruction with output (alpaca) or instances (Self-Instruct), conversations (LIMA, ShareGPT) or messages "
        "(OpenAI); other columns need an entry in a dataset_info.json.",
    )


def _worked(row: _Row) -> list[Example]:
    """The examples with answers of a task in Self-Instruct's own format, an example each."""
    instances = row.values["instances"]
    if not isinstance(instances, list) or not instances or not all(isinstance(one, dict) for one in instances):
        raise row.broken("has no proper instances", "They must be a list of objects with input and output.")
    return [
        Example(
            id=f"row{row.number}" + (f".{place}" if place > 1 else ""),
            instruction=row.text(row.values.get("instruction"), "instruction"),
            input=replace(row, values=one).optional("input") or "",
            output=row.text(one.get("output"), "output"),
            source="file",
        )
        for place, one in enumerate(instances, start=1)
    ]


def _alpaca(row: _Row, layout: Layout) -> tuple[Example, None]:
    history = row.values.get(layout.history) if layout.history else None
    if history is not None and not (isinstance(history, list) and all(isinstance(turn, list | tuple) for turn in history)):
        raise row.broken(f"has no proper {layout.history}", "It must be a list of [prompt, answer] pairs.")
    if any(len(turn) != 2 for turn in history or ()):
        raise row.broken(f"has an uneven turn in its {layout.history}", "It must be a list of [prompt, answer] pairs.")
    example = Example(
        id=f"row{row.number}",
        instruction=row.text(row.values.get(str(layout.prompt)), "instruction"),
        input=row.optional(layout.query) or "",
        output=row.text(row.values.get(str(layout.response)), "output"),
        source="file",
        history=tuple((row.text(user, "history"), row.text(answer, "history")) for user, answer in history or ()),
        system=row.optional(layout.system),
    )
    return example, None


def _conversation(row: _Row, layout: Layout) -> tuple[Example | None, str | None]:
    """The example in a list of turns (None: no turn is answered), and the prompt at its end that has no answer."""
    turns = row.values.get(str(layout.messages))
    if not isinstance(turns, list) or not turns:
        raise row.broken(f"has no proper {layout.messages}", "It must be a list with at least one turn.")
    said = [_turn(row, layout, turn, place) for place, turn in enumerate(turns, start=1)]
    system = said.pop(0)[1] if said[0][0] == "system" else row.optional(layout.system)
    for place, (role, _) in enumerate(said):
        if role != (expected := ("user", "assistant")[place % 2]):
            number = place + 1 + len(turns) - len(said)
            raise row.broken(
                f"has the {role} speak in turn {number}, where the {expected} should",
                "A system message may come first; then user and assistant alternate, and the user begins.",
            )
    texts = [text for _, text in said]
    unanswered = texts.pop() if len(texts) % 2 else None
    if not texts:
        if unanswered is None:
            raise row.broken("has a system message only", "A conversation needs a user and an assistant.")
        return None, unanswered
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
    return example, unanswered


def _turn(row: _Row, layout: Layout, turn: object, place: int) -> tuple[str, str]:
    """Role (user, assistant or system) and text of a turn."""
    if isinstance(turn, str):  # LIMA's files hold texts alone, the user's first
        return ("user", "assistant")[(place - 1) % 2], row.text(turn, f"turn {place}")
    if not isinstance(turn, dict):
        raise row.broken(f"has no proper turn {place}", f"It must be an object with {layout.role_tag} and {layout.content_tag}.")
    roles = {layout.user_tag: "user", layout.assistant_tag: "assistant", layout.system_tag: "system"}
    role = turn.get(str(layout.role_tag))
    if not isinstance(role, str) or role not in roles:
        known = ", ".join(tag for tag in roles if tag)
        raise row.broken(
            f"has the {layout.role_tag} {role!r} in turn {place}", f"The roles are: {known}. Tools are not understood."
        )
    return roles[role], row.text(turn.get(str(layout.content_tag)), f"turn {place}")
