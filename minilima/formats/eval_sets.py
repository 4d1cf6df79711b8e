"""Reads an evaluation set (the packaged one, AlpacaEval's, or a file of the user's) and answers to it from outside."""

from collections import Counter

from minilima.errors import MinilimaError
from minilima.formats.files import read_rows
from minilima.formats.records import Answer, EvalPrompt
from minilima.store.sources import FileSource


def load_eval_set(source: FileSource, size: int | None) -> list[EvalPrompt]:
    """The prompts, in the file's order; the first `size` of them if that is given.

    Raises:
        MinilimaError: the set is empty, or a row has no instruction or one that occurred before.
    """
    assert source.path is not None, "checked before anything runs"
    prompts: list[EvalPrompt] = []
    seen: set[str] = set()
    for number, row in enumerate(read_rows(source.path), start=1):
        instruction, output = row.get("instruction"), row.get("output")
        if not isinstance(instruction, str) or not instruction.strip() or not isinstance(output, str | None):
            raise MinilimaError(
                f"Prompt {number} of {source.path} has no proper instruction.",
                "It must be a text that is not empty; output, the reference answer, is optional.",
                'A line looks like: {"instruction": "…", "output": "…"}',
            )
        if instruction in seen:
            raise MinilimaError(
                f"Prompt {number} of {source.path} occurs twice.", f"It begins {instruction[:60]!r}.", "Delete one of the two."
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
            f"The evaluation set {source.path} is empty.",
            "Without prompts there is nothing to compare.",
            "Give another file with eval_set.path=…, or use eval_set=minilima_100.",
        )
    return prompts[:size]


def read_references(source: FileSource, prompts: list[EvalPrompt]) -> list[Answer]:
    """The answer to each prompt, found by its instruction; other rows of the file are passed over.

    Raises:
        MinilimaError: a prompt has no answer in the file, or more than one.
    """
    assert source.path is not None, "checked before anything runs"
    rows = [row for row in read_rows(source.path) if isinstance(row, dict)]
    times = Counter(row.get("instruction") for row in rows)
    found = {row.get("instruction"): row for row in rows if isinstance(row.get("output"), str)}
    lacking = [prompt.instruction for prompt in prompts if prompt.instruction not in found]
    if lacking:
        raise MinilimaError(
            f"{source.name} lacks answers to {len(lacking):,} of {len(prompts):,} prompts.",
            f"They are found by their instructions, to the letter; the first begins {lacking[0][:60]!r}.",
            "Name another with eval.reference=…, or choose the evaluation set that it answers.",
        )
    doubled = [prompt.instruction for prompt in prompts if times[prompt.instruction] > 1]
    if doubled:
        raise MinilimaError(
            f"{source.name} has several answers to {len(doubled):,} prompts.",
            f"Which of them is meant is not known; the first begins {doubled[0][:60]!r}.",
            "Leave the answers of one model in it.",
        )
    return [
        Answer(
            id=prompt.id,
            instruction=prompt.instruction,
            output=found[prompt.instruction]["output"],
            # What AlpacaEval's files call the model; the reference answers of a set need not have a name.
            generator=str(found[prompt.instruction].get("generator") or source.name),
            tokens=0,
            truncated=False,
        )
        for prompt in prompts
    ]
