"""The pool: everything the generator wrote, step by step, for a person to read.

    seeds ─> instructions.jsonl ─> classification.jsonl ─> instances.jsonl      rejected.jsonl: the rest, with reasons
An existing data set is imported as instances.jsonl (imports.py), with its unanswered prompts in rejected.jsonl.
"""

from collections import Counter
from collections.abc import Sequence

from minilima.config import DataKind, GeneratorKind
from minilima.construct.imports import import_pool
from minilima.construct.instances import classify, make_instances
from minilima.construct.instructions import grow
from minilima.construct.seeds import load_seeds
from minilima.errors import MinilimaError
from minilima.files import write_jsonl
from minilima.llm.cache import CachedModel
from minilima.llm.chat import ChatModel, Sampling
from minilima.records import Rejected, Tell
from minilima.store import Outcome
from minilima.worker import Job


def build_pool(job: Job, tell: Tell) -> Outcome:
    """Writes the pool's files into the job's work directory."""
    if job.config.data.kind == DataKind.file:
        return import_pool(job)
    assert job.sources.seeds is not None and job.sources.seeds.path is not None
    seeds = load_seeds(job.sources.seeds.path)
    data, generator, seed = job.config.data, job.config.generator, job.config.seed
    model = CachedModel(_generator(job), job.cache)

    def sampling(max_tokens: int) -> Sampling:
        return Sampling(
            temperature=generator.temperature,
            top_p=generator.top_p,
            max_tokens=max_tokens,
            repetition_penalty=generator.repetition_penalty if generator.kind == GeneratorKind.local else None,
        )

    growth = grow(seeds, model, data, sampling(data.instruction_tokens), seed, tell)
    write_jsonl(job.work / "instructions.jsonl", growth.accepted)
    classified = classify(growth.accepted, seeds, model, seed, tell)
    write_jsonl(job.work / "classification.jsonl", classified)
    examples, faulty = make_instances(classified, seeds, model, data, sampling(data.instance_tokens), seed, tell)
    write_jsonl(job.work / "instances.jsonl", examples)
    rejected = [*growth.rejected, *faulty]
    write_jsonl(job.work / "rejected.jsonl", rejected)
    metrics = {
        "instructions": len(growth.accepted),
        "stopped_by": growth.stopped,
        "rounds": growth.rounds,
        "classification": sum(item.is_classification for item in classified),
        "tasks": len(examples),
        "rejected": len(rejected),
        "reasons": reasons(rejected),
    }
    return Outcome(metrics=metrics, usage=model.usage)


def reasons(rejected: Sequence[Rejected]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first."""
    return dict(Counter(item.reason for item in rejected).most_common())


def _generator(job: Job) -> ChatModel:
    generator = job.config.generator
    if generator.kind == GeneratorKind.openai:
        from minilima.llm.client import EndpointModel

        if not generator.model:
            raise MinilimaError(
                "generator.model is not set.", "The endpoint has to be told which model.", "Add generator.model=…"
            )
        return EndpointModel(generator.model, generator.endpoint)
    from minilima.llm.local import LocalModel

    source = job.sources.generator or job.sources.base
    location = job.model_location(source, "generator")
    compute = job.config.compute
    return LocalModel(location, source.identity, device=compute.device, batch=compute.generation_batch)
