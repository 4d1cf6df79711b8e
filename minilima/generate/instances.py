"""Steps 2 and 3: is a task a classification, and examples with answers of each.

For a classification task the model lists the labels first and then writes an input for one of them, the labels taking turns:
if the input came first, models would write inputs for one label only (Self-Instruct, section 2.2). For any other task the
input comes first and then the answer. Each half is one request, with seed tasks of the same kind as demonstrations.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from minilima.config.choices import Keep
from minilima.formats.records import Example, OnProgress, Rejected, SeedTask
from minilima.formats.seeds import short_tasks
from minilima.generate.best_of import Candidates, choose, rating, tasks_of
from minilima.generate.classification import KINDS, LABELS_SCHEMA, best_limit, label_in_turn, odds, parse_labels, says_yes
from minilima.generate.filters import instance_fault
from minilima.generate.instructions import Instruction
from minilima.generate.methods import no_input
from minilima.generate.prompting import Demonstration, Prompter
from minilima.models.cache import CachedModel
from minilima.models.chat import FAILED, Reply, Request, counted

CLASSIFICATION_DEMONSTRATIONS = 4
"""Seed tasks shown before the question, half of them classification tasks."""
KIND_DEMONSTRATIONS = 8
"""Seed tasks of each kind in the prompt where probabilities decide."""


@dataclass(frozen=True, kw_only=True)
class Classified:
    """An instruction, and whether its answer is one label out of a small set; None: the model's reply was unclear."""

    id: str
    instruction: str
    is_classification: bool | None


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One example with its answer, before it is checked."""

    task: Instruction
    number: int
    is_classification: bool | None
    input: str
    output: str
    replies: tuple[Reply, ...]
    request: str | None


@dataclass(frozen=True, kw_only=True)
class _Unanswered:
    """A task with one of its inputs, before the answer is written."""

    task: Instruction
    number: int
    input: str
    replies: tuple[Reply, ...] = ()


class Instances:
    """Steps 2 and 3 with one model: is each task a classification, and its examples with answers."""

    def __init__(
        self, seeds: Sequence[SeedTask], model: CachedModel, prompter: Prompter, seed: int, on_progress: OnProgress
    ) -> None:
        self.seeds, self.model, self.prompter, self.seed, self.on_progress = seeds, model, prompter, seed, on_progress
        self.sampling = prompter.instance_sampling()
        self.candidates: list[Candidates] = []
        """All answers to each task, where several were asked for."""

    def classify(self, tasks: Sequence[Instruction]) -> list[Classified]:
        """Asks of each instruction whether it is a classification task."""
        if self.prompter.data.classification_only:
            return [Classified(id=task.id, instruction=task.instruction, is_classification=True) for task in tasks]
        if self.prompter.data.identify_classification is False:
            return [Classified(id=task.id, instruction=task.instruction, is_classification=None) for task in tasks]
        both = {task.is_classification for task in self.seeds} == {True, False}
        kinds = self.kinds_weighed(tasks) if self.prompter.weighs_kinds and both else self.kinds_answered(tasks)
        return [
            Classified(id=task.id, instruction=task.instruction, is_classification=kind)
            for task, kind in zip(tasks, kinds, strict=True)
        ]

    def kinds_weighed(self, tasks: Sequence[Instruction]) -> list[bool | None]:
        """By the odds of the word for each kind, after seed tasks with their kind; the other seeds set the threshold.

        Small models answer no to nearly everything, but with less confidence where yes is right (biases: Zhao et al. 2021).
        """
        rng = random.Random(f"kinds:{self.seed}")
        drawn = {kind: _short(self.seeds, rng, len(self.seeds), is_classification=kind) for kind in (True, False)}
        cuts = {kind: min(KIND_DEMONSTRATIONS, (len(seeds) + 1) // 2) for kind, seeds in drawn.items()}
        shown: list[Demonstration] = [
            ({"instruction": task.instruction}, KINDS[kind]) for kind, seeds in drawn.items() for task in seeds[: cuts[kind]]
        ]
        rng.shuffle(shown)
        known = [task for kind, seeds in drawn.items() for task in seeds[cuts[kind] :]]
        texts = [task.instruction for task in known] + [task.instruction for task in tasks]
        requests = [self.prompter.weigh("kind", shown, instruction=text) for text in texts]
        weighed = [odds(reply.logprobs or {}) for reply in self._ask(requests, "seeds and instructions classified")]
        limit = best_limit([(value, task.is_classification) for value, task in zip(weighed, known, strict=False)])
        return [value > limit for value in weighed[len(known) :]]

    def kinds_answered(self, tasks: Sequence[Instruction]) -> list[bool | None]:
        """By the model's answer in words; None where it is neither yes nor no."""
        rng = random.Random(f"classification:{self.seed}")
        yes = _short(self.seeds, rng, CLASSIFICATION_DEMONSTRATIONS // 2, is_classification=True)
        no = _short(self.seeds, rng, CLASSIFICATION_DEMONSTRATIONS - len(yes), is_classification=False)
        shown: list[Demonstration] = [({"instruction": task.instruction}, "Yes") for task in yes]
        shown += [({"instruction": task.instruction}, "No") for task in no]
        rng.shuffle(shown)
        sampling = self.prompter.greedy(3)
        requests = [self.prompter.request("classification", shown, sampling, instruction=task.instruction) for task in tasks]
        replies = self._ask(requests, "instructions classified", lambda reply: says_yes(reply.text) is not None)
        return [says_yes(reply.text) for reply in replies]

    def instances(self, tasks: Sequence[Instruction], classified: Sequence[Classified]) -> list[Instance]:
        """`data.instances_per_task` examples with answers of each task."""
        kinds = {item.id: item.is_classification for item in classified}
        labels = self._labels([task for task in tasks if kinds[task.id]])
        if not self.prompter.data.classification_only:
            # A task without labels is no classification after all: it is answered like the others.
            labels = {identity: reply for identity, reply in labels.items() if parse_labels(reply.text)}
            kinds = {identity: kind and (True if identity in labels else None) for identity, kind in kinds.items()}
        by_label = self._by_label([task for task in tasks if kinds[task.id]], labels)
        by_input = self._by_input([task for task in tasks if not kinds[task.id]], kinds)
        positions = {task.id: position for position, task in enumerate(tasks)}
        return sorted((*by_label, *by_input), key=lambda item: (positions[item.task.id], item.number))

    def answers(self, tasks: Sequence[Instruction]) -> list[Instance]:
        """Answers to tasks that have their input, or need none."""
        replies = self._answers([(task, task.input, 0) for task in tasks], [], "answers")
        return [
            Instance(
                task=task, number=0, is_classification=None, input=task.input, output=reply.text, replies=(reply,),
                request=reply.key,
            )
            for task, reply in zip(tasks, replies, strict=True)
        ]  # fmt: skip

    def _by_input(self, tasks: Sequence[Instruction], kinds: Mapping[str, bool | None]) -> list[Instance]:
        """Input first, then the answer; also for tasks whose kind is unknown (`is_classification` stays None)."""
        shown = self._shown(is_classification=False)
        answers: list[Demonstration] = [({**_worked(task), "words": None}, task.output) for task in shown]
        pending = [_Unanswered(task=task, number=0, input=task.input) for task in tasks if task.complete]
        pending += self._inputs([task for task in tasks if not task.complete], shown)
        asked = [(each.task, each.input, each.number) for each in pending]
        return [
            Instance(
                task=each.task, number=each.number, is_classification=kinds[each.task.id], input=each.input,
                output=reply.text, replies=(*each.replies, reply), request=reply.key,
            )
            for each, reply in zip(pending, self._answers(asked, answers, "instances"), strict=True)
        ]  # fmt: skip

    def _inputs(self, tasks: Sequence[Instruction], seeds: Sequence[SeedTask]) -> list["_Unanswered"]:
        """Inputs that the model makes up, each after the earlier ones; a single empty one for a task that needs none."""
        shown: list[Demonstration] = [({"instruction": task.instruction}, task.input or "None") for task in seeds]
        pending: dict[str, list[_Unanswered]] = {task.id: [] for task in tasks}
        for number in range(self.prompter.data.instances_per_task):
            going = [task for task in tasks if all(each.input for each in pending[task.id])]
            requests = [
                self.prompter.request(
                    "input", shown, self.sampling, number,
                    instruction=task.instruction, earlier=[each.input for each in pending[task.id]],
                )
                for task in going
            ]  # fmt: skip
            for task, reply in zip(going, self._ask(requests, "inputs"), strict=True):
                given = no_input(reply.text)
                if given or not number:  # "no further input" is not an instance
                    pending[task.id].append(_Unanswered(task=task, number=number, input=given, replies=(reply,)))
        return [each for of_task in pending.values() for each in of_task]

    def _answers(self, asked: Sequence[tuple[Instruction, str, int]], shown: Sequence[Demonstration], unit: str) -> list[Reply]:
        """The answer to each (task, input, number); the best of several where those are wanted."""
        data = self.prompter.data
        tries = range(data.answers_per_task or 1)
        requests = [
            self._answer(task, given, shown, number + again * data.instances_per_task)
            for again in tries
            for task, given, number in asked
        ]
        replies = self._ask(requests, unit)
        if len(tries) == 1:
            return replies
        by = rating(self.model, self.prompter, self.on_progress)
        tasks = tasks_of(asked, self.seeds)
        best = choose(data.keep or Keep.first, tasks, [replies[at :: len(asked)] for at in range(len(asked))], by)
        self.candidates += best
        return [each.reply for each in best]

    def _answer(self, task: Instruction, given: str, shown: Sequence[Demonstration], number: int) -> Request:
        words = self.prompter.data.answer_words
        return self.prompter.request(
            "answer", shown, self.sampling, number, instruction=task.instruction, input=given, words=words
        )

    def _labels(self, tasks: Sequence[Instruction]) -> dict[str, Reply]:
        """The replies to the question for each task's labels, by its id."""
        schema = LABELS_SCHEMA if self.prompter.wants_json else None
        asked = [
            self.prompter.request("labels", [], self.sampling, instruction=task.instruction, schema=schema) for task in tasks
        ]
        replies = self._ask(asked, "label lists", lambda reply: bool(parse_labels(reply.text)))
        return {task.id: reply for task, reply in zip(tasks, replies, strict=True)}

    def _by_label(self, tasks: Sequence[Instruction], lists: Mapping[str, Reply]) -> list[Instance]:
        shown: list[Demonstration] = [
            ({"instruction": task.instruction, "label": task.output}, task.input or "None")
            for task in self._shown(is_classification=True)
        ]
        labels = {task.id: parse_labels(lists[task.id].text) for task in tasks}
        made: dict[str, list[Instance]] = {task.id: [] for task in tasks}
        for number in range(self.prompter.data.instances_per_task):
            turn = {task.id: label_in_turn(labels[task.id], task.id, number) for task in tasks}
            requests = [
                self.prompter.request(
                    "labelled_input", shown, self.sampling, number, instruction=task.instruction, label=turn[task.id],
                    earlier=[item.input for item in made[task.id] if item.output == turn[task.id] and item.input],
                )
                for task in tasks
            ]  # fmt: skip
            replies = self._ask(requests, "classification instances")
            for task, reply in zip(tasks, replies, strict=True):
                made[task.id].append(
                    Instance(
                        task=task, number=number, is_classification=True, input=no_input(reply.text), output=turn[task.id],
                        replies=(lists[task.id], reply), request=reply.key,
                    )
                )  # fmt: skip
        return [item for items in made.values() for item in items]

    def _shown(self, *, is_classification: bool) -> list[SeedTask]:
        rng = random.Random(f"instances:{self.seed}:{is_classification}")
        return _short(self.seeds, rng, self.prompter.data.instance_demonstrations, is_classification=is_classification)

    def _ask(self, requests: Sequence[Request], unit: str, usable: Callable[[Reply], bool] = lambda reply: True) -> list[Reply]:
        return self.model.reply_many(requests, counted(self.on_progress, len(requests), unit), usable)


def check(instances: Sequence[Instance]) -> tuple[list[Example], list[Rejected]]:
    """Examples out of instances; cut, empty, contradictory or otherwise faulty ones are rejected with a reason."""
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
            rejected.append(
                Rejected(
                    id=identity, text=item.task.instruction, reason=fault, nearest_id=item.task.nearest_id,
                    nearest_rouge=item.task.nearest_rouge, input=item.input or None, output=output or None, request=item.request,
                )
            )  # fmt: skip
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
    return {key for key, distinct in outputs.items() if len(distinct) > 1}


def _worked(task: SeedTask) -> dict[str, str]:
    return {"instruction": task.instruction, "input": task.input}


def _short(seeds: Sequence[SeedTask], rng: random.Random, wanted: int, *, is_classification: bool) -> list[SeedTask]:
    short = short_tasks([task for task in seeds if task.is_classification == is_classification])
    return rng.sample(short, min(wanted, len(short)))
