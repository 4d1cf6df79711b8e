"""What a stage will ask of an endpoint: requests, tokens and USD, guessed from the settings before anything is sent.

A guess, not a bound (the budget's caps are): the texts that will be written are taken to be as long as the seed tasks'
and as the settings ask. Never imports torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from minilima.config import Config, DataKind, EndpointConfig, GeneratorKind, JudgeKind, Orders, Pick
from minilima.construct.seeds import load_seeds
from minilima.evaluate.prompts import load_eval_set
from minilima.llm.budget import price_of
from minilima.records import SeedTask
from minilima.sources import FileSource, Sources

_CHARACTERS_A_TOKEN = 4
_TOKENS_A_WORD = 1.35
_ACCEPTED = 0.75
"""Share of the candidates that the filters let through."""
_TEMPLATE_TOKENS = 80
_ANSWER_TOKENS = 350
"""An answer to an AlpacaEval instruction."""

_KNOWN_SETS = {"alpaca_eval_gpt4_baseline": (805, 165)}
"""(prompts, characters of an instruction) of sets on the hub, so that their cost is known before they are fetched."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """`usd` is None where no price is known; a cap of the budget bounds it. `as_of` is the date of the price list."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    as_of: str | None


def estimate(role: str, config: Config, sources: Sources) -> Estimate | None:
    """The guess for a stage; None where it asks no endpoint, or its inputs are not there to guess from."""
    if role == "pool" and config.generator.kind == GeneratorKind.openai and config.data.kind != DataKind.file:
        if sources.seeds is None or sources.seeds.path is None:
            return None
        return _priced(_pool(config, _seeds(sources.seeds.path)), config.generator.model, config)
    asks = config.judge.kind == JudgeKind.openai or sources.annotators_ask_openai
    rounds = {"verdicts": 1, "model": config.sft.epochs - 1 if config.sft.select == Pick.judge else 0}.get(role, 0)
    judged = sources.dev_set if role == "model" else sources.eval_set
    lengths = _prompt_lengths(judged, config.eval_set.size if role == "verdicts" else None) if judged is not None else None
    if rounds and asks and lengths is not None:
        answers = 2 * _CHARACTERS_A_TOKEN * min(_ANSWER_TOKENS, config.eval.max_tokens)
        return estimate_judging(config, sources, [length + answers for length in lengths] * rounds)
    return None


def estimate_judging(config: Config, sources: Sources, shown: Sequence[int]) -> Estimate:
    """What a judge at an endpoint will be asked, given the characters of each pair's instruction and answers."""
    orders = 2 if config.judge.orders == Orders.both and sources.annotators is None else 1
    tokens = sum(math.ceil(characters / _CHARACTERS_A_TOKEN) + _TEMPLATE_TOKENS for characters in shown)
    guess = (orders * len(shown), orders * tokens, orders * len(shown) * config.judge.max_tokens)
    return _priced(guess, config.judge.model, config, of_judge=True)


def endpoints_of(config: Config, sources: Sources) -> dict[str, tuple[EndpointConfig, str | None]]:
    """The endpoints that this experiment asks, with the model's name there: of `generator`, of `judge`."""
    used: dict[str, tuple[EndpointConfig, str | None]] = {}
    if config.data.kind != DataKind.file and config.generator.kind == GeneratorKind.openai:
        used["generator"] = (config.generator.endpoint, config.generator.model)
    if config.judge.kind == JudgeKind.openai or sources.annotators_ask_openai:
        used["judge"] = (config.judge.endpoint, config.judge.model)
    return used


def count_prompts(source: FileSource, size: int | None) -> int | None:
    """How many prompts are answered; None where the evaluation set is neither on this machine nor a known one."""
    lengths = _prompt_lengths(source, size)
    return len(lengths) if lengths is not None else None


@cache
def _prompt_lengths(source: FileSource, size: int | None) -> tuple[int, ...] | None:
    """Characters of each instruction; their mean where a known set has not been fetched yet."""
    if source.path is not None:
        return tuple(len(prompt.instruction) for prompt in load_eval_set(source, size))
    number, characters = _KNOWN_SETS.get(source.name, (0, 0))
    return (characters,) * min(number, size or number) or None


@cache
def _seeds(path: Path) -> list[SeedTask]:
    return load_seeds(path)


def _priced(guess: tuple[int, int, int], model: str | None, config: Config, *, of_judge: bool = False) -> Estimate:
    requests, prompt, completion = guess
    endpoint = config.judge.endpoint if of_judge else config.generator.endpoint
    price = price_of(model, endpoint)
    usd = price.usd(prompt, completion) if price else None
    if usd is not None and endpoint.budget.usd is not None:
        usd = min(usd, endpoint.budget.usd)
    as_of = price.as_of if price else None
    return Estimate(requests=requests, prompt_tokens=prompt, completion_tokens=completion, usd=usd, as_of=as_of)


def _pool(config: Config, seeds: list[SeedTask]) -> tuple[int, int, int]:
    """(requests, prompt tokens, completion tokens) of all steps."""
    data = config.data
    instruction = _mean([_tokens(task.instruction) for task in seeds])
    given = _mean([_tokens(task.input) for task in seeds])
    answer = _TOKENS_A_WORD * data.answer_words if data.answer_words else _mean([_tokens(task.output) for task in seeds])
    if data.kind == DataKind.answers:
        return len(seeds), round(len(seeds) * (instruction + given + _TEMPLATE_TOKENS)), round(len(seeds) * answer)
    whole = instruction + given + (answer if data.kind == DataKind.alpaca else 0)
    written = whole if data.kind == DataKind.alpaca else instruction
    asks = math.ceil(data.instructions / _ACCEPTED / data.instructions_per_request)
    prompt = asks * (data.demonstrations * written + _TEMPLATE_TOKENS)
    completion = asks * data.instructions_per_request * written
    if data.kind == DataKind.alpaca:
        return asks, round(prompt), round(completion)
    # Classification or not, then the two halves of each instance, each after worked demonstrations.
    instances = data.instructions * data.instances_per_task
    shown = data.instance_demonstrations * (instruction + given + answer)
    prompt += data.instructions * (4 * instruction + _TEMPLATE_TOKENS) + 2 * instances * (shown + instruction + _TEMPLATE_TOKENS)
    completion += data.instructions * 2 + instances * (given + answer)
    return asks + data.instructions + 2 * instances, round(prompt), round(completion)


def _tokens(text: str) -> int:
    return math.ceil(len(text) / _CHARACTERS_A_TOKEN)


def _mean(values: list[int]) -> float:
    return sum(values) / max(1, len(values))
