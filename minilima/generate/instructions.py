"""Step 1: new tasks, from demonstrations out of a pool that grows with what was accepted.

Works in rounds: the prompts of round r are drawn from the pool as it stood after round r - 1, each with random numbers of
its own, and their results are accepted in order. So the result does not depend on concurrency or arrival order, and an
interrupted run repeats its prompts exactly and finds their replies in the cache.
"""

import bisect
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from minilima.config.choices import DataKind
from minilima.config.schema import BudgetConfig, DataConfig
from minilima.formats.records import Example, OnProgress, Progress, Rejected, SeedTask, user_text
from minilima.formats.seeds import short_tasks
from minilima.generate.filters import instruction_fault
from minilima.generate.imperatives import asks, points_to_an_input
from minilima.generate.methods import Candidate, Demo, Method
from minilima.models.budget import Spend, covers
from minilima.models.cache import UNUSABLE, CachedModel
from minilima.models.chat import FAILED, Reply
from minilima.rouge import Nearest, RougeIndex

SATURATED_ROUNDS = 3

_REQUESTS_A_TASK = {DataKind.self_instruct: 4, DataKind.magpie: 1}
"""Requests that each accepted task still needs. self_instruct: is it a classification task, its labels, an input, an output;
magpie: an answer; alpaca: none."""
_PROMPT_TOKENS = 2000
"""Upper bound for the prompt of one such request, to decide whether a budget covers all of them."""
_SHOWN = 200
"""Characters of a reply without a readable task that rejected.jsonl shows."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """An accepted machine-written task, with where it came from."""

    id: str
    instruction: str
    input: str = ""
    output: str | None = None
    """Set where the model wrote the whole example in one reply."""
    complete: bool = False
    """Whether the input was written too, even if it is empty."""
    round: int
    parents: tuple[str, ...]
    """Ids of the demonstrations in its prompt."""
    request: str
    """Key of the raw reply in the reply cache."""
    nearest_id: str | None
    nearest_rouge: float | None
    most_similar: dict[str, float] = field(default_factory=dict)
    """ROUGE-L F1 with the ten most similar earlier instructions."""
    mean_rouge: float | None = None
    """Mean ROUGE-L F1 with all earlier ones."""


@dataclass(kw_only=True)
class Growth:
    """The pool while it grows: accepted and rejected candidates, and what each round yielded."""

    accepted: list[Instruction] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    rounds: list[dict[str, int]] = field(default_factory=list)
    spent: Spend = field(default_factory=Spend)
    """Cost of all replies so far, cached ones included, so that a resumed run stops where an uninterrupted one does."""
    stopped: str = "target"


def grow(
    seeds: Sequence[SeedTask],
    model: CachedModel,
    method: Method,
    data: DataConfig,
    seed: int,
    on_progress: OnProgress,
    budget: BudgetConfig | None = None,
) -> Growth:
    """Asks for new tasks until there are enough, or saturation, the budget, `max_minutes` or `max_rounds` stops it."""
    growth = Growth()
    index = RougeIndex(data.tokenizer)
    for task in seeds:
        index.add(task.id, task.instruction)
    shown_seeds = [task for task in seeds if task.is_classification or not data.classification_only]
    if method.whole:
        shown_seeds = short_tasks(shown_seeds)
    started = time.monotonic()
    for number in range(data.max_rounds):
        most = data.instructions if budget is None else _affordable(budget, growth, data)
        if most <= len(growth.accepted):
            growth.stopped = "budget"
            return growth
        _round(number, shown_seeds, growth, index, model, method, replace(data, instructions=most), seed)
        note = f"round {number + 1}, {len(growth.rejected):,} rejected"
        on_progress(Progress(done=len(growth.accepted), total=data.instructions, unit="instructions", note=note))
        if len(growth.accepted) >= data.instructions:
            return growth
        if _saturated(growth.rounds, data.saturation):
            growth.stopped = "saturation"
            return growth
        if data.max_minutes is not None and time.monotonic() - started > 60 * data.max_minutes:
            growth.stopped = "max_minutes"
            return growth
    growth.stopped = "max_rounds"
    return growth


def _round(
    number: int,
    seeds: Sequence[SeedTask],
    growth: Growth,
    index: RougeIndex,
    model: CachedModel,
    method: Method,
    data: DataConfig,
    seed: int,
) -> None:
    slots = range(data.requests_per_round)
    drawn = [_draw(seeds, growth.accepted, method.demonstrations, data, f"{seed}:{number}:{slot}") for slot in slots]
    requests = [method.request(shown, number * data.requests_per_round + slot) for slot, shown in enumerate(drawn)]
    asked_before = model.usage.faults.get(UNUSABLE, 0)
    replies = model.reply_many(requests, usable=lambda reply: bool(method.parse(reply)))
    growth.spent += Spend(requests=model.usage.faults.get(UNUSABLE, 0) - asked_before)
    before, written = len(growth.accepted), 0
    for slot, (shown, request, reply) in enumerate(zip(drawn, requests, replies, strict=True)):
        candidates = method.parse(reply)
        parents = tuple(task.id for task in shown)
        written += len(candidates)
        identity, key = f"r{number}.{slot}", reply.key or request.key(model.name)
        _accept(candidates, growth, index, data, identity, number, parents, key)
        if (fault := _reply_fault(reply, candidates)) is not None:
            # A cut reply is shown by its end, an unreadable one by its beginning.
            text = reply.text.strip()[-_SHOWN:] if fault == "truncated" else reply.text.strip()[:_SHOWN]
            growth.rejected.append(Rejected(id=identity, text=text, reason=fault, request=key))
        growth.spent = _after(growth.spent, reply)
    growth.rounds.append({"round": number, "candidates": written, "accepted": len(growth.accepted) - before})


def _reply_fault(reply: Reply, candidates: Sequence[Candidate]) -> str | None:
    """What was lost of a reply (all of it, or the task in which it was cut), so that rejected.jsonl lists it; None: nothing."""
    if reply.finish == FAILED:
        return "no_reply"
    if reply.finish == "length":
        return "truncated"
    return None if candidates else "unreadable"


def _draw(seeds: Sequence[SeedTask], machine: Sequence[Instruction], wanted: int, data: DataConfig, drawn_for: str) -> list[Demo]:
    """The demonstrations of one prompt: some machine-written ones if there are any, the rest seeds, shuffled."""
    rng = random.Random(f"instructions:{drawn_for}")
    written = rng.sample(machine, min(data.machine_demonstrations, wanted // 2, len(machine)))
    drawn: list[Demo] = [_as_example(item) for item in written]
    drawn += rng.sample(seeds, min(wanted - len(written), len(seeds)))
    rng.shuffle(drawn)
    return drawn


def _as_example(item: Instruction) -> Example:
    return Example(id=item.id, instruction=item.instruction, input=item.input, output=item.output or "", source="machine")


def _accept(
    candidates: Sequence[Candidate],
    growth: Growth,
    index: RougeIndex,
    data: DataConfig,
    prefix: str,
    number: int,
    parents: tuple[str, ...],
    request: str,
) -> None:
    for position, candidate in enumerate(candidates):
        if len(growth.accepted) >= data.instructions:
            return
        identity, text = f"{prefix}.{position}", candidate.instruction
        if data.must_ask and not points_to_an_input(text):
            candidate = replace(candidate, input="")
        nearest = index.nearest(text)
        if (fault := _fault(candidate, nearest, data)) is not None:
            near = {"nearest_id": nearest.id, "nearest_rouge": round(nearest.rouge, 4)} if nearest else {}
            whole = {"input": candidate.input or None, "output": candidate.output, "request": request}
            growth.rejected.append(Rejected(id=identity, text=text, reason=fault, **near, **whole))  # type: ignore[arg-type]
            continue
        index.add(identity, text)
        growth.accepted.append(
            Instruction(
                id=identity,
                instruction=text,
                input=candidate.input,
                output=candidate.output,
                complete=candidate.complete,
                round=number,
                parents=parents,
                request=request,
                nearest_id=nearest.id if nearest else None,
                nearest_rouge=round(nearest.rouge, 4) if nearest else None,
                most_similar=nearest.most_similar if nearest else {},
                mean_rouge=round(nearest.mean, 4) if nearest else None,
            )
        )


def _fault(candidate: Candidate, nearest: Nearest | None, data: DataConfig) -> str | None:
    fault = instruction_fault(candidate.instruction, data)
    if fault is None and data.must_ask and not asks(user_text(candidate.instruction, candidate.input)):
        return "asks_nothing"
    if fault is None and nearest is not None and nearest.rouge > data.max_similarity:
        return "near_duplicate"
    return fault


def _affordable(budget: BudgetConfig, growth: Growth, data: DataConfig) -> int:
    """How many tasks the pool may have after another round if the caps are to cover the instances of all of them, at worst."""
    a_round = data.requests_per_round
    # A cap in USD needs a price; with one, the mean price per token so far is the best estimate.
    usd_a_token = growth.spent.usd / growth.spent.tokens if growth.spent.tokens else 0.0
    whole = data.instructions_per_request * data.instance_tokens if data.kind == DataKind.alpaca else 0
    round_tokens = a_round * (_PROMPT_TOKENS + data.instruction_tokens + whole)

    def worst(tasks: int) -> Spend:
        later = tasks * _REQUESTS_A_TASK.get(data.kind, 0) * data.instances_per_task
        tokens = round_tokens + later * (_PROMPT_TOKENS + data.instance_tokens)
        return growth.spent + Spend(requests=a_round + later, tokens=tokens, usd=usd_a_token * tokens)

    return bisect.bisect_left(range(data.instructions), True, key=lambda tasks: not covers(budget, worst(tasks + 1)))


def _after(spent: Spend, reply: Reply) -> Spend:
    tokens = reply.prompt_tokens + reply.completion_tokens
    return spent + Spend(requests=1, tokens=tokens, usd=reply.usd or 0.0)


def _saturated(rounds: Sequence[dict[str, int]], share: float) -> bool:
    last = rounds[-SATURATED_ROUNDS:]
    return len(last) == SATURATED_ROUNDS and all(item["accepted"] < max(1, share * item["candidates"]) for item in last)
