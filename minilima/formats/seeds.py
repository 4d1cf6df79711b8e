"""Reads and checks seed tasks: a mistake is named with its line before any model is asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.formats.broken import BrokenRowError, BrokenRows, as_object
from minilima.formats.meaning import check_text
from minilima.formats.records import SeedTask
from minilima.formats.tables import scan_rows

SHORT_WORDS = 60
"""Longer worked tasks would make prompts slow on small machines."""
_EXAMPLE = '{"id": "a", "instruction": "…", "instances": [{"input": "", "output": "…"}], "is_classification": false}'


def load_seeds(path: Path) -> list[SeedTask]:
    """The tasks of a file in Self-Instruct's format, of which the first instance is used, or in Alpaca's (instruction, input,
    output), where a task without an id has its row's number.

    Raises:
        MinilimaError: a line is broken, a field is missing or empty, or an id or instruction occurs twice.
    """
    broken = BrokenRows(path=path, fix=f"A line: {_EXAMPLE}", unit="Seed task")
    tasks: list[SeedTask] = []
    seen: dict[tuple[str, str], str] = {}
    for number, row in enumerate(scan_rows(path), start=1):
        with broken.row(number):
            task = _task(_with_instances(as_object(row), number))
            _refuse_again(task, seen)
            tasks.append(task)
    broken.stop()
    if not tasks:
        raise MinilimaError(f"{path} holds no seed task.", "The file is empty.", "Give a file with at least one task a line.")
    return tasks


def _refuse_again(task: SeedTask, seen: dict[tuple[str, str], str]) -> None:
    """Refuses an id or an instruction that an earlier task has, and remembers those of this one."""
    for what, value in (("id", task.id), ("instruction", " ".join(task.instruction.lower().split()))):
        if (what, value) in seen:
            raise BrokenRowError(
                f"({task.id!r}) has an {what} that occurs twice", f"Seed {seen[what, value]!r} has the same: {value[:80]!r}."
            )
        seen[what, value] = task.id


def short_tasks(tasks: Sequence[SeedTask]) -> list[SeedTask]:
    """Those of at most SHORT_WORDS words, answers included, to be shown in prompts; all where none is so short."""
    short = [task for task in tasks if len(f"{task.instruction} {task.input} {task.output}".split()) <= SHORT_WORDS]
    return short or list(tasks)


def _with_instances(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A row of Alpaca's columns in Self-Instruct's form; others as they are."""
    if "instances" in row or "output" not in row:
        return row
    own = {name: row[name] for name in ("input", "output") if row.get(name) is not None}
    return {"id": str(number), "is_classification": None, **row, "instances": [own]}


def _task(row: dict[str, Any]) -> SeedTask:
    instances = row.get("instances")
    if not isinstance(instances, list) or not instances or not isinstance(instances[0], dict):
        there = ", ".join(map(str, row)) or "none"
        raise _bad("instances", f"a list with at least one {{input, output}}; the columns that are there: {there}")
    for name, value, empty_allowed in (
        ("id", row.get("id"), False),
        ("instruction", row.get("instruction"), False),
        ("instances[0].output", instances[0].get("output"), False),
        ("instances[0].input", instances[0].get("input", ""), True),
    ):
        if not isinstance(value, str) or not (value.strip() or empty_allowed):
            raise _bad(name, "a text" if empty_allowed else "a text that is not empty")
        check_text(value, name)
    if not isinstance(row.get("is_classification", ""), bool | None):
        raise _bad("is_classification", "true, false, or null where it is not known (which counts as false)")
    return SeedTask(
        id=row["id"],
        instruction=row["instruction"].strip(),
        input=instances[0].get("input", "").strip(),
        output=instances[0]["output"].strip(),
        is_classification=bool(row["is_classification"]),
    )


def _bad(field: str, needed: str) -> BrokenRowError:
    return BrokenRowError(f"has no proper {field}", f"It must be {needed}.")
