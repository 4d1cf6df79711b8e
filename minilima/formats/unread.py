"""Names the columns of a file, and the keys of its turns, that play no part in what is made of it: a plan shows them once."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from minilima.formats.benchmark_prompts import ID_COLUMNS
from minilima.formats.broken import BrokenRowError
from minilima.formats.imports import Reading, numbered, renamed
from minilima.formats.layouts import ALPACA, CONTENT_TAGS, PAIRS, ROLE_TAGS, answer, as_turns, recognised, request
from minilima.formats.llamafactory import Layout
from minilima.formats.meaning import SYSTEMS, honoured
from minilima.formats.oasst import holds_trees
from minilima.formats.preferred import BETTER, WORSE, chosen_side, has_sides
from minilima.formats.row import Row

_PROMPT = {"input", "context", "instances", "category", "dataset", "criteria", "turns", "references", "reference", *ID_COLUMNS}
_TASK = {"input", "context", "instances", "id"}


def unused_by_tasks(path: Path, reading: Reading) -> list[str]:
    """Those that play no part in what is asked; an answer that is there is one of them."""
    return _named(path, reading, lambda values: {*_TASK, request(values) or "instruction"})


def unused_by_prompts(path: Path) -> list[str]:
    """Those of an evaluation set that are neither asked nor a reference answer."""
    return _named(
        path,
        Reading(),
        lambda values: {*_PROMPT, request(values) or "instruction", answer(values) or "output"},
    )


def unused_by_examples(path: Path, layout: Layout | None, reading: Reading) -> list[str]:
    """Those of a file of examples that are neither asked nor answered."""

    def used(values: Mapping[str, Any]) -> set[str]:
        if holds_trees([values]):
            return set(values)
        row, here = Row(number=0, values=values), layout
        if has_sides(row, layout):
            row, here = chosen_side(row, layout)
        said = row.values if layout else as_turns(row.values)
        here = here or (ALPACA if "instances" in said else recognised(Row(number=0, values=said)))
        return {*_columns(said, here, listed=layout is not None), *(set(values) - set(said)), *(set(said) - set(values))}

    return _named(path, reading, used, turns=layout.messages if layout else None)


def _named(path: Path, reading: Reading, used: Callable[[Mapping[str, Any]], set[str]], turns: str | None = None) -> list[str]:
    names: dict[str, None] = {}
    for row, values in numbered(path):
        with suppress(BrokenRowError):  # said where they are read
            here = renamed(row, values, reading).values
            known = used(here)
            names |= dict.fromkeys(str(name) for name, value in here.items() if name not in known and value not in (None, "", []))
            names |= dict.fromkeys(_keys_of_turns(here, known, turns))
    return list(names)


def _columns(values: Mapping[str, Any], layout: Layout, *, listed: bool) -> set[str]:
    parts = (layout.system, layout.kto_tag, layout.chosen, layout.rejected)
    of_form = (
        (layout.messages,) if layout.formatting != "alpaca" else (layout.prompt, layout.query, layout.response, layout.history)
    )
    used = {"id", *honoured(values, turn=False), *(name for name in (*parts, *of_form) if name)}
    if listed:
        return used
    label = {"label"} if isinstance(values.get("label"), bool) or layout.response == "completion" else set()
    return used | {*SYSTEMS, *BETTER, *WORSE, "instances", "context", *label}


def _keys_of_turns(values: Mapping[str, Any], used: set[str], turns: str | None) -> list[str]:
    """Keys that turns have beside who speaks and what, each with its column."""
    known = {*ROLE_TAGS, *CONTENT_TAGS, *(name for pair in PAIRS for name in pair), "system"}
    return [
        f"{key} in {column}"
        for column, listed in values.items()
        if column in used and column not in ("instances", turns) and isinstance(listed, list)
        for turn in listed
        if isinstance(turn, Mapping)
        for key, value in turn.items()
        if key not in known and value not in (None, "", []) and key not in honoured(turn, turn=True)
    ]
