"""Preference data as examples: the chosen side where it is asked for, and answers that people marked as bad rejected."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilima.formats.llamafactory import Layout
from minilima.formats.meaning import truth
from minilima.formats.row import Row

_ENDS = ("", "_response", "_answer", "_output", "_messages")
BETTER = (*(f"chosen{end}" for end in _ENDS), "preferred_output")
WORSE = (*(f"rejected{end}" for end in _ENDS), "non_preferred_output")
BAD = "label_false"
"""Reason for rejecting an answer that is marked as a bad one (KTO)."""


def is_bad(row: Row, layout: Layout) -> bool:
    """Whether the row's answer is one that should not be learnt."""
    if layout.kto_tag is not None:
        return not truth(layout.kto_tag, row.values.get(layout.kto_tag))
    label = row.values.get("label")
    if layout.response == "completion" and label is not None:  # TRL's names, under which it is nothing else
        return not truth("label", label)
    # Without an entry only a plain false: numbers may be classes.
    return label is False or (isinstance(label, str) and label.lower() == "false")


def has_sides(row: Row, layout: Layout | None) -> bool:
    """Whether the row holds two answers of which one is the better."""
    return (layout is not None and layout.chosen is not None) or any(
        row.values.get(name) not in (None, "", []) for name in (*BETTER, *WORSE)
    )


def chosen_side(row: Row, layout: Layout | None) -> tuple[Row, Layout | None]:
    """The row with its better answer as the only one, and the layout in which it now is."""
    named = layout is not None and layout.chosen is not None
    column = layout.chosen if layout is not None and named else next((name for name in BETTER if row.values.get(name)), None)
    other = {layout.rejected} if layout is not None and named else {name for name in WORSE if name in row.values}
    if column is None:  # the answer itself is the better one
        return replace(row, values={name: value for name, value in row.values.items() if name not in other}), layout
    better = row.values.get(column)
    if isinstance(better, Mapping):
        better = [better]
    values = {name: value for name, value in row.values.items() if name not in (column, *other)}
    if not isinstance(better, str | list) or not better:
        raise row.broken(f"has no proper {column}", "It must be a text, a turn or a list of turns.")
    messages = layout.messages if layout is not None and layout.formatting != "alpaca" else None
    messages = messages or next((name for name in ("messages", "conversations") if name in values), None)
    if messages is not None and isinstance(values.get(messages), list):
        turn = [better] if isinstance(better, str) else better
        return replace(row, values={**values, messages: _joined(values[messages], turn)}), layout
    if isinstance(better, str):
        return _with_answer(row, values, better, layout)
    begun = values.pop("prompt", None) or values.pop("instruction", None)
    role = "role" in better[0] if isinstance(better[0], Mapping) else False
    tags = ("role", "content", "user") if role else ("from", "value", "human")
    before = [{tags[0]: tags[2], tags[1]: begun}] if isinstance(begun, str) else begun or []
    return replace(row, values={**values, "messages" if role else "conversations": _joined(before, better)}), None


def _joined(before: list[Any], better: list[Any]) -> list[Any]:
    """The turns of both; where the chosen side repeats what went before, they stand once."""
    return better if better[: len(before)] == before else [*before, *better]


def _with_answer(row: Row, values: dict[str, Any], better: str, layout: Layout | None) -> tuple[Row, Layout | None]:
    if layout is not None:
        layout = replace(layout, response=layout.response or "output")
        return replace(row, values={**values, str(layout.response): better}), layout
    if values.get("output") is not None:
        raise row.broken("has both an output and a chosen answer", "Which of them is meant is not known.")
    if isinstance(begun := values.get("prompt"), list):
        return chosen_side(replace(row, values={**values, "chosen": [_turn_like(begun, better)]}), layout)
    return replace(row, values={**values, "output": better}), None


def _turn_like(before: list[Any], text: str) -> dict[str, str]:
    role = bool(before) and isinstance(before[0], Mapping) and "role" in before[0]
    return {"role": "assistant", "content": text} if role else {"from": "gpt", "value": text}
