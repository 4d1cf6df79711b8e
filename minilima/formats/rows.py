"""Reads one row of a data set: a task with its answer, a task with instances, or a conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minilima.formats.layouts import ALPACA, CONTENT_TAGS, OPENAI, PAIRS, ROLE_TAGS, the_answer
from minilima.formats.llamafactory import Layout
from minilima.formats.meaning import SYSTEMS, check_keys, check_options, left_out
from minilima.formats.records import Example, Rejected
from minilima.formats.row import Row
from minilima.formats.tasks import without_mark

UNANSWERED = "unanswered"
"""Reason for rejecting a prompt at the end of a conversation."""
EMPTY = "empty_output"
"""Reason for rejecting a prompt whose answer is empty."""
_OTHER_NAMES: dict[str | None, str] = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "ai", "bot", "chatbot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
"""Roles of ShareGPT, OpenAI and others, which data sets such as BELLE's mix; in any case of letters."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """A turn: who speaks, what, and whether it is to be learnt (None: nothing says so)."""

    role: str
    text: str
    trained: str | None = None
    """Reason for not learning it: `weight_0` or `train_false`."""


def worked(row: Row) -> tuple[list[Example], list[Rejected]]:
    """The examples with answers of a task in Self-Instruct's own format, an example each."""
    instances = row.values["instances"]
    if not isinstance(instances, list) or not instances or not all(isinstance(one, dict) for one in instances):
        raise row.broken("has no proper instances", "They must be a list of objects with input and output.")
    examples, rejected = [], []
    for number, one in enumerate(instances, start=1):
        task = {**{name: row.values.get(name) for name in ("instruction", *SYSTEMS)}, **one}
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
    answer = the_answer(row.values.get(response))
    check_options(row.values, f"{instruction}\n{given or context}")
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
    if not named and all(_halves(turn) for turn in turns):
        turns, layout = [part for turn in turns for part in _parted(turn)], replace(OPENAI, messages=layout.messages)
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


def _halves(turn: object) -> tuple[str, str] | None:
    """The names of what is asked and what is answered in a turn that holds both."""
    if not isinstance(turn, Mapping) or any(tag in turn for tag in ROLE_TAGS):
        return None
    return next((pair for pair in PAIRS if all(name in turn for name in pair)), None)


def _parted(turn: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A turn that holds what is asked and what is answered, as two, and its system message before; other keys stay with both."""
    asked, answered = _halves(turn) or PAIRS[0]
    rest = {name: value for name, value in turn.items() if name not in (asked, answered, "system")}
    said = (("system", turn.get("system")), ("user", turn[asked]), ("assistant", turn[answered]))
    return [{**rest, "role": role, "content": text} for role, text in said if role != "system" or text]


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
    role, content = (_tagged(turn, tag, () if named else tags) for tag, tags in _tags(layout))
    known: dict[str | None, str] = roles if named else {**_OTHER_NAMES, **roles}
    said = role if named or not isinstance(role, str) else role.lower()
    if not isinstance(said, str) or said not in known:
        raise row.broken(
            f"has the {layout.role_tag} {role!r} in turn {number}",
            f"The roles are: {', '.join(tag for tag in roles if tag)}. Tools are not understood.",
        )
    check_keys(turn, f" in turn {number}")
    text = _spoken(row, _joined(row, content, number), known[said], number, last=last)
    return Said(role=known[said], text=text, trained=left_out(turn, turn=True))


def _tags(layout: Layout) -> tuple[tuple[str | None, tuple[str, ...]], tuple[str | None, tuple[str, ...]]]:
    return ((layout.role_tag, ROLE_TAGS), (layout.content_tag, CONTENT_TAGS))


def _tagged(turn: Mapping[str, Any], tag: str | None, others: Sequence[str]) -> object:
    """The value under a tag, or under another name of it where the tag is not there."""
    return turn.get(next((name for name in (str(tag), *others) if name in turn), str(tag)))


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
