"""The pool of tasks: written by the generator from the seeds, or imported."""

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from minilima.config.choices import BEGINS_WITH_TASKS, DataKind, GeneratorKind, Keep, Style, Tokenizer, Until
from minilima.config.schema import Config
from minilima.console import count
from minilima.errors import MinilimaError
from minilima.formats.imports import Imported, Reading, read_tasks, read_texts, uses_context
from minilima.formats.records import OnProgress
from minilima.formats.seeds import load_seeds
from minilima.generate.import_pool import read_source, reading
from minilima.run.requests import (
    ANSWER_TOKENS,
    CHARACTERS_A_TOKEN,
    TEMPLATE_TOKENS,
    TOKENS_A_WORD,
    Guess,
    Requests,
    mean,
    priced,
    seed_tasks,
    tokens,
)
from minilima.run.spec import Manifest, Manifests, Spec, Work, work
from minilima.store.job import Job, Outcome
from minilima.store.sources import FileSource, Sources

IMPORT_READER = 2
"""Version of formats/imports.py alone: generated pools need not be made again when it changes."""
_ADDED_LATER = ("reasoning_effort", "extra_body")
"""Enter the key where they are set."""
_LATER_READER = 3
"""The version for files that IMPORT_READER read wrongly, so that all other imports stay valid."""
_NEWEST_READER = 4
"""The version for files with marks of what is not to be learnt that the other two did not know."""
_OF_IMPORTS = ("path", "hub_file", "hub", "revision", "columns", "side", "on_bad_row")
"""Settings of `data` that enter the key by the content of what they name, or by how it is read."""
_ACCEPTED = 0.75
"""Share of the candidates that the filters let through."""
_GROWTH = 1.6
"""How much longer an evolved task is than the one it came from."""
_REQUEST_CHARACTERS = 100
"""What a user asks, where there are no seeds to go by."""


def writes_here(config: Config) -> bool:
    """Whether a model on this machine writes the pool."""
    return config.data.kind != DataKind.file and config.generator.kind == GeneratorKind.local


def writer(config: Config, sources: Sources) -> Any:
    """The model that writes, as keys know it: its name at an endpoint, or what its weights are."""
    local = config.generator.kind == GeneratorKind.local
    return (sources.generator or sources.base).recipe() if local else config.generator.model


def _recipe(config: Config, sources: Sources) -> dict[str, Any]:
    file, pinned = (sources.data.sha256, sources.data.hub) if sources.data is not None else (None, None)
    if config.data.kind == DataKind.file:
        return {"kind": DataKind.file, "file": file, "hub": pinned, "reader": _reader(config, sources), **_how(config)}
    generator = config.generator
    asked = ("kind", "temperature", "top_p", "repetition_penalty", "presence_penalty", "style")
    recipe: dict[str, Any] = {
        **{name: getattr(generator, name) for name in asked},
        **{name: value for name, value in vars(config.data).items() if name not in _OF_IMPORTS},
        "tokenizer": tokenizer_key(config),
        "json_schema": generator.json_schema or None,
        **{name: value for name in _ADDED_LATER if (value := getattr(generator, name))},
        "file": file,
        "hub": pinned,
        "reader": _reader_of_tasks(config, sources),
        **_how(config),
        "seeds": sources.seeds.sha256 if sources.seeds is not None else None,
        "seed": config.seed,
        "model": writer(config, sources),
    }
    return recipe if writes_here(config) else {**recipe, "budget": _caps(config)}


def tokenizer_key(config: Config) -> str:
    """`auto` has the key that `rouge` had when it was the default, since both give the same for English."""
    names = {Tokenizer.auto: "rouge", Tokenizer.rouge: "rouge_score"}
    return names.get(config.data.tokenizer, str(config.data.tokenizer))


def _how(config: Config) -> dict[str, Any]:
    """How the table is read, where it is not as ever."""
    how = reading(config.data)
    return {"columns": dict(how.columns) or None, "side": config.data.side, "on_bad_row": "reject" if how.reject else None}


@cache
def imported(source: FileSource, how: Reading) -> Imported:
    """The rows of an import, read once a command."""
    return read_source(source, how)


def _reader(config: Config, sources: Sources) -> int:
    if sources.data is None or sources.data.path is None:
        return IMPORT_READER
    try:
        read = imported(sources.data, reading(config.data))
        if read.is_new:
            return _NEWEST_READER
        as_before = read.as_before and not uses_context(sources.data.path)
    except MinilimaError:
        return IMPORT_READER  # the check says what is wrong
    return IMPORT_READER if as_before else _LATER_READER


def _reader_of_tasks(config: Config, sources: Sources) -> int | None:
    if config.data.kind not in BEGINS_WITH_TASKS or sources.data is None or sources.data.path is None:
        return None
    with suppress(MinilimaError, UnicodeDecodeError):
        return _LATER_READER if uses_context(sources.data.path) else None
    return None


def _caps(config: Config) -> dict[str, Any] | None:
    """The caps at which new tasks are no longer asked for: with higher ones the pool is another, larger one."""
    if config.data.kind in (DataKind.answers, DataKind.evol, DataKind.backtranslate):
        return None
    budget = config.endpoints.generator.budget
    caps = {"usd": budget.usd, "tokens": budget.tokens, "requests": budget.requests}
    return caps if any(cap is not None for cap in caps.values()) else None


def _describe(config: Config, sources: Sources) -> str:
    data, generator = config.data, config.generator
    source = sources.data or sources.seeds
    name = source.name if source is not None else "nothing"
    if data.kind == DataKind.file:
        return f"rows of {name}"
    written_by = generator.model or ("the base model" if generator.kind == GeneratorKind.local else "?")
    if data.kind == DataKind.answers:
        return f"answers to the tasks of {name}, written by {written_by}"
    if data.kind == DataKind.backtranslate:
        least = f", scored, {data.min_score:g} of 5 and above kept" if data.min_score else ""
        return f"requests to the texts of {name}, written by {written_by}{least}"
    if data.kind == DataKind.evol:
        return f"{data.instructions:,} tasks evolved from {name} in up to {data.max_rounds} rounds, and answered by {written_by}"
    how = "" if data.kind == DataKind.self_instruct else f" ({data.kind})"
    return f"{data.instructions:,} instructions and instances, written by {written_by} from {name}{how}"


def _outcome(metrics: Mapping[str, Any]) -> str:
    rejected = f", {metrics['rejected']:,} rejected" if metrics.get("rejected") else ""
    # Usually the target ends the generation; anything else is worth a word.
    stopped = "" if (why := metrics.get("stopped_by", "target")) == "target" else f", stopped by {why.replace('_', ' ')}"
    tasks = count(metrics["tasks"], "machine-written task") if "tasks" in metrics else count(metrics["rows"], "row")
    return tasks + rejected + stopped


def _build(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.generate.pool import build_pool

    return build_pool(job, on_progress)


def _check(config: Config, sources: Sources) -> None:
    if config.data.keep == Keep.reference and (config.data.kind != DataKind.answers or sources.data is not None):
        raise MinilimaError(
            "data.keep=reference has no reference answers.",
            "It compares with the seed tasks' own answers: the tasks that are answered must be the seed tasks.",
            "Add data=answers without data.path, or choose data.keep=judge, longest or majority.",
        )
    if config.data.kind in (DataKind.evol, DataKind.backtranslate):
        _check_asked(config)
    if sources.seeds is not None and sources.seeds.path is not None:
        load_seeds(sources.seeds.path)
    if sources.data is not None and sources.data.path is not None:
        if config.data.kind == DataKind.file:
            imported(sources.data, reading(config.data))
        elif config.data.kind == DataKind.backtranslate:
            read_texts(sources.data.path, reading(config.data))
        else:
            read_tasks(sources.data.path, reading(config.data))


def _check_asked(config: Config) -> None:
    """Refuses what these pools do not have: other styles, and several answers of which one is kept."""
    data = config.data
    if config.generator.style != Style.chat:
        raise MinilimaError(
            f"data={data.kind} needs a generator that follows requests.",
            f"generator.style={config.generator.style} is for models that continue a conversation or a document.",
            "Use generator=qwen2_5_coder_1_5b, a generator at an endpoint, or generator.style=chat with an instruct model.",
        )
    if data.answers_per_task is not None or data.keep is not None:
        raise MinilimaError(
            f"data={data.kind} writes one answer to each task at most.",
            "data.answers_per_task and data.keep choose among several.",
            "Leave them out; or write this pool first, and answer its tasks anew with data=answers data.path=…",
        )


def _asks(config: Config, sources: Sources) -> str | None:
    return "generator" if config.data.kind != DataKind.file and not writes_here(config) else None


def _requests(config: Config, sources: Sources) -> Requests | None:
    if _asks(config, sources) is None or (guess := _guess(config, sources)) is None:
        return None
    return priced(guess, config.generator.model, config.endpoints.generator)


def _guess(config: Config, sources: Sources) -> Guess | None:
    """What all steps together ask for, and the answers of which one is kept."""
    data, tasks, once = config.data, given_tasks(config, sources), _guess_of_one(config, sources)
    more = (data.answers_per_task or 1) - 1
    if once is None or tasks is None or not more or data.kind == DataKind.alpaca:
        return once
    instruction, given, written = (mean([tokens(task[part]) for task in tasks]) for part in range(3))
    answer = TOKENS_A_WORD * data.answer_words if data.answer_words else written
    number = len(tasks) if data.kind == DataKind.answers else data.instructions * data.instances_per_task
    asked = instruction + given + TEMPLATE_TOKENS
    shown = data.instance_demonstrations * (asked + answer) if data.kind == DataKind.self_instruct else 0
    rated = number * (more + 1) if data.keep == Keep.judge else 0
    prompt = once[1] + round(more * number * (asked + shown) + rated * (asked + answer))
    return once[0] + more * number + rated, prompt, once[2] + round(more * number * answer + rated)


def _guess_of_one(config: Config, sources: Sources) -> Guess | None:
    """What all steps together ask for, with one answer to each task."""
    data, tasks = config.data, given_tasks(config, sources)
    if tasks is None:
        return None
    instruction, given, written = (mean([tokens(task[part]) for task in tasks]) for part in range(3))
    answer = TOKENS_A_WORD * data.answer_words if data.answer_words else written
    if data.kind == DataKind.backtranslate:
        texts, request = sum(tokens(text) for _, _, text in tasks), tokens(" " * _REQUEST_CHARACTERS)
        # A request to each text, and a score of each pair.
        return 2 * len(tasks), 2 * texts + len(tasks) * (2 * TEMPLATE_TOKENS + request), len(tasks) * (request + 1)
    if data.kind == DataKind.evol:
        rounds = min(data.max_rounds, math.ceil(data.instructions / _ACCEPTED / len(tasks)))
        evolved = _GROWTH * (instruction + given)
        # Rewritten, compared with what it was, answered.
        prompt = rounds * len(tasks) * (3 * TEMPLATE_TOKENS + 2 * (instruction + given) + 2 * evolved)
        return 3 * rounds * len(tasks), round(prompt), round(rounds * len(tasks) * (evolved + 1 + answer))
    if data.kind == DataKind.answers:
        return len(tasks), round(len(tasks) * (instruction + given + TEMPLATE_TOKENS)), round(len(tasks) * answer)
    each = 1 if data.kind == DataKind.magpie else data.instructions_per_request
    # Whole rounds are asked for.
    asks = math.ceil(data.instructions / _ACCEPTED / each / data.requests_per_round) * data.requests_per_round
    if data.kind == DataKind.magpie:
        prompt = asks * TEMPLATE_TOKENS + data.instructions * (instruction + TEMPLATE_TOKENS)
        return asks + data.instructions, round(prompt), round(asks * instruction + data.instructions * answer)
    whole = instruction + given + answer if data.kind == DataKind.alpaca else instruction
    prompt = asks * (data.demonstrations * whole + TEMPLATE_TOKENS)
    completion = asks * each * whole
    if data.kind == DataKind.alpaca:
        return asks, round(prompt), round(completion)
    # Classification or not, then the two halves of each instance, each after demonstrations; labels are listed once.
    instances = data.instructions * data.instances_per_task
    questions = 0 if data.classification_only or data.identify_classification is False else data.instructions
    halves = instances + (data.instructions if data.classification_only else instances)
    shown = data.instance_demonstrations * (instruction + given + answer)
    prompt += questions * (4 * instruction + TEMPLATE_TOKENS) + halves * (shown + instruction + TEMPLATE_TOKENS)
    completion += questions * 2 + instances * (given + answer)
    return asks + questions + halves, round(prompt), round(completion)


def given_tasks(config: Config, sources: Sources) -> list[tuple[str, str, str]] | None:
    """(instruction, input, answer) of the tasks to be answered, or of the seeds; None where they are not there to be read."""
    if config.data.kind == DataKind.backtranslate:
        if sources.data is None or sources.data.path is None:
            return None
        return [("", "", text) for _, text in read_texts(sources.data.path, reading(config.data)).texts]
    if config.data.kind in BEGINS_WITH_TASKS and sources.data is not None:
        path = sources.data.path
        return (
            None
            if path is None
            else [(instruction, given, "") for _, instruction, given in read_tasks(path, reading(config.data)).tasks]
        )
    if config.data.kind == DataKind.magpie and sources.seeds is None:
        return [(" " * _REQUEST_CHARACTERS, "", " " * (CHARACTERS_A_TOKEN * ANSWER_TOKENS))]
    if sources.seeds is None or sources.seeds.path is None:
        return None
    return [(task.instruction, task.input, task.output) for task in seed_tasks(sources.seeds.path)]


def most_examples(config: Config, sources: Sources) -> int | None:
    """Examples of a full pool: an import's rows, one a task that is answered, or what is asked of the generator."""
    data = config.data
    if data.kind == DataKind.file:
        with suppress(MinilimaError):  # the check says what is wrong
            known = sources.data is not None and sources.data.path is not None
            return len(imported(sources.data, reading(data)).examples) if known and sources.data else None
        return None
    if data.kind == DataKind.answers:
        tasks = given_tasks(config, sources)
        return len(tasks) if tasks is not None else None
    return data.instructions * (data.instances_per_task if data.kind == DataKind.self_instruct else 1)


def _planned(config: Config, sources: Sources, inputs: Manifests) -> Work | None:
    if config.data.kind == DataKind.file:
        return work(1, "pool")
    return work(config.data.instructions, "pool", config.data.kind, writer(config, sources))


def _finished(manifest: Manifest, inputs: Manifests) -> Work | None:
    recipe = manifest["recipe"]
    if "instructions" not in recipe:
        return work(1, "pool")
    return work(recipe["instructions"], "pool", recipe.get("kind"), recipe.get("model"))


POOL = Spec(
    kind="pool",
    stage="pool",
    version=6,
    recipe=_recipe,
    until=Until.pool,
    describe=_describe,
    outcome=_outcome,
    build=_build,
    check=_check,
    examples=most_examples,
    counted=("tasks", "rows"),
    asks=_asks,
    requests=_requests,
    planned_work=_planned,
    finished_work=_finished,
    uses_gpu=lambda config, sources: writes_here(config),
    files=("seeds", "data"),
)
