"""Prompts of several turns, as rows of an evaluation set or as MT-Bench and Arena-Hard publish them.

    {"turns": ["…", "…"]}                                 ours, and MT-Bench's question.jsonl
    {"turns": [{"content": "…"}]}  {"prompt": "…"}        Arena-Hard v0.1 and v2
    {"prompt": ["…", "…"], "reference": ["…", "…"]}       MT-Bench on the hub
A row with an `instruction` is none of these. One turn makes an ordinary prompt.
"""

from collections.abc import Mapping
from typing import Any

from minilima.formats.broken import BrokenRowError
from minilima.formats.records import EvalPrompt, shown_turns
from minilima.formats.tasks import UNSEEN

ID_COLUMNS = ("id", "question_id", "prompt_id", "uid")
"""Where such files have the id, ours first."""
_TURNS, _REFERENCES = ("turns", "prompt"), ("references", "reference")


def is_conversation(row: Mapping[str, Any]) -> bool:
    """Whether the row says its prompt turn by turn."""
    return row.get("instruction") is None and (row.get("turns") is not None or isinstance(row.get("prompt"), list))


def is_named_otherwise(row: Mapping[str, Any]) -> bool:
    """Whether the row has a benchmark's name for its prompt, so that its id and its reference answer may have one too."""
    return row.get("instruction") is None and any(row.get(name) is not None for name in _TURNS)


def conversation(identity: str, row: Mapping[str, Any], **shared: Any) -> EvalPrompt:
    """The prompt of such a row; `shared` are further fields of it.

    Raises:
        BrokenRowError: a turn or a reference answer is no text, or there are more references than turns.
    """
    if carried := [name for name in (*UNSEEN, "input", "context") if row.get(name)]:
        raise BrokenRowError(
            f"has the column {carried[0]}, which is not understood here", "Without it the model would be asked something else."
        )
    turns = _texts(row, next(name for name in _TURNS if row.get(name) is not None))
    if not turns or not all(text.strip() for text in turns):
        raise BrokenRowError("has an empty turn", "Each turn is what the user says next; leave the row out if there is nothing.")
    name = next((name for name in _REFERENCES if row.get(name)), None)
    references = _texts(row, name) if name is not None else []
    if len(references) > len(turns):
        raise BrokenRowError(f"has {len(references)} {name} and {len(turns)} turns", "There is one reference answer a turn.")
    if len(turns) == 1:
        output = row.get("output") or (references[0] if references else None)
        if not isinstance(output, str | None):
            raise BrokenRowError("has no proper output", "It must be a text, or left out.")
        return EvalPrompt(id=identity, instruction=turns[0], output=output or None, **shared)
    return EvalPrompt(id=identity, instruction=shown_turns(turns), turns=tuple(turns), references=tuple(references), **shared)


def reference_of(row: Mapping[str, Any]) -> str | None:
    """The reference answer of a row of one turn under a benchmark's name for it.

    Raises:
        BrokenRowError: it is no text, or there are several.
    """
    name = next((name for name in _REFERENCES if row.get(name)), None) if is_named_otherwise(row) else None
    if name is None:
        return None
    references = _texts(row, name)
    if len(references) > 1:
        raise BrokenRowError(f"has {len(references)} {name} and 1 turns", "There is one reference answer a turn.")
    return references[0] or None


def criteria_of(row: Mapping[str, Any]) -> str | None:
    """What a judge with a rubric is to look for in the answer to this prompt: a text, or a list of them.

    Raises:
        BrokenRowError: they are neither.
    """
    criteria = row.get("criteria")
    if isinstance(criteria, list) and all(isinstance(item, str) for item in criteria):
        return "\n".join(f"- {item}" for item in criteria) or None
    if not isinstance(criteria, str | None):
        raise BrokenRowError("has no proper criteria", "They must be a text or a list of texts, or be left out.")
    return criteria or None


def _texts(row: Mapping[str, Any], name: str) -> list[str]:
    """The texts of a column: a list of texts or of {"content": text}, or one text."""
    value = row[name]
    items = [item.get("content") if isinstance(item, Mapping) else item for item in value] if isinstance(value, list) else [value]
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) < len(items):
        raise BrokenRowError(f"has no proper {name}", "It must be a list of texts, one a turn.")
    return texts
