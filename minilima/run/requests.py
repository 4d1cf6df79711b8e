"""What stages will ask of an endpoint: requests, tokens and USD, guessed from the settings before anything is sent.

A guess, not a bound (the budget's caps are): the texts that will be written are taken to be as long as the seed tasks'
and as the settings ask. Each stage's own guess stands with it in run/stages/. Never imports torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from minilima.config.choices import JudgeKind, Orders
from minilima.config.schema import Config, EndpointConfig
from minilima.evaluate.judge_forms import form_named
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.records import SeedTask
from minilima.formats.seeds import load_seeds
from minilima.models.budget import price_of
from minilima.store.sources import FileSource, Sources

CHARACTERS_A_TOKEN = 4
TOKENS_A_WORD = 1.35
TEMPLATE_TOKENS = 80
ANSWER_TOKENS = 350
"""An answer to an AlpacaEval instruction."""

Guess = tuple[int, int, int]
"""Requests, prompt tokens, completion tokens."""

_KNOWN_SETS = {"alpaca_eval_gpt4_baseline": (805, 165)}
"""(prompts, characters of an instruction) of sets on the hub, so that their cost is known before they are fetched."""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """`usd` is None where no price is known; a cap of the budget bounds it. `as_of` is the date of the price list."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    as_of: str | None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def priced(guess: Guess, model: str | None, endpoint: EndpointConfig) -> Requests:
    """A guess with what it costs at the endpoint."""
    requests, prompt, completion = guess
    price = price_of(model, endpoint)
    usd = price.usd(prompt, completion) if price else None
    if usd is not None and endpoint.budget.usd is not None:
        usd = min(usd, endpoint.budget.usd)
    as_of = price.as_of if price else None
    return Requests(requests=requests, prompt_tokens=prompt, completion_tokens=completion, usd=usd, as_of=as_of)


def requests_of_judge(config: Config, sources: Sources, shown: Sequence[int]) -> Requests:
    """What a judge at an endpoint will be asked, given the characters of each pair's instruction and answers."""
    scored = config.judge.kind in (JudgeKind.openai, JudgeKind.local) and form_named(config.judge.prompt).alone
    if scored:  # each of two answers, with the instruction
        shown = [characters // 2 for characters in shown]
    rubric = sources.rubric.path.stat().st_size if sources.rubric is not None and sources.rubric.path is not None else 0
    shown = [characters + rubric for characters in shown]
    orders = 2 if scored or (config.judge.orders == Orders.both and sources.annotators is None) else 1
    prompt = sum(math.ceil(characters / CHARACTERS_A_TOKEN) + TEMPLATE_TOKENS for characters in shown)
    guess = (orders * len(shown), orders * prompt, orders * len(shown) * config.judge.max_tokens)
    return priced(guess, config.judge.model, config.endpoints.judge)


def count_prompts(source: FileSource, size: int | None) -> int | None:
    """How many prompts are answered; None where the evaluation set is neither on this machine nor a known one."""
    lengths = prompt_lengths(source, size)
    return len(lengths) if lengths is not None else None


@cache
def prompt_lengths(source: FileSource, size: int | None) -> tuple[int, ...] | None:
    """Characters of each instruction; their mean where a known set has not been fetched yet."""
    if source.path is not None:
        return tuple(len(prompt.instruction) for prompt in load_eval_set(source.path, size))
    number, characters = _KNOWN_SETS.get(source.name, (0, 0))
    return (characters,) * min(number, size or number) or None


@cache
def seed_tasks(path: Path) -> list[SeedTask]:
    """The seed tasks, read once."""
    return load_seeds(path)


def tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_A_TOKEN)


def mean(values: Sequence[int]) -> float:
    return sum(values) / max(1, len(values))
