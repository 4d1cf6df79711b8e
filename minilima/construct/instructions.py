"""Step 1: new instructions, from demonstrations out of a pool that grows with what was accepted.

Works in rounds: the prompts of round r are drawn from the pool as it stood after round r - 1, each with random numbers of
its own, and their results are accepted in order. So the result does not depend on concurrency or arrival order, and an
interrupted run repeats its prompts exactly and finds their replies in the cache.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from minilima.config import DataConfig
from minilima.construct.filters import instruction_fault
from minilima.construct.rouge import RougeIndex
from minilima.llm.cache import CachedModel
from minilima.llm.chat import Reply, Request, Sampling, ask
from minilima.prompts import render
from minilima.records import Progress, Rejected, SeedTask, Tell

SATURATED_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """An accepted machine-written instruction, with where it came from."""

    id: str
    instruction: str
    round: int
    parents: tuple[str, ...]
    """Ids of the demonstrations in its prompt."""
    nearest_id: str | None
    nearest_rouge: float | None


@dataclass(kw_only=True)
class Growth:
    """The pool while it grows: accepted and rejected candidates and the yield of each round."""

    accepted: list[Instruction] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    rounds: list[dict[str, int]] = field(default_factory=list)
    stopped: str = "target"


def grow(seeds: Sequence[SeedTask], model: CachedModel, data: DataConfig, sampling: Sampling, seed: int, tell: Tell) -> Growth:
    """Asks for new instructions until the target is met, the pool is saturated, or the rounds are used up."""
    growth = Growth()
    index = RougeIndex()
    for task in seeds:
        index.add(task.id, task.instruction)
    for number in range(data.max_rounds):
        drawn = [_draw(seeds, growth.accepted, data, seed, number, slot) for slot in range(data.requests_per_round)]
        requests = [
            _request([text for _, text in demonstrations], data, sampling, slot) for slot, demonstrations in enumerate(drawn)
        ]
        replies = model.reply_many(requests)
        before = len(growth.accepted)
        for slot, (demonstrations, reply) in enumerate(zip(drawn, replies, strict=True)):
            parents = tuple(identity for identity, _ in demonstrations)
            _accept(parse_list(reply), growth, index, data, number, slot, parents)
        gained = len(growth.accepted) - before
        candidates = gained + sum(item.id.startswith(f"r{number}.") for item in growth.rejected)
        growth.rounds.append({"round": number, "candidates": candidates, "accepted": gained})
        note = f"round {number + 1}, {len(growth.rejected):,} rejected"
        tell(Progress(done=len(growth.accepted), total=data.instructions, unit="instructions", note=note))
        if len(growth.accepted) >= data.instructions:
            return growth
        if _saturated(growth.rounds, data.saturation):
            growth.stopped = "saturation"
            return growth
    growth.stopped = "max_rounds"
    return growth


def _draw(
    seeds: Sequence[SeedTask], machine: Sequence[Instruction], data: DataConfig, seed: int, number: int, slot: int
) -> list[tuple[str, str]]:
    """(id, text) of the demonstrations of one prompt: some machine-written ones if there are any, the rest seeds, shuffled."""
    rng = random.Random(f"instructions:{seed}:{number}:{slot}")
    written = rng.sample(machine, min(data.machine_demonstrations, len(machine)))
    human = rng.sample(seeds, min(data.demonstrations - len(written), len(seeds)))
    drawn = [*((item.id, item.instruction) for item in written), *((task.id, task.instruction) for task in human)]
    rng.shuffle(drawn)
    return [(identity, " ".join(text.split()).rstrip(":")) for identity, text in drawn]


def _request(tasks: Sequence[str], data: DataConfig, sampling: Sampling, slot: int) -> Request:
    prompt = render("pool/instructions", tasks=tasks, wanted=data.instructions_per_request)
    return Request(messages=ask(prompt), sampling=sampling, sample=slot, prefill="1.")


_ITEM = re.compile(r"(?:^|(?<=[.?!])\s)\s*(?:\d+\s*[.)]\s+)+(?=\S)", re.MULTILINE)
_DECORATION = re.compile(r"^(\*\*|[\"“'])(.*?)(\*\*|[\"”'])$", re.DOTALL)


def parse_list(reply: Reply) -> list[str]:
    """The items of a numbered list. Double numbers (`1. 1. …`) count once; an item that was cut is dropped."""
    items = _ITEM.split(reply.text)[1:]
    if reply.finish == "length" and items:
        items = items[:-1]
    cleaned = []
    for item in items:
        text = " ".join(item.split())
        text = _DECORATION.sub(r"\2", text).strip()
        cleaned.append(text)
    return cleaned


def _accept(
    candidates: Sequence[str],
    growth: Growth,
    index: RougeIndex,
    data: DataConfig,
    number: int,
    slot: int,
    parents: tuple[str, ...],
) -> None:
    for place, text in enumerate(candidates):
        if len(growth.accepted) >= data.instructions:
            return
        identity = f"r{number}.{slot}.{place}"
        fault = instruction_fault(text, min_words=data.min_words, max_words=data.max_words, blocked_words=data.blocked_words)
        nearest = index.nearest(text)
        near = {"nearest_id": nearest.id, "nearest_rouge": round(nearest.rouge, 4)} if nearest else {}
        if fault is None and nearest is not None and nearest.rouge > data.max_similarity:
            fault = "near_duplicate"
        if fault is not None:
            growth.rejected.append(Rejected(id=identity, text=text, reason=fault, **near))  # type: ignore[arg-type]
            continue
        index.add(identity, text)
        growth.accepted.append(
            Instruction(
                id=identity,
                instruction=text,
                round=number,
                parents=parents,
                nearest_id=nearest.id if nearest else None,
                nearest_rouge=round(nearest.rouge, 4) if nearest else None,
            )
        )


def _saturated(rounds: Sequence[dict[str, int]], share: float) -> bool:
    last = rounds[-SATURATED_ROUNDS:]
    return len(last) == SATURATED_ROUNDS and all(item["accepted"] < max(1, share * item["candidates"]) for item in last)
