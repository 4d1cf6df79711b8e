"""Reads data sets that exist: alpaca, Self-Instruct, LIMA, ShareGPT, OpenAI, and entries of LLaMA-Factory's dataset_info.json.

    file ─> rows ─> the row's layout (named by an entry, or clear from its columns) ─> turns ─> examples
                                                                                       └─> rejected: what is not to be learnt
A broken row stops the import and is named: a data set that silently shrinks is not the one that was asked for.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from minilima.errors import MinilimaError
from minilima.formats.broken import BrokenRowError, as_object, broken_rows
from minilima.formats.layouts import TURNS, as_turns, recognised
from minilima.formats.llamafactory import Layout
from minilima.formats.meaning import LATER_REASONS, check_keys, left_out
from minilima.formats.oasst import conversations, holds_trees
from minilima.formats.preferred import BAD, chosen_side, has_sides, is_bad
from minilima.formats.records import Example, Rejected
from minilima.formats.row import Row
from minilima.formats.rows import UNANSWERED, alpaca, conversation, worked
from minilima.formats.tables import BrokenLine, scan_rows
from minilima.formats.tasks import read_row

_LISTS = (*TURNS, "history", "instances")
_TEXTS_OR_TURNS = ("prompt", "completion", "chosen", "rejected")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a table is read, as the user asked."""

    chosen: bool = False
    """Of preference data, the better answer."""
    reject: bool = False
    """Leave broken rows out, with their reasons, and go on."""
    columns: tuple[tuple[str, str], ...] = ()
    """(name here, the table's name) of columns."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The examples of a file, and the prompts in it that nobody answers or whose answer is not to be learnt."""

    examples: list[Example]
    rejected: list[Rejected]

    @property
    def as_before(self) -> bool:
        """Whether the second version of this reader would have given the same."""
        return all(item.reason == UNANSWERED for item in self.rejected)

    @property
    def is_new(self) -> bool:
        """Whether answers are left out that the third version learned."""
        return any(item.reason in LATER_REASONS for item in self.rejected)


def uses_context(path: Path) -> bool:
    """Whether rows have a context or a system_prompt, or tasks several parts, which earlier versions passed over."""
    rows = [row for row in scan_rows(path) if isinstance(row, dict)]
    return any(row.get("context") or row.get("system_prompt") or (row.get("instances") and "output" not in row) for row in rows)


@dataclass(frozen=True, kw_only=True)
class _Broken:
    """The broken rows of a file, to be named together or listed as rejected."""

    path: Path
    rows: list[tuple[Row, BrokenRowError]] = field(default_factory=list)

    def stop(self) -> None:
        """Raises what is to be said of them, if there are any."""
        if not self.rows:
            return
        fix = "Correct them, or leave out all such rows with data.on_bad_row=reject."
        if len(self.rows) == 1:
            begin = self.rows[0][0].begin()
            fix = f"Correct that row, or leave out all such rows with data.on_bad_row=reject; it begins: {begin}"
        raise broken_rows(self.path, [(row.number, broken) for row, broken in self.rows], unit="Row", fix=fix)

    def rejected(self) -> list[Rejected]:
        return [Rejected(id=f"row{row.number}", text=row.begin(), reason=broken.what) for row, broken in self.rows]


def read_file(path: Path, layout: Layout | None = None, reading: Reading | None = None) -> Imported:
    """The examples of a file.

    Args:
        path: the file.
        layout: where the rows keep their parts; None: it follows from the columns of each row.
        reading: what the user asked for.

    Raises:
        MinilimaError: rows are broken and named, or no example is in the file.
    """
    reading = reading or Reading()
    examples: list[Example] = []
    rows, rejected = _conversations(path, layout, reading)
    broken = _Broken(path=path)
    for row, values in rows:
        try:
            made, left = _examples(renamed(row, values, reading), layout, reading)
        except BrokenRowError as error:
            broken.rows.append((row, error))
            continue
        examples += made
        rejected += left
    if not reading.reject:
        broken.stop()
    rejected += broken.rejected()
    if not examples:
        reasons = ", ".join(dict.fromkeys(item.reason for item in rejected))
        why = f"None of its {len(rejected):,} prompts has an answer to learn: {reasons}." if rejected else "The file is empty."
        raise MinilimaError(f"{path} holds no example.", why, "Give another file with data.path=…")
    return Imported(examples=examples, rejected=rejected)


@dataclass(frozen=True, kw_only=True)
class GivenTasks:
    """(id, instruction, input) of the tasks of a file, and the rows that hold none where those are to be rejected."""

    tasks: list[tuple[str, str, str]]
    rejected: list[Rejected]


def read_tasks(path: Path, reading: Reading | None = None) -> GivenTasks:
    """The tasks of a file, to be answered; answers that are there are not looked at.

    Raises:
        MinilimaError: rows have no proper instruction or input and are named, or the file holds no task.
    """
    reading = reading or Reading()
    tasks: list[tuple[str, str, str]] = []
    broken = _Broken(path=path)
    for row, values in numbered(path):
        try:
            read = read_row(renamed(row, values, reading).values)
        except BrokenRowError as error:
            broken.rows.append((row, error))
            continue
        for number, task in enumerate(read, start=1):
            tasks.append((f"row{row.number}" + (f".{number}" if number > 1 else ""), task.instruction, task.input))
    if not reading.reject:
        broken.stop()
    if not tasks:
        why = f"None of its {len(broken.rows):,} rows holds a task." if broken.rows else "The file is empty."
        raise MinilimaError(f"{path} holds no task.", why, "Give another file with data.path=…")
    return GivenTasks(tasks=tasks, rejected=broken.rejected())


@dataclass(frozen=True, kw_only=True)
class GivenTexts:
    """(id, text) of the rows of a file, and the rows that hold none where those are to be rejected."""

    texts: list[tuple[str, str]]
    rejected: list[Rejected]


def read_texts(path: Path, reading: Reading | None = None) -> GivenTexts:
    """The texts of a file: its column `text`, or `output`, which data.columns.output renames.

    Raises:
        MinilimaError: rows have no text and are named, or the file holds none.
    """
    reading = reading or Reading()
    texts: list[tuple[str, str]] = []
    broken = _Broken(path=path)
    for row, values in numbered(path):
        try:
            named = renamed(row, values, reading).values
            text = named.get("output", named.get("text"))
            if not isinstance(text, str) or not text.strip():
                raise BrokenRowError("has no text", "It stands in the column text; data.columns.output=… names another.")
        except BrokenRowError as error:
            broken.rows.append((row, error))
            continue
        texts.append((f"row{row.number}", text.strip()))
    if not reading.reject:
        broken.stop()
    if not texts:
        raise MinilimaError(
            f"{path} holds no text.", "The file is empty, or no row is usable.", "Give another file with data.path=…"
        )
    return GivenTexts(texts=texts, rejected=broken.rejected())


def _conversations(path: Path, layout: Layout | None, reading: Reading) -> tuple[Sequence[tuple[Row, object]], list[Rejected]]:
    """The rows of a file; of trees of messages the best conversation of each, and what is beside it."""
    rows = scan_rows(path)
    if layout is not None or reading.columns or not holds_trees(rows):
        return [(_row(number, values), values) for number, values in enumerate(rows, start=1)], []
    made, rejected = conversations(rows)
    return [(_row(number, values), values) for number, values in made], rejected


def numbered(path: Path) -> Sequence[tuple[Row, object]]:
    """The rows of a file, each with what stands there."""
    return [(_row(number, values), values) for number, values in enumerate(scan_rows(path), start=1)]


def _row(number: int, values: object) -> Row:
    line = values.text if isinstance(values, BrokenLine) else None if isinstance(values, dict) else str(values)
    return Row(number=number, values=values if isinstance(values, dict) else {}, line=line)


def renamed(row: Row, values: object, reading: Reading) -> Row:
    """The row with the table's columns under the names that they have here.

    Raises:
        BrokenRowError: no row can be read in it, or it lacks a column that a setting names.
    """
    if isinstance(values, BrokenRowError):
        raise values
    values = as_object(values)
    here = {name: _parsed_cell(name, value) for name, value in values.items()}
    for name, column in reading.columns:
        if column not in values:
            there = ", ".join(map(str, values))
            raise BrokenRowError(f"has no column {column}", f"data.columns.{name} names it; those that are there: {there}.")
        here.pop(column, None)
    return replace(row, values={**here, **{name: values[column] for name, column in reading.columns}})


def _parsed_cell(name: str, value: object) -> object:
    """A list that a table without types holds as JSON; where it may be a text, only a list of turns."""
    if name in (*_LISTS, *_TEXTS_OR_TURNS) and isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            parsed = json.loads(value)
            return parsed if name in _LISTS or (parsed and all(isinstance(turn, dict) for turn in parsed)) else value
    return value


def _examples(row: Row, layout: Layout | None, reading: Reading) -> tuple[list[Example], list[Rejected]]:
    check_keys(row.values)
    if has_sides(row, layout):
        if not reading.chosen:
            raise BrokenRowError("holds a chosen and a rejected answer", "Import the better one of each with data.side=chosen.")
        row, layout = chosen_side(row, layout)
    if layout is None:
        row = replace(row, values=as_turns(row.values))
    if layout is None and "instances" in row.values and "output" not in row.values:
        made, left = worked(row)
    else:
        chosen = layout or recognised(row)
        if chosen.formatting == "alpaca":
            made, left = alpaca(row, chosen)
        else:
            if layout is None and row.values.get("history"):
                raise BrokenRowError("has a history beside its turns", "Which of them comes first is not known.")
            made, left = conversation(row, chosen, named=layout is not None)
        if is_bad(row, chosen):
            return [], [*_as_rejected(made, BAD), *left]
    if reason := left_out(row.values, turn=False):
        return [], [*_as_rejected(made, reason), *left]
    return made, left


def _as_rejected(examples: Sequence[Example], reason: str) -> list[Rejected]:
    return [
        Rejected(id=example.id, text=example.instruction, reason=reason, input=example.input or None, output=example.output)
        for example in examples
    ]
