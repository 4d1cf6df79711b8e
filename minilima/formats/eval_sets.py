"""Reads an evaluation set (the packaged one, AlpacaEval's, or a file of the user's) and answers to it from outside."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.formats.files import read_rows
from minilima.formats.records import Answer, EvalPrompt, user_text


def load_eval_set(path: Path, size: int | None) -> list[EvalPrompt]:
    """The prompts, in the file's order; the first `size` of them if that is given.

    An `input` is part of the prompt, below the instruction; each of `instances` is a prompt of its own. Ids are those of the
    file where each is given once; else numbers tell prompts apart.

    Raises:
        MinilimaError: the set is empty, or a row has no instruction or a prompt that occurred before.
    """
    rows = [(number, row, posed) for number, row in enumerate(read_rows(path), start=1) for posed in _posed(row, path, number)]
    given = Counter(str(row["id"]) for _, row, _ in rows if row.get("id") is not None)
    prompts: list[EvalPrompt] = []
    seen: dict[str, int] = {}
    for number, row, posed in rows:
        if posed.prompt in seen:
            raise MinilimaError(
                f"Prompt {number} of {path} occurs twice.",
                f"It is also prompt {seen[posed.prompt]}; it begins {posed.prompt[:60]!r}.",
                "Delete one of the two.",
            )
        seen[posed.prompt] = number
        category = row.get("category") or row.get("dataset")
        identity = _identity(row.get("id"), number, posed.place, given)
        prompts.append(EvalPrompt(id=identity, instruction=posed.prompt, output=posed.output, category=category))
    if not prompts:
        raise MinilimaError(
            f"The evaluation set {path} is empty.",
            "Without prompts there is nothing to compare.",
            "Give another file with eval_set.path=…, or use eval_set=minilima_100.",
        )
    return prompts[:size]


@dataclass(frozen=True, kw_only=True)
class _Posed:
    """One prompt of a row, with the reference answer to it."""

    prompt: str
    output: str | None
    place: int
    """Among the row's instances, from 1; 0 where the row is one prompt."""


def _posed(row: dict[str, Any], path: Path, number: int) -> list[_Posed]:
    instruction, instances = row.get("instruction"), row.get("instances")
    cases = instances if isinstance(instances, list) and instances else [row]
    posed = []
    for place, case in enumerate(cases, start=1):
        given: Any = case.get("input") if isinstance(case, dict) else 0
        output: Any = case.get("output") if isinstance(case, dict) else 0
        texts = isinstance(given, str | None) and isinstance(output, str | None)
        if not isinstance(instruction, str) or not instruction.strip() or not texts:
            raise MinilimaError(
                f"Prompt {number} of {path} has no valid instruction, input or output.",
                "instruction must be a text that is not empty; input, which is part of the prompt, and output, the reference "
                "answer, are optional texts.",
                'A line looks like: {"instruction": "…", "input": "…", "output": "…"}',
            )
        given = given if given and given.strip() else ""
        posed.append(_Posed(prompt=user_text(instruction, given), output=output, place=place if len(cases) > 1 else 0))
    return posed


def _identity(given: object, number: int, place: int, ids: Mapping[str, int]) -> str:
    """An id that no other prompt has: the given one, else the row's number."""
    if given is not None and ids[str(given)] == 1:
        return str(given)
    of_row = str(number) if given is None else f"{given} (row {number})"
    if given is None and of_row in ids:
        of_row = f"row {number}"
    return f"{of_row}, instance {place}" if place else of_row


def has_inputs(path: Path) -> bool:
    """Whether a prompt of the set is more than its row's instruction."""
    rows = read_rows(path)
    return any(bool(row.get("input")) or bool(row.get("instances")) or row.get("id", "") is None for row in rows)


def read_references(path: Path, name: str, prompts: list[EvalPrompt]) -> list[Answer]:
    """The answer to each prompt, found by its text (instruction and input); other rows of the file are ignored.

    Args:
        path: a model_outputs.json, or an evaluation set with answers of its own.
        name: what messages, and answers without a `generator`, call it.
        prompts: the evaluation set.

    Raises:
        MinilimaError: a prompt has no answer in the file, or more than one.
    """
    rows = [row for row in read_rows(path) if isinstance(row, dict)]
    answered = [(prompt, row, output) for row in rows for prompt, output in _answers_in(row)]
    times = Counter(prompt for prompt, _, _ in answered)
    by_instruction = {prompt: {**row, "output": output} for prompt, row, output in answered if isinstance(output, str)}
    missing = [prompt.instruction for prompt in prompts if prompt.instruction not in by_instruction]
    if missing:
        raise MinilimaError(
            f"{name} lacks answers to {len(missing):,} of {len(prompts):,} prompts.",
            f"An answer is found by its instruction, which must be the same text; the first begins {missing[0][:60]!r}.",
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


def _answers_in(row: dict[str, Any]) -> list[tuple[str, object]]:
    """(prompt, answer) of a row, by the same rule as in an evaluation set."""
    instances = row.get("instances")
    cases = instances if isinstance(instances, list) and instances else [row]
    instruction = row.get("instruction")
    return [
        (user_text(instruction, case.get("input") or ""), case.get("output"))
        for case in cases
        if isinstance(instruction, str) and isinstance(case, dict) and isinstance(case.get("input"), str | None)
    ]
