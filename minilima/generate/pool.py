"""The pool: everything the generator wrote, step by step, for a person to read.

    seeds ─> instructions.jsonl ─> classification.jsonl ─> instances.jsonl      rejected.jsonl: the rest, with reasons
An existing data set is imported as instances.jsonl (import_pool.py), its unanswered prompts as rejected.jsonl.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from minilima.config.choices import DataKind, GeneratorKind, Style
from minilima.config.schema import BudgetConfig, Config
from minilima.errors import MinilimaError
from minilima.formats.files import write_jsonl
from minilima.formats.imports import read_tasks, read_texts
from minilima.formats.records import Example, OnProgress, Rejected, SeedTask
from minilima.formats.seeds import load_seeds
from minilima.generate.backtranslation import backtranslate
from minilima.generate.classification import label_balance
from minilima.generate.evolution import evolve
from minilima.generate.import_pool import import_pool, reading
from minilima.generate.instances import Classified, Instance, Instances, check
from minilima.generate.instructions import Growth, Instruction, grow
from minilima.generate.methods import Method, example_method, list_method, turn_method
from minilima.generate.prompting import Prompter
from minilima.models.cache import CachedModel
from minilima.models.engines import load_writer
from minilima.models.openai_api import extra_fields
from minilima.store.job import Job, Outcome


def build_pool(job: Job, on_progress: OnProgress) -> Outcome:
    """Writes the pool's files into the job's work directory."""
    data, config = job.config.data, job.config
    if data.kind == DataKind.file:
        return import_pool(job)
    model, prompter = connect_generator(job), Prompter(generator=config.generator, data=data)
    if data.kind == DataKind.backtranslate:
        return _backtranslated(job, model, prompter, on_progress)
    seeds = load_seeds(job.sources.seeds.path) if job.sources.seeds is not None and job.sources.seeds.path is not None else []
    writer = Instances(seeds, model, prompter, config.seed, on_progress)
    growth, classified = Growth(), list[Classified]()
    instances: list[Instance] = []
    if data.kind == DataKind.answers:
        growth.accepted, growth.rejected = _given_tasks(job, seeds)
    elif data.kind == DataKind.evol:
        begin, broken = _given_tasks(job, seeds)
        evolution = evolve(begin, model, prompter, config.seed, on_progress)
        growth, instances = evolution.growth, evolution.instances
        growth.rejected = [*broken, *growth.rejected]
    else:
        growth = grow(seeds, model, _method(model, prompter), data, config.seed, on_progress, _caps(config))
    write_jsonl(job.work / "instructions.jsonl", growth.accepted)
    if data.kind == DataKind.self_instruct:
        classified = writer.classify(growth.accepted)
        write_jsonl(job.work / "classification.jsonl", classified)
        instances = writer.instances(growth.accepted, classified)
    elif data.kind == DataKind.alpaca:
        instances = [_whole(task) for task in growth.accepted]
    elif data.kind != DataKind.evol:
        instances = writer.answers(growth.accepted)
    if writer.candidates:
        write_jsonl(job.work / "candidates.jsonl", [each.row() for each in writer.candidates])
        write_jsonl(job.work / "preferences.jsonl", [pair for each in writer.candidates if (pair := each.pair()) is not None])
    examples, faulty = check(instances)
    write_jsonl(job.work / "instances.jsonl", examples)
    rejected = [*growth.rejected, *faulty]
    write_jsonl(job.work / "rejected.jsonl", rejected)
    if not examples:
        raise MinilimaError(
            "The generator wrote no task that passed the filters.",
            f"Rejected: {reasons(rejected) or 'nothing'}; stopped by {growth.stopped.replace('_', ' ')}; "
            f"{job.work / 'rejected.jsonl'} lists each.",
            "Use a stronger generator, raise the budget, or loosen the filters of data=….",
        )
    metrics = {**_metrics(growth, classified, examples, rejected), **model.arithmetic}
    return Outcome(metrics=metrics, usage=model.usage)


def _backtranslated(job: Job, model: CachedModel, prompter: Prompter, on_progress: OnProgress) -> Outcome:
    """The pool of people's texts, with a written request for each."""
    assert job.sources.data is not None and job.sources.data.path is not None
    given = read_texts(job.sources.data.path, reading(job.config.data))
    examples, faulty = backtranslate(given.texts, model, prompter, on_progress)
    rejected = [*given.rejected, *faulty]
    write_jsonl(job.work / "instances.jsonl", examples)
    write_jsonl(job.work / "rejected.jsonl", rejected)
    if not examples:
        raise MinilimaError(
            "No text became an example.",
            f"Rejected: {reasons(rejected) or 'nothing'}; {job.work / 'rejected.jsonl'} lists each.",
            "Lower data.min_score, use a stronger generator, or give other texts.",
        )
    counts = {"texts": len(given.texts), "tasks": len(examples), "rejected": len(rejected), "reasons": reasons(rejected)}
    return Outcome(metrics={**counts, **model.arithmetic}, usage=model.usage)


def _metrics(
    growth: Growth, classified: Sequence[Classified], examples: Sequence[Example], rejected: Sequence[Rejected]
) -> dict[str, Any]:
    return {
        "instructions": len(growth.accepted),
        "stopped_by": growth.stopped,
        "rounds": growth.rounds,
        "classification": sum(bool(item.is_classification) for item in classified),
        "not_classified": sum(item.is_classification is None for item in classified),
        "tasks": len(examples),
        "rejected": len(rejected),
        "reasons": reasons(rejected),
        **label_balance(examples),
    }


def _method(model: CachedModel, prompter: Prompter) -> Method:
    data, turns = prompter.data, prompter.generator.style == Style.turns
    if data.kind == DataKind.alpaca:
        return example_method(prompter)
    if data.kind == DataKind.self_instruct and not turns:
        return list_method(prompter)
    demonstrations = data.demonstrations if data.kind == DataKind.self_instruct else 0
    open_user_turn = getattr(model.model, "open_user_turn", None)
    if data.magpie_prefix is not None and not demonstrations:
        prefix = data.magpie_prefix
        return turn_method(prompter, lambda turns: prefix, 0)
    if open_user_turn is None:
        raise MinilimaError(
            "data.magpie_prefix is not set." if not demonstrations else "generator.style=turns needs a local model.",
            "The model continues its chat template at the user's turn, and an endpoint does not show its template.",
            "Use generator=local, or with data=magpie set the template's beginning: data.magpie_prefix='<|im_start|>user\n'.",
        )
    return turn_method(prompter, open_user_turn, demonstrations)


def _caps(config: Config) -> BudgetConfig | None:
    return config.endpoints.generator.budget if config.generator.kind == GeneratorKind.openai else None


def _given_tasks(job: Job, seeds: Sequence[SeedTask]) -> tuple[list[Instruction], list[Rejected]]:
    """The tasks of data.path, or the seed tasks, to be answered as they are; and the rows that hold none."""
    if job.sources.data is None or job.sources.data.path is None:
        given, rejected = [(task.id, task.instruction, task.input) for task in seeds], list[Rejected]()
    else:
        read = read_tasks(job.sources.data.path, reading(job.config.data))
        given, rejected = read.tasks, read.rejected
    tasks = [
        Instruction(
            id=identity, instruction=text, input=extra, round=0, parents=(), request="", nearest_id=None, nearest_rouge=None
        )
        for identity, text, extra in given
    ]
    return tasks, rejected


def _whole(task: Instruction) -> Instance:
    return Instance(
        task=task, number=0, is_classification=None, input=task.input, output=task.output or "", replies=(), request=task.request
    )


def reasons(rejected: Sequence[Rejected]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first."""
    return dict(Counter(item.reason for item in rejected).most_common())


def connect_generator(job: Job) -> CachedModel:
    """The model that writes the data, with its replies kept."""
    generator = job.config.generator
    if generator.kind == GeneratorKind.openai:
        from minilima.models.endpoint import connect

        endpoint, account = job.config.endpoints.generator, job.account or job.key
        return connect("generator.model", generator.model, endpoint, job.cache, account, extra_fields(generator))
    source = job.sources.generator or job.sources.base
    location = job.model_location(source, "generator")
    data = job.config.data
    most = data.instructions * (data.instruction_tokens + data.instance_tokens)
    return CachedModel(load_writer(location, source.identity, job.config.compute, tokens=most), job.cache)
