"""Several answers to a task, of which one is kept (best-of-n): candidates.jsonl has all of them, preferences.jsonl pairs of them.

    replies of each task ─> scores, by data.keep ─> the best one, and the worst that differs from it: chosen, rejected
A reply that was cut or never came is kept only where no other did better. Pure, but for the ratings of data.keep=judge.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minilima.config.choices import Keep
from minilima.formats.records import Example, OnProgress, SeedTask
from minilima.formats.words import count_words
from minilima.generate.instructions import Instruction
from minilima.generate.prompting import Prompter
from minilima.generate.quality import rate
from minilima.models.cache import CachedModel
from minilima.models.chat import Reply
from minilima.rouge import RougeIndex


@dataclass(frozen=True, kw_only=True)
class Task:
    """What was asked, with the reference answer where there is one."""

    id: str
    instruction: str
    input: str
    reference: str | None = None


Rate = Callable[[Sequence[tuple[Task, str]]], list[float | None]]
"""Ratings of answers to tasks; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The answers to one task, their scores, and which of them is kept."""

    task: Task
    replies: tuple[Reply, ...]
    scores: tuple[float, ...]
    kept: int

    @property
    def reply(self) -> Reply:
        """The answer that is kept."""
        return self.replies[self.kept]

    def row(self) -> dict[str, Any]:
        """As candidates.jsonl lists it."""
        outputs = [reply.text.strip() for reply in self.replies]
        asked = {"id": self.task.id, "instruction": self.task.instruction, "input": self.task.input}
        return {**asked, "outputs": outputs, "scores": list(self.scores), "kept": self.kept}

    def pair(self) -> dict[str, Any] | None:
        """The kept answer and the worst one that is not as good, for preference training; None where there is none."""
        best = self.scores[self.kept]
        worse = [index for index, score in enumerate(self.scores) if score < best and self.replies[index].text.strip()]
        if not worse or not self.reply.text.strip():
            return None
        worst = min(worse, key=lambda index: self.scores[index])
        asked = {"id": self.task.id, "instruction": self.task.instruction, "input": self.task.input}
        return {**asked, "chosen": self.reply.text.strip(), "rejected": self.replies[worst].text.strip()}


def tasks_of(asked: Sequence[tuple[Instruction, str, int]], seeds: Sequence[SeedTask]) -> list[Task]:
    """The tasks, each with its input, and with the seed task's own answer where it is one."""
    own = {task.id: task.output for task in seeds}
    return [Task(id=task.id, instruction=task.instruction, input=given, reference=own.get(task.id)) for task, given, _ in asked]


def rating(model: CachedModel, prompter: Prompter, on_progress: OnProgress) -> Rate:
    """Ratings from 1 to 10 by the model that writes, as dataset.select=quality asks for them."""

    def by(answers: Sequence[tuple[Task, str]]) -> list[float | None]:
        examples = [
            Example(id=task.id, instruction=task.instruction, input=task.input, output=text, source="machine")
            for task, text in answers
        ]
        return rate(examples, model, prompter, on_progress)

    return by


def choose(keep: Keep, tasks: Sequence[Task], replies: Sequence[Sequence[Reply]], rate: Rate) -> list[Candidates]:
    """The best answer of each task; of equals the one that was written first."""
    whole = [[reply.finish == "stop" and bool(reply.text.strip()) for reply in own] for own in replies]
    scores = _scores(keep, tasks, replies, rate)
    chosen = []
    for task, own, good, values in zip(tasks, replies, whole, scores, strict=True):
        kept = max(range(len(own)), key=lambda index: (good[index], values[index]))
        lowest = min(values) - 1
        fair = tuple(value if fit else lowest for value, fit in zip(values, good, strict=True))
        chosen.append(Candidates(task=task, replies=tuple(own), scores=fair, kept=kept))
    return chosen


def _scores(keep: Keep, tasks: Sequence[Task], replies: Sequence[Sequence[Reply]], rate: Rate) -> list[list[float]]:
    if keep == Keep.judge:
        asked = [(task, reply.text) for task, own in zip(tasks, replies, strict=True) for reply in own]
        ratings = iter(rate(asked))
        return [[next(ratings) or 0.0 for _ in own] for own in replies]
    if keep == Keep.longest:
        return [[float(count_words(reply.text)) for reply in own] for own in replies]
    if keep == Keep.majority:
        said = [[" ".join(reply.text.lower().split()).rstrip(".!") for reply in own] for own in replies]
        return [[float(Counter(own)[text]) for text in own] for own in said]
    if keep == Keep.reference:
        return [[closeness(task.reference, reply.text) for reply in own] for task, own in zip(tasks, replies, strict=True)]
    return [[0.0] * len(own) for own in replies]


def closeness(reference: str | None, answer: str) -> float:
    """ROUGE-L F1 of an answer with the reference answer, 0 to 1; 0 where there is none."""
    index = RougeIndex()
    index.add("reference", reference or "")
    nearest = index.nearest(answer)
    return nearest.rouge if nearest else 0.0
