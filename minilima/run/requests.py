"""What a stage will ask of an endpoint: requests, tokens and USD, guessed from the settings before anything is sent.

A guess, not a bound (the budget's caps are): the texts that will be written are taken to be as long as the seed tasks'
and as the settings ask. Never imports torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from minilima.config.choices import DataKind, GeneratorKind, JudgeKind, Orders, Pick, Select
from minilima.config.schema import Config, EndpointConfig
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.imports import read_tasks
from minilima.formats.records import Example, SeedTask
from minilima.formats.seeds import load_seeds
from minilima.generate.import_pool import read_source
from minilima.models.budget import price_of
from minilima.store.sources import FileSource, Sources

_CHARACTERS_A_TOKEN = 4
_TOKENS_A_WORD = 1.35
_ACCEPTED = 0.75
"""Share of the candidates that the filters let through."""
_TEMPLATE_TOKENS = 80
_ANSWER_TOKENS = 350
"""An answer to an AlpacaEval instruction."""
_CHARACTERS_A_WORD = 6
_REQUEST_CHARACTERS = 100
"""What a user asks, where there are no seeds to go by."""
_RATING_TOKENS = 2

_Guess = tuple[int, int, int]
"""Requests, prompt tokens, completion tokens."""

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
    if config.generator.kind == GeneratorKind.openai and role in ("pool", "dataset"):
        guess = _pool(config, sources) if role == "pool" else _ratings(config, sources)
        return None if guess is None else _priced(guess, config.generator.model, config)
    asks = config.judge.kind == JudgeKind.openai or sources.annotators_ask_openai
    rounds = {"verdicts": 1, "model": config.sft.epochs - 1 if config.epoch.select == Pick.judge else 0}.get(role, 0)
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
    asks = config.data.kind != DataKind.file or config.dataset.select == Select.quality
    if asks and config.generator.kind == GeneratorKind.openai:
        used["generator"] = (config.endpoints.generator, config.generator.model)
    if config.judge.kind == JudgeKind.openai or sources.annotators_ask_openai:
        used["judge"] = (config.endpoints.judge, config.judge.model)
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


def _priced(guess: _Guess, model: str | None, config: Config, *, of_judge: bool = False) -> Estimate:
    requests, prompt, completion = guess
    endpoint = config.endpoints.judge if of_judge else config.endpoints.generator
    price = price_of(model, endpoint)
    usd = price.usd(prompt, completion) if price else None
    if usd is not None and endpoint.budget.usd is not None:
        usd = min(usd, endpoint.budget.usd)
    as_of = price.as_of if price else None
    return Estimate(requests=requests, prompt_tokens=prompt, completion_tokens=completion, usd=usd, as_of=as_of)


def _pool(config: Config, sources: Sources) -> _Guess | None:
    """What all steps together ask for."""
    data = config.data
    if data.kind == DataKind.file:
        return None
    tasks = _given(config, sources)
    if tasks is None:
        return None
    instruction, given, written = (_mean([_tokens(task[place]) for task in tasks]) for place in range(3))
    answer = _TOKENS_A_WORD * data.answer_words if data.answer_words else written
    if data.kind == DataKind.answers:
        return len(tasks), round(len(tasks) * (instruction + given + _TEMPLATE_TOKENS)), round(len(tasks) * answer)
    each = 1 if data.kind == DataKind.magpie else data.instructions_per_request
    # Whole rounds are asked for.
    asks = math.ceil(data.instructions / _ACCEPTED / each / data.requests_per_round) * data.requests_per_round
    if data.kind == DataKind.magpie:
        prompt = asks * _TEMPLATE_TOKENS + data.instructions * (instruction + _TEMPLATE_TOKENS)
        return asks + data.instructions, round(prompt), round(asks * instruction + data.instructions * answer)
    whole = instruction + given + answer if data.kind == DataKind.alpaca else instruction
    prompt = asks * (data.demonstrations * whole + _TEMPLATE_TOKENS)
    completion = asks * each * whole
    if data.kind == DataKind.alpaca:
        return asks, round(prompt), round(completion)
    # Classification or not, then the two halves of each instance, each after worked demonstrations; labels are listed once.
    instances = data.instructions * data.instances_per_task
    questions = 0 if data.classification_only else data.instructions
    halves = instances + (data.instructions if data.classification_only else instances)
    shown = data.instance_demonstrations * (instruction + given + answer)
    prompt += questions * (4 * instruction + _TEMPLATE_TOKENS) + halves * (shown + instruction + _TEMPLATE_TOKENS)
    completion += questions * 2 + instances * (given + answer)
    return asks + questions + halves, round(prompt), round(completion)


def _ratings(config: Config, sources: Sources) -> _Guess | None:
    """One short reply to each example that may be chosen, where the generator rates them."""
    data, dataset = config.data, config.dataset
    if dataset.select != Select.quality:
        return None
    if data.kind == DataKind.file:
        characters = [len(example.instruction) + len(example.output) for example in _examples(sources.data)]
    else:
        tasks = _given(config, sources) or []
        each = _mean([sum(map(len, task)) for task in tasks]) + (data.answer_words or 0) * _CHARACTERS_A_WORD
        answers = len(tasks) if data.kind == DataKind.answers else data.instructions * data.instances_per_task
        characters = [round(each)] * answers
    if dataset.include_seeds and sources.seeds is not None and sources.seeds.path is not None:
        characters += [len(task.instruction) + len(task.input) + len(task.output) for task in _seeds(sources.seeds.path)]
    tokens = sum(math.ceil(count / _CHARACTERS_A_TOKEN) + _TEMPLATE_TOKENS for count in characters)
    return (len(characters), tokens, len(characters) * _RATING_TOKENS) if characters else None


def _given(config: Config, sources: Sources) -> list[tuple[str, str, str]] | None:
    """(instruction, input, answer) of the tasks to be answered, or of the seeds; None where they are not there to be read."""
    if config.data.kind == DataKind.answers and sources.data is not None:
        path = sources.data.path
        return None if path is None else [(instruction, given, "") for _, instruction, given in read_tasks(path)]
    if config.data.kind == DataKind.magpie and sources.seeds is None:
        return [(" " * _REQUEST_CHARACTERS, "", " " * (_CHARACTERS_A_TOKEN * _ANSWER_TOKENS))]
    if sources.seeds is None or sources.seeds.path is None:
        return None
    return [(task.instruction, task.input, task.output) for task in _seeds(sources.seeds.path)]


@cache
def _examples(source: FileSource | None) -> list[Example]:
    return [] if source is None or source.path is None else read_source(source).examples


def _tokens(text: str) -> int:
    return math.ceil(len(text) / _CHARACTERS_A_TOKEN)


def _mean(values: list[int]) -> float:
    return sum(values) / max(1, len(values))
