"""Reads an evaluation set: the packaged one, AlpacaEval's, or a file of the user's."""

from minilima.errors import MinilimaError
from minilima.files import read_rows
from minilima.records import EvalPrompt
from minilima.sources import FileSource


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
