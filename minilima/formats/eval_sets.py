"""Reads an evaluation set (the packaged one, AlpacaEval's, or a file of the user's) and answers to it from outside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.formats.files import canonical_json, sha256_text
from minilima.formats.records import Answer, EvalPrompt
from minilima.formats.tables import read_rows, table_identity
from minilima.formats.tasks import BrokenRowError, read_row


def load_eval_set(path: Path, size: int | None) -> list[EvalPrompt]:
    """The prompts, in the file's order; the first `size` of them if that is given. An input is part of its prompt.

    Raises:
        MinilimaError: the set is empty, a row has no proper instruction, or a prompt or an id occurs twice.
    """
    prompts = _prompts(read_rows(path), path)
    if not prompts:
        raise MinilimaError(
            f"The evaluation set {path} is empty.",
            "Without prompts there is nothing to compare.",
            "Give another file with eval_set.path=…, or use eval_set=minilima_100.",
        )
    return prompts[:size]


def _prompts(rows: Sequence[object], path: Path) -> list[EvalPrompt]:
    prompts: list[EvalPrompt] = []
    has_ids = any(isinstance(row, dict) and _has_id(row) for row in rows)
    for number, row in enumerate(rows, start=1):
        try:
            tasks = read_row(row)
        except BrokenRowError as broken:
            raise MinilimaError(
                f"Prompt {number} of {path} {broken.what}.", broken.why, 'A line looks like: {"instruction": "…", "output": "…"}'
            ) from None
        assert isinstance(row, dict), "read_row refuses all else"
        identity = _id(row, number, path) if _has_id(row) else f"row{number}" if has_ids else str(number)
        prompts += [
            EvalPrompt(
                id=identity if place == 1 else f"{identity}.{place}",
                instruction=task.text,
                output=task.output,
                category=row.get("category") or row.get("dataset"),
            )
            for place, task in enumerate(tasks, start=1)
        ]
    _refuse_twice(path, "Prompt", "prompt", [prompt.instruction for prompt in prompts])
    _refuse_twice(path, "The id of prompt", "id", [prompt.id for prompt in prompts])
    return prompts


def _has_id(row: Mapping[str, Any]) -> bool:
    return row.get("id") is not None and row.get("id") != ""


def _id(row: Mapping[str, Any], number: int, path: Path) -> str:
    if isinstance(row["id"], bool) or not isinstance(row["id"], str | int):
        raise MinilimaError(
            f"Prompt {number} of {path} has no proper id.",
            "It must be a text or a whole number.",
            "Correct it, or leave all out.",
        )
    return str(row["id"])


def _refuse_twice(path: Path, who: str, what: str, values: Sequence[str]) -> None:
    """Answers are found by ids and prompts, so each of them must stand for one row."""
    first: dict[str, int] = {}
    for number, value in enumerate(values, start=1):
        if value in first:
            raise MinilimaError(
                f"{who} {number} of {path} occurs twice.",
                f"Prompt {first[value]} has the same {what}; it begins {value[:60]!r}.",
                "Delete one of the two." if what == "prompt" else "Give each prompt an id of its own, or leave all ids out.",
            )
        first[value] = number


def eval_set_identity(path: Path) -> str:
    """What a set is to the keys: the file's content; where it is read otherwise than by the first releases, the prompts too.

    Those took the instruction alone for the prompt, and any id as it was.
    """
    sha256 = table_identity(path)
    try:
        rows = read_rows(path)
        prompts = _prompts(rows, path)
    except MinilimaError:
        return sha256  # said where the set is checked
    before = [(str(row.get("id", number)), row["instruction"], row.get("output")) for number, row in enumerate(rows, start=1)]
    now = [(prompt.id, prompt.instruction, prompt.output) for prompt in prompts]
    return sha256 if now == before else sha256_text(canonical_json([sha256, now]))


def read_references(path: Path, name: str, prompts: list[EvalPrompt]) -> list[Answer]:
    """The answer to each prompt, found by its text, an input included; other rows of the file are ignored.

    Args:
        path: a model_outputs.json, or an evaluation set with answers of its own.
        name: what messages, and answers without a `generator`, call it.
        prompts: the evaluation set.

    Raises:
        MinilimaError: a prompt has no answer in the file, or more than one.
    """
    rows = _answered(read_rows(path))
    times = Counter(text for text, _ in rows)
    by_instruction = {text: row for text, row in rows if isinstance(row.get("output"), str)}
    missing = [prompt.instruction for prompt in prompts if prompt.instruction not in by_instruction]
    if missing:
        raise MinilimaError(
            f"{name} lacks answers to {len(missing):,} of {len(prompts):,} prompts.",
            f"An answer is found by its prompt and input, which must be the same text; the first begins {missing[0][:60]!r}.",
            "Name another with eval.reference=…, or choose the evaluation set that it answers.",
        )
    ambiguous = [prompt.instruction for prompt in prompts if times[prompt.instruction] > 1]
    if ambiguous:
        raise MinilimaError(
            f"{name} has several answers to {len(ambiguous):,} prompts.",
            f"Which of them is meant is not known; the first begins {ambiguous[0][:60]!r}.",
            "Keep the answers of one model in the file, and remove the others.",
        )
    return [
        Answer(
            id=prompt.id,
            instruction=prompt.instruction,
            output=by_instruction[prompt.instruction]["output"],
            # What AlpacaEval's files call the model; the reference answers of a set need not have a name.
            generator=str(by_instruction[prompt.instruction].get("generator") or name),
            tokens=0,
            truncated=False,
        )
        for prompt in prompts
    ]


def _answered(rows: Sequence[object]) -> list[tuple[str, Mapping[str, Any]]]:
    """The prompt of each row with the row, in which `output` is the answer to it; rows that are no tasks are left out."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for row in rows:
        with suppress(BrokenRowError):
            tasks = read_row(row)
            assert isinstance(row, Mapping), "read_row refuses all else"
            found += [(task.text, {**row, "output": task.output}) for task in tasks]
    return found
