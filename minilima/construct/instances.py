"""Steps 2 and 3: is a task a classification, and one worked instance of each.

Classification tasks are asked for the label first and then for an input that fits it, all others for the input first:
otherwise models write inputs for one label only (Self-Instruct, section 2.2). Demonstrations are seed tasks, shown as
earlier turns of the conversation, the same for all tasks of a kind.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from minilima.config import DataConfig
from minilima.construct.filters import instance_fault
from minilima.construct.instructions import Instruction
from minilima.llm.cache import CachedModel
from minilima.llm.chat import Reply, Request, Sampling, ask
from minilima.prompts import render
from minilima.records import Example, Progress, Rejected, SeedTask, Tell

CLASSIFICATION_DEMONSTRATIONS = 4
"""Seed tasks shown before the question, half of them classification tasks."""

_SHORT_WORDS = 60
"""Demonstrations are drawn from seeds of at most this many words, to keep prompts small."""


@dataclass(frozen=True, kw_only=True)
class Classified:
    """An instruction and whether its answer is one label out of a small set."""

    id: str
    instruction: str
    is_classification: bool


def classify(
    instructions: Sequence[Instruction], seeds: Sequence[SeedTask], model: CachedModel, seed: int, tell: Tell
) -> list[Classified]:
    """Asks of each instruction whether it is a classification task; a reply that is neither yes nor no counts as no."""
    rng = random.Random(f"classification:{seed}")
    yes = _short(seeds, rng, CLASSIFICATION_DEMONSTRATIONS // 2, is_classification=True)
    no = _short(seeds, rng, CLASSIFICATION_DEMONSTRATIONS - len(yes), is_classification=False)
    shown = [(task, "Yes") for task in yes] + [(task, "No") for task in no]
    rng.shuffle(shown)
    turns = [text for task, label in shown for text in (render("pool/classification", instruction=task.instruction), label)]
    sampling = Sampling(temperature=0.0, max_tokens=3)
    requests = [
        Request(messages=ask(*turns, render("pool/classification", instruction=item.instruction)), sampling=sampling)
        for item in instructions
    ]
    replies = _ask_all(model, requests, tell, "classified")
    return [
        Classified(id=item.id, instruction=item.instruction, is_classification=reply.text.strip().lower().startswith("yes"))
        for item, reply in zip(instructions, replies, strict=True)
    ]


def make_instances(
    tasks: Sequence[Classified],
    seeds: Sequence[SeedTask],
    model: CachedModel,
    data: DataConfig,
    sampling: Sampling,
    seed: int,
    tell: Tell,
) -> tuple[list[Example], list[Rejected]]:
    """One worked instance for each task; what is cut, empty or otherwise unfit is rejected with its reason."""
    requests = [_instance_request(task, seeds, data, sampling, seed) for task in tasks]
    replies = _ask_all(model, requests, tell, "instances")
    examples, rejected = [], []
    for task, reply in zip(tasks, replies, strict=True):
        given, output = parse_instance(reply.text)
        fault = instance_fault(instruction=task.instruction, input_text=given, output=output, truncated=reply.finish == "length")
        if fault:
            text = f"{task.instruction} | {reply.text}"
            rejected.append(Rejected(id=task.id, text=text, reason=fault))
            continue
        examples.append(
            Example(
                id=task.id,
                instruction=task.instruction,
                input=given,
                output=output,
                source="machine",
                is_classification=task.is_classification,
            )
        )
    return examples, rejected


def _instance_request(task: Classified, seeds: Sequence[SeedTask], data: DataConfig, sampling: Sampling, seed: int) -> Request:
    kind = task.is_classification
    template = "pool/instance_output_first" if kind else "pool/instance_input_first"
    shown = _short(seeds, random.Random(f"instances:{seed}:{kind}"), data.instance_demonstrations, is_classification=kind)
    turns = [text for demo in shown for text in (render(template, instruction=demo.instruction), _worked(demo))]
    return Request(messages=ask(*turns, render(template, instruction=task.instruction)), sampling=sampling)


def _worked(task: SeedTask) -> str:
    given = f"Input: {task.input}" if task.input else ""
    parts = [f"Output: {task.output}", given] if task.is_classification else [given, f"Output: {task.output}"]
    return "\n".join(part for part in parts if part)


_FIELD = re.compile(r"^\W*(input|output|label|answer)\W*:", re.IGNORECASE | re.MULTILINE)
_NO_INPUT = re.compile(r"^\W*(none|n/?a|no input|noinput|not needed|\(empty\))\W*$", re.IGNORECASE)


def parse_instance(text: str) -> tuple[str, str]:
    """(input, output) from `Input: … Output: …` in either order; a reply without these words is all output."""
    marks = list(_FIELD.finditer(text))
    if not marks:
        return "", text.strip()
    found: dict[str, str] = {}
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        name = "input" if mark.group(1).lower() == "input" else "output"
        value = text[mark.end() : following.start() if following else None].strip(" \n*")
        found.setdefault(name, value)
    given = found.get("input", "")
    return ("" if _NO_INPUT.match(given) else given), found.get("output", "")


def _short(seeds: Sequence[SeedTask], rng: random.Random, wanted: int, *, is_classification: bool) -> list[SeedTask]:
    kind = [task for task in seeds if task.is_classification == is_classification]
    short = [task for task in kind if len(f"{task.instruction} {task.input} {task.output}".split()) <= _SHORT_WORDS] or kind
    return rng.sample(short, min(wanted, len(short)))


def _ask_all(model: CachedModel, requests: Sequence[Request], tell: Tell, unit: str) -> list[Reply]:
    done = 0

    def count(index: int, reply: Reply) -> None:
        nonlocal done
        done += 1
        tell(Progress(done=done, total=len(requests), unit=unit))

    return model.reply_many(requests, count)
