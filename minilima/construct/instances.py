"""Steps 2 and 3: is a task a classification, and one worked instance of each.

For classification tasks the label is asked for first and then an input that fits it, for all others the input first and
then the answer: otherwise models write inputs for one label only (Self-Instruct, section 2.2). Each half is one request,
and seed tasks are shown as earlier turns of the same conversation, so that a model answers in their manner.
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
from minilima.records import Example, Progress, Rejected, SeedTask, Tell, user_text

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
    shown = {
        kind: _short(seeds, random.Random(f"instances:{seed}:{kind}"), data.instance_demonstrations, is_classification=kind)
        for kind in (False, True)
    }
    firsts = _ask_all(model, [_first_half(task, shown[task.is_classification], sampling) for task in tasks], tell, "inputs")
    seconds = _ask_all(
        model,
        [_second_half(task, first, shown[task.is_classification], sampling) for task, first in zip(tasks, firsts, strict=True)],
        tell,
        "instances",
    )
    examples, rejected = [], []
    for task, first, second in zip(tasks, firsts, seconds, strict=True):
        halves = (second, first) if task.is_classification else (first, second)
        given, output = no_input(halves[0].text), halves[1].text.strip()
        truncated = "length" in (first.finish, second.finish)
        fault = instance_fault(instruction=task.instruction, input_text=given, output=output, truncated=truncated)
        if fault:
            rejected.append(Rejected(id=task.id, text=f"{task.instruction} | {given} | {output}", reason=fault))
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


def _first_half(task: Classified, shown: Sequence[SeedTask], sampling: Sampling) -> Request:
    """Asks for the input, or for the label of a classification task."""
    if task.is_classification:
        turns = [text for demo in shown for text in (render("pool/label", instruction=demo.instruction), demo.output)]
        return Request(messages=ask(*turns, render("pool/label", instruction=task.instruction)), sampling=sampling)
    turns = [text for demo in shown for text in (render("pool/input", instruction=demo.instruction), demo.input or "None")]
    return Request(messages=ask(*turns, render("pool/input", instruction=task.instruction)), sampling=sampling)


def _second_half(task: Classified, first: Reply, shown: Sequence[SeedTask], sampling: Sampling) -> Request:
    """Asks for the answer, or for an input that has the label."""
    if task.is_classification:
        turns = [text for demo in shown for text in (_labelled(demo.instruction, demo.output), demo.input or "None")]
        return Request(messages=ask(*turns, _labelled(task.instruction, first.text.strip())), sampling=sampling)
    turns = [text for demo in shown for text in (user_text(demo.instruction, demo.input), demo.output)]
    return Request(messages=ask(*turns, user_text(task.instruction, no_input(first.text))), sampling=sampling)


def _labelled(instruction: str, label: str) -> str:
    return render("pool/labelled_input", instruction=instruction, label=label)


_NO_INPUT = re.compile(r"^\W*(none|n/?a|no input( needed)?|nothing|not needed|empty)\W*$", re.IGNORECASE)


def no_input(text: str) -> str:
    """The input a model wrote, empty where it says that there is none."""
    return "" if _NO_INPUT.match(text) else text.strip()


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
