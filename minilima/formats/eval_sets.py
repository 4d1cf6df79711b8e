"""Reads an evaluation set (the packaged one, AlpacaEval's, or a file of the user's) and answers to it from outside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.formats.benchmark_prompts import (
    ID_COLUMNS,
    conversation,
    criteria_of,
    is_conversation,
    is_named_otherwise,
    reference_of,
)
from minilima.formats.broken import BrokenRowError, BrokenRows, as_object
from minilima.formats.files import canonical_json, sha256_text
from minilima.formats.records import Answer, EvalPrompt
from minilima.formats.tables import read_rows, scan_rows, table_identity
from minilima.formats.tasks import read_row


def load_eval_set(path: Path, size: int | None) -> list[EvalPrompt]:
    """The prompts, in the file's order; the first `size` of them if that is given. An input is part of its prompt.

    Raises:
        MinilimaError: the set is empty, a row has no proper instruction, or a prompt or an id occurs twice.
    """
    prompts = _prompts(scan_rows(path), path)
    if not prompts:
        raise MinilimaError(
            f"The evaluation set {path} is empty.",
            "Without prompts there is nothing to compare.",
            "Give another file with eval_set.path=…, or use eval_set=minilima_100.",
        )
    return prompts[:size]


def _prompts(rows: Sequence[object], path: Path) -> list[EvalPrompt]:
    broken = BrokenRows(path=path, fix='A line looks like: {"instruction": "…", "output": "…"}', unit="Prompt")
    prompts: list[EvalPrompt] = []
    seen = _Seen(texts={}, ids={})
    has_ids = any(isinstance(row, dict) and _has_id(row) for row in rows)
    for number, row in enumerate(rows, start=1):
        with broken.row(number):
            made = _prompts_of(number, as_object(row), has_ids=has_ids)
            for prompt in made:
                seen.refuse_again(prompt, number)
            prompts += made
    broken.stop()
    return prompts


def _prompts_of(number: int, row: dict[str, Any], *, has_ids: bool) -> list[EvalPrompt]:
    identity = _id(row) if _has_id(row) else f"row{number}" if has_ids else str(number)
    shared: dict[str, Any] = {"category": row.get("category") or row.get("dataset"), "criteria": criteria_of(row)}
    if is_conversation(row):
        return [conversation(identity, row, **shared)]
    return [
        EvalPrompt(
            id=identity if part == 1 else f"{identity}.{part}",
            instruction=task.text,
            output=task.output or reference_of(row) or task.output,
            **shared,
        )
        for part, task in enumerate(read_row(row), start=1)
    ]


def _has_id(row: Mapping[str, Any]) -> bool:
    return _named(row) not in (None, "")


def _named(row: Mapping[str, Any]) -> object:
    """A row's id; benchmarks that come as conversations have it under names of their own."""
    names = ID_COLUMNS if is_named_otherwise(row) else ID_COLUMNS[:1]
    return next((row[name] for name in names if row.get(name) is not None), None)


def _id(row: Mapping[str, Any]) -> str:
    named = _named(row)
    if isinstance(named, bool) or not isinstance(named, str | int):
        raise BrokenRowError("has no proper id", "It must be a text or a whole number. Leave all ids out if there are none.")
    return str(named)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The numbers of the rows that had a text or an id first: answers are matched by both, so each stands for one row."""

    texts: dict[str, int]
    ids: dict[str, int]

    def refuse_again(self, prompt: EvalPrompt, number: int) -> None:
        for what, value, first in (("prompt", prompt.instruction, self.texts), ("id", prompt.id, self.ids)):
            if value in first:
                advice = " Give each an id of its own, or leave all ids out." if what == "id" else ""
                raise BrokenRowError(
                    "occurs twice" if what == "prompt" else "has an id that occurs twice",
                    f"Prompt {first[value]} has the same {what}; it begins {value[:60]!r}.{advice}",
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
    before = [(str(row.get("id", number)), row.get("instruction"), row.get("output")) for number, row in enumerate(rows, start=1)]
    now = [(prompt.id, prompt.instruction, prompt.output) for prompt in prompts]
    return sha256 if now == before else sha256_text(canonical_json([sha256, now]))


def require_references(references: Mapping[str, str | None]) -> None:
    """Stops where a prompt has no reference answer, for a judge that compares with it.

    Args:
        references: by the prompt's id.

    Raises:
        MinilimaError: some prompts have none.
    """
    if lacking := [identity for identity, reference in references.items() if not reference]:
        raise MinilimaError(
            f"{len(lacking):,} of {len(references):,} prompts have no reference answer.",
            f"judge=reference compares with it; the first is {lacking[0]!r}.",
            "Add it (output in an evaluation set, reference in labelled pairs), or choose another judge.",
        )


def read_references(path: Path, name: str, prompts: list[EvalPrompt]) -> list[Answer]:
    """The answer to each prompt, matched by its text, an input included; other rows of the file are ignored.

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
            f"An answer is matched by its prompt and input, which must be the same text; the first begins {missing[0][:60]!r}.",
            "Name another with eval.reference=…, or choose the evaluation set that it answers.",
        )
    ambiguous = [prompt.instruction for prompt in prompts if times[prompt.instruction] > 1]
    if ambiguous:
        raise MinilimaError(
            f"{name} has several answers to {len(ambiguous):,} prompts.",
            f"Which of them is meant is not known; the first begins {ambiguous[0][:60]!r}.",
            "Keep the answers of one model in the file, and remove the others.",
        )
    return [_given_answer(prompt, by_instruction[prompt.instruction], name) for prompt in prompts]


def _given_answer(prompt: EvalPrompt, row: Mapping[str, Any], name: str) -> Answer:
    """The answer in a row; of a conversation with the answers before it."""
    history = tuple((user, text) for user, text in row.get("history") or ())
    if len(history) + 1 < len(prompt.asked):
        raise MinilimaError(
            f"{name} lacks answers to the earlier turns of prompt {prompt.id}.",
            f"It is a conversation of {len(prompt.turns)} turns, and each of them needs an answer.",
            "Name a finished run, or an evaluation set with a reference answer to each turn (references).",
        )
    return Answer(
        id=prompt.id,
        instruction=prompt.instruction,
        output=row["output"],
        # What AlpacaEval's files call the model; the reference answers of a set need not have a name.
        generator=str(row.get("generator") or name),
        tokens=0,
        truncated=False,
        history=history or None,
    )


def _answered(rows: Sequence[object]) -> list[tuple[str, Mapping[str, Any]]]:
    """The prompt of each row with the row, in which `output` is the answer to it; rows that are no tasks are passed over."""
    answered: list[tuple[str, Mapping[str, Any]]] = []
    for row in rows:
        with suppress(BrokenRowError):
            if isinstance(row, Mapping) and is_conversation(row):
                prompt = conversation("", row)
                *earlier, last = prompt.references or (prompt.output,)
                history = list(zip(prompt.turns, earlier, strict=False)) if len(earlier) + 1 == len(prompt.asked) else []
                answered.append((prompt.instruction, {**row, "output": last, "history": history}))
                continue
            # Beside a generator's answer the history is its own earlier answers, which read_row does not know.
            named = as_object(row)
            tasks = read_row({**named, "history": None} if named.get("generator") else named)
            answered += [(task.text, {**named, "output": task.output}) for task in tasks]
    return answered
