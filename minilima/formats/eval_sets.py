"""Reads an evaluation set (the packaged one, AlpacaEval's, or a file of the user's) and answers to it from outside."""

from collections import Counter
from pathlib import Path

from minilima.errors import MinilimaError
from minilima.formats.files import read_rows
from minilima.formats.records import Answer, EvalPrompt


def load_eval_set(path: Path, size: int | None) -> list[EvalPrompt]:
    """The prompts, in the file's order; the first `size` of them if that is given.

    Raises:
        MinilimaError: the set is empty, or a row has no instruction or one that occurred before.
    """
    prompts: list[EvalPrompt] = []
    seen: set[str] = set()
    for number, row in enumerate(read_rows(path), start=1):
        instruction, output = row.get("instruction"), row.get("output")
        if not isinstance(instruction, str) or not instruction.strip() or not isinstance(output, str | None):
            raise MinilimaError(
                f"Prompt {number} of {path} has no valid instruction.",
                "instruction must be a non-empty text; output, the reference answer, is optional.",
                'A line looks like: {"instruction": "…", "output": "…"}',
            )
        if instruction in seen:
            raise MinilimaError(
                f"Prompt {number} of {path} occurs twice.", f"It begins {instruction[:60]!r}.", "Delete one of the two."
            )
        seen.add(instruction)
        prompts.append(
            EvalPrompt(
                id=str(row.get("id", number)),
                instruction=instruction,
                output=output,
                category=row.get("category") or row.get("dataset"),
            )
        )
    if not prompts:
        raise MinilimaError(
            f"The evaluation set {path} is empty.",
            "Without prompts there is nothing to compare.",
            "Give another file with eval_set.path=…, or use eval_set=minilima_100.",
        )
    return prompts[:size]


def read_references(path: Path, name: str, prompts: list[EvalPrompt]) -> list[Answer]:
    """The answer to each prompt, found by its instruction; other rows of the file are ignored.

    Args:
        path: a model_outputs.json, or an evaluation set with answers of its own.
        name: what messages, and answers without a `generator`, call it.
        prompts: the evaluation set.

    Raises:
        MinilimaError: a prompt has no answer in the file, or more than one.
    """
    rows = [row for row in read_rows(path) if isinstance(row, dict)]
    times = Counter(row.get("instruction") for row in rows)
    by_instruction = {row.get("instruction"): row for row in rows if isinstance(row.get("output"), str)}
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
