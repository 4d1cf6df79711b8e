"""Steps 2 and 3: is a task a classification, and worked instances of each.

For classification tasks the possible labels are asked for first, then an input that fits one of them, the labels taking
turns; for all others the input first and then the answer. Otherwise models write inputs for one label only (Self-Instruct,
section 2.2). Each half is one request, after worked seed tasks of the same kind.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minilima.construct.asking import Asker, Demonstration
from minilima.construct.filters import instance_fault
from minilima.construct.instructions import Instruction
from minilima.construct.seeds import short_tasks
from minilima.construct.writers import no_input
from minilima.files import sha256_text
from minilima.llm.cache import CachedModel
from minilima.llm.chat import FAILED, Reply, Request, Sampling, counted
from minilima.records import Example, Rejected, SeedTask, Tell

CLASSIFICATION_DEMONSTRATIONS = 4
"""Seed tasks shown before the question, half of them classification tasks."""

_MOST_LABELS, _LABEL_WORDS = 12, 6
"""A longer list, or a longer line, is no list of labels."""


@dataclass(frozen=True, kw_only=True)
class Classified:
    """An instruction and whether its answer is one label out of a small set; None: the model did not say."""

    id: str
    instruction: str
    is_classification: bool | None


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One worked instance before it is checked."""

    task: Instruction
    number: int
    is_classification: bool | None
    input: str
    output: str
    replies: tuple[Reply, ...]
    request: str


class Steps:
    """Steps 2 and 3 with one model. `shown` seeds stand before every question of a kind."""

    def __init__(self, seeds: Sequence[SeedTask], model: CachedModel, asker: Asker, seed: int, tell: Tell) -> None:
        self.seeds, self.model, self.asker, self.seed, self.tell = seeds, model, asker, seed, tell
        self.sampling = asker.instance_sampling()

    def classify(self, tasks: Sequence[Instruction]) -> list[Classified]:
        """Asks of each instruction whether it is a classification task."""
        if self.asker.data.classification_only:
            return [Classified(id=task.id, instruction=task.instruction, is_classification=True) for task in tasks]
        rng = random.Random(f"classification:{self.seed}")
        yes = _short(self.seeds, rng, CLASSIFICATION_DEMONSTRATIONS // 2, is_classification=True)
        no = _short(self.seeds, rng, CLASSIFICATION_DEMONSTRATIONS - len(yes), is_classification=False)
        shown: list[Demonstration] = [({"instruction": task.instruction}, "Yes") for task in yes]
        shown += [({"instruction": task.instruction}, "No") for task in no]
        rng.shuffle(shown)
        sampling = Sampling(temperature=0.0, max_tokens=3)
        requests = [self.asker.request("classification", shown, sampling, instruction=task.instruction) for task in tasks]
        replies = self._ask(requests, "classified", lambda reply: says_yes(reply.text) is not None)
        return [
            Classified(id=task.id, instruction=task.instruction, is_classification=says_yes(reply.text))
            for task, reply in zip(tasks, replies, strict=True)
        ]

    def instances(self, tasks: Sequence[Instruction], classified: Sequence[Classified]) -> list[Instance]:
        """`data.instances_per_task` worked instances of each task."""
        kinds = {item.id: bool(item.is_classification) for item in classified}
        by_label = self._by_label([task for task in tasks if kinds[task.id]])
        by_input = self._by_input([task for task in tasks if not kinds[task.id]])
        made = {(item.task.id, item.number): item for item in (*by_label, *by_input)}
        return [made[task.id, number] for task in tasks for number in range(self.asker.data.instances_per_task)]

    def answers(self, tasks: Sequence[Instruction]) -> list[Instance]:
        """Answers to tasks that are complete as they are."""
        requests = [self._answer(task, task.input, [], 0) for task in tasks]
        replies = self._ask(requests, "answers")
        return [
            Instance(
                task=task, number=0, is_classification=None, input=task.input, output=reply.text, replies=(reply,),
                request=request.key(self.model.name),
            )
            for task, request, reply in zip(tasks, requests, replies, strict=True)
        ]  # fmt: skip

    def _by_input(self, tasks: Sequence[Instruction]) -> list[Instance]:
        shown = self._shown(is_classification=False)
        answers: list[Demonstration] = [({**_worked(task), "words": None}, task.output) for task in shown]
        places = [(task, number) for task in tasks for number in range(self.asker.data.instances_per_task)]
        firsts = self._inputs([(task, number) for task, number in places if not task.complete], shown)
        inputs = [no_input(firsts[task.id, number].text) if not task.complete else task.input for task, number in places]
        requests = [self._answer(task, given, answers, number) for (task, number), given in zip(places, inputs, strict=True)]
        replies = self._ask(requests, "instances")
        return [
            Instance(
                task=task, number=number, is_classification=False, input=given, output=reply.text,
                replies=(reply,) if task.complete else (firsts[task.id, number], reply),
                request=request.key(self.model.name),
            )
            for (task, number), given, request, reply in zip(places, inputs, requests, replies, strict=True)
        ]  # fmt: skip

    def _inputs(self, places: Sequence[tuple[Instruction, int]], seeds: Sequence[SeedTask]) -> dict[tuple[str, int], Reply]:
        """The inputs of tasks, by id and number, where the model is to make them up."""
        shown: list[Demonstration] = [({"instruction": task.instruction}, task.input or "None") for task in seeds]
        requests = [
            self.asker.request("input", shown, self.sampling, number, instruction=task.instruction) for task, number in places
        ]
        replies = self._ask(requests, "inputs")
        return {(task.id, number): reply for (task, number), reply in zip(places, replies, strict=True)}

    def _answer(self, task: Instruction, given: str, shown: Sequence[Demonstration], number: int) -> Request:
        words = self.asker.data.answer_words
        return self.asker.request("answer", shown, self.sampling, number, instruction=task.instruction, input=given, words=words)

    def _by_label(self, tasks: Sequence[Instruction]) -> list[Instance]:
        shown: list[Demonstration] = [
            ({"instruction": task.instruction, "label": task.output}, task.input or "None")
            for task in self._shown(is_classification=True)
        ]
        asked = [self.asker.request("labels", [], self.sampling, instruction=task.instruction) for task in tasks]
        lists = self._ask(asked, "label lists", lambda reply: bool(parse_labels(reply.text)))
        places = [
            (task, number, _label_in_turn(parse_labels(reply.text), task.id, number), reply)
            for task, reply in zip(tasks, lists, strict=True)
            for number in range(self.asker.data.instances_per_task)
        ]
        requests = [
            self.asker.request("labelled_input", shown, self.sampling, number, instruction=task.instruction, label=label)
            for task, number, label, _ in places
        ]
        return [
            Instance(
                task=task, number=number, is_classification=True, input=no_input(reply.text), output=label,
                replies=(first, reply), request=request.key(self.model.name),
            )
            for (task, number, label, first), reply, request in zip(
                places, self._ask(requests, "classification instances"), requests, strict=True
            )
        ]  # fmt: skip

    def _shown(self, *, is_classification: bool) -> list[SeedTask]:
        rng = random.Random(f"instances:{self.seed}:{is_classification}")
        return _short(self.seeds, rng, self.asker.data.instance_demonstrations, is_classification=is_classification)

    def _ask(self, requests: Sequence[Request], unit: str, usable: Callable[[Reply], bool] = lambda reply: True) -> list[Reply]:
        return self.model.reply_many(requests, counted(self.tell, len(requests), unit), usable)


def check(instances: Sequence[Instance]) -> tuple[list[Example], list[Rejected]]:
    """Examples out of instances; what is cut, empty, contradictory or otherwise unfit is rejected with its reason."""
    examples, rejected = [], []
    contradicted = _contradicted(instances)
    for item in instances:
        identity = item.task.id if item.number == 0 else f"{item.task.id}.{item.number}"
        output = item.output.strip()
        fault = "no_reply" if any(reply.finish == FAILED for reply in item.replies) else None
        fault = fault or instance_fault(
            instruction=item.task.instruction,
            input_text=item.input,
            output=output,
            truncated=any(reply.finish == "length" for reply in item.replies),
        )
        if fault is None and (item.task.id, item.input) in contradicted:
            fault = "contradictory_outputs"
        if fault is not None:
            rejected.append(Rejected(id=identity, text=item.task.instruction, reason=fault))
            continue
        examples.append(
            Example(
                id=identity,
                instruction=item.task.instruction,
                input=item.input,
                output=output,
                source="machine",
                is_classification=item.is_classification,
                round=item.task.round,
                parents=item.task.parents,
                request=item.request,
                nearest_id=item.task.nearest_id,
                nearest_rouge=item.task.nearest_rouge,
            )
        )
    return examples, rejected


def _contradicted(instances: Sequence[Instance]) -> set[tuple[str, str]]:
    """(task, input) that came with several outputs: none of them can be trusted (prepare_for_finetuning.py)."""
    outputs: dict[tuple[str, str], set[str]] = {}
    for item in instances:
        if item.input:
            outputs.setdefault((item.task.id, item.input), set()).add(item.output.strip())
    return {place for place, found in outputs.items() if len(found) > 1}


def says_yes(text: str) -> bool | None:
    """True for a yes, False for a no, None for anything else."""
    word = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
    return None if word is None else word[1].lower() == "yes"


def parse_labels(text: str) -> list[str]:
    """The labels of a list, one a line or divided by commas; empty where it is no such list."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if len(lines) == 1:
        lines = re.split(r",|;|\bor\b", lines[0])
    labels = list(dict.fromkeys(re.sub(r"^\W*(\d+\s*[.)])?\W*", "", line).strip(" .*\"'“”`") for line in lines))
    fits = all(label and len(label.split()) <= _LABEL_WORDS for label in labels)
    return labels if fits and 1 <= len(labels) <= _MOST_LABELS else []


def _label_in_turn(labels: Sequence[str], identity: str, number: int) -> str:
    """The label of a task's instance: tasks begin at different labels, and go through them in turn."""
    return labels[(int(sha256_text(identity)[:8], 16) + number) % len(labels)] if labels else ""


def label_balance(examples: Sequence[Example]) -> dict[str, object]:
    """How the labels of classification examples are spread: the most frequent ones, and the share of the first."""
    counts = Counter(example.output.lower() for example in examples if example.is_classification)
    total = sum(counts.values())
    if not total:
        return {}
    return {"labels": dict(counts.most_common(10)), "most_common_label_share": round(counts.most_common(1)[0][1] / total, 3)}


def _worked(task: SeedTask) -> dict[str, str]:
    return {"instruction": task.instruction, "input": task.input}


def _short(seeds: Sequence[SeedTask], rng: random.Random, wanted: int, *, is_classification: bool) -> list[SeedTask]:
    short = short_tasks([task for task in seeds if task.is_classification == is_classification])
    return rng.sample(short, min(wanted, len(short)))
