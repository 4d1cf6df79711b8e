"""The pool: everything the generator wrote, step by step, for a person to read.

    seeds ─> instructions.jsonl ─> classification.jsonl ─> instances.jsonl      rejected.jsonl: the rest, with reasons
An existing data set is imported as instances.jsonl alone.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minilima.config import DataKind, GeneratorKind
from minilima.construct.instances import classify, make_instances
from minilima.construct.instructions import grow
from minilima.construct.seeds import load_seeds
from minilima.errors import MinilimaError
from minilima.files import read_rows, write_jsonl
from minilima.llm.cache import CachedModel
from minilima.llm.chat import Sampling
from minilima.records import Example, Rejected, Tell
from minilima.store import Outcome
from minilima.worker import Job


def build_pool(job: Job, tell: Tell) -> Outcome:
    """Writes the pool's files into the job's work directory."""
    if job.config.data.kind == DataKind.file:
        return _import(job)
    assert job.sources.seeds is not None and job.sources.seeds.path is not None
    seeds = load_seeds(job.sources.seeds.path)
    data, generator, seed = job.config.data, job.config.generator, job.config.seed
    model = _generator(job)

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


def _generator(job: Job) -> CachedModel:
    generator = job.config.generator
    if generator.kind == GeneratorKind.openai:
        from minilima.llm.client import connect

        return connect("generator.model", generator.model, generator.endpoint, job.cache, job.key)
    from minilima.llm.local import LocalModel

    source = job.sources.generator or job.sources.base
    location = job.model_location(source, "generator")
    compute = job.config.compute
    return CachedModel(LocalModel(location, source.identity, device=compute.device, batch=compute.generation_batch), job.cache)


def _import(job: Job) -> Outcome:
    assert job.sources.data is not None and job.sources.data.path is not None
    path = job.sources.data.path
    rows = read_rows(path)
    examples = [_imported(row, path, number) for number, row in enumerate(rows, start=1)]
    if not examples:
        raise MinilimaError(f"{path} holds no example.", "The file is empty.", "Give another file with data.path=…")
    write_jsonl(job.work / "instances.jsonl", examples)
    return Outcome(metrics={"rows": len(examples)})


def _imported(row: dict[str, Any], path: Path, number: int) -> Example:
    instruction, output, given = row.get("instruction"), row.get("output"), row.get("input") or ""
    if not isinstance(instruction, str) or not isinstance(output, str) or not instruction.strip() or not output.strip():
        raise MinilimaError(
            f"Row {number} of {path} has no proper instruction or output.",
            "Both must be texts that are not empty (alpaca format).",
            f"Mend that row; it begins: {json.dumps(row, ensure_ascii=False)[:80]}",
        )
    return Example(id=f"row{number}", instruction=instruction, input=str(given), output=output, source="file")
