"""Step 4: from the pool to the data set: duplicates and contamination out, then a nested choice of `data.size` rows.

The order of the rows is a permutation fixed by (seed, id), so 100 examples lie inside 300 of the same seed.
"""

from collections.abc import Sequence

from minilima.config import DataConfig
from minilima.construct.pool import reasons
from minilima.construct.rouge import RougeIndex
from minilima.construct.seeds import load_seeds
from minilima.errors import MinilimaError
from minilima.evaluate.prompts import load_eval_set
from minilima.files import read_jsonl, sha256_text, write_jsonl
from minilima.records import EvalPrompt, Example, Rejected, SeedTask, Tell, user_text
from minilima.store import Outcome
from minilima.worker import Job


def build_dataset(job: Job, tell: Tell) -> Outcome:
    """Writes dataset.jsonl and rejected.jsonl."""
    data = job.config.data
    pool = [Example(**row) for row in read_jsonl(job.inputs["pool"] / "instances.jsonl")]
    seeds: list[Example] = []
    if data.include_seeds:
        assert job.sources.seeds is not None and job.sources.seeds.path is not None
        seeds = [_as_example(task) for task in load_seeds(job.sources.seeds.path)]
    # All prompts, not only the first eval_set.size: a quick look must not let the others in.
    prompts = load_eval_set(job.sources.eval_set, None) if data.decontaminate else []
    kept, rejected = sift([*seeds, *pool], prompts, data)
    chosen = choose(kept, data.size, job.config.seed)
    if not chosen:
        raise MinilimaError(
            "The data set is empty.",
            f"None of {len(seeds) + len(pool):,} examples passed: {reasons(rejected)}.",
            "Ask for more with data.instructions=…, or loosen the filters.",
        )
    write_jsonl(job.work / "dataset.jsonl", chosen)
    write_jsonl(job.work / "rejected.jsonl", rejected)
    return Outcome(metrics=_metrics(chosen, kept, rejected, data))


def sift(examples: Sequence[Example], prompts: Sequence[EvalPrompt], data: DataConfig) -> tuple[list[Example], list[Rejected]]:
    """Leaves out exact duplicates and what resembles an evaluation prompt, by instruction or by instruction and input."""
    index = RougeIndex()
    for prompt in prompts:
        index.add(prompt.id, prompt.instruction)
    kept: list[Example] = []
    rejected: list[Rejected] = []
    seen: set[tuple[object, ...]] = set()
    for example in examples:
        content = (example.system, example.history, example.instruction, example.input, example.output)
        if content in seen:
            rejected.append(Rejected(id=example.id, text=example.instruction, reason="duplicate"))
            continue
        seen.add(content)
        texts = {example.instruction, user_text(example.instruction, example.input), *(user for user, _ in example.history)}
        nearest = max((found for text in texts if (found := index.nearest(text))), key=lambda near: near.rouge, default=None)
        if nearest is not None and nearest.rouge > data.max_similarity:
            near = round(nearest.rouge, 4)
            rejected.append(
                Rejected(
                    id=example.id, text=example.instruction, reason="contamination", nearest_id=nearest.id, nearest_rouge=near
                )
            )
            continue
        kept.append(example)
    return kept, rejected


def choose(examples: Sequence[Example], size: int | None, seed: int) -> list[Example]:
    """The first `size` rows of a permutation that depends on the seed and each row's id only."""
    ordered = sorted(examples, key=lambda example: sha256_text(f"choose:{seed}:{example.source}:{example.id}"))
    return ordered[:size]


def _as_example(task: SeedTask) -> Example:
    fields = {name: getattr(task, name) for name in ("id", "instruction", "input", "output", "is_classification")}
    return Example(source="seed", **fields)


def _metrics(
    chosen: Sequence[Example], kept: Sequence[Example], rejected: Sequence[Rejected], data: DataConfig
) -> dict[str, object]:
    words = sorted(len(example.output.split()) for example in chosen)
    return {
        "examples": len(chosen),
        "wanted": data.size,
        "available": len(kept),
        "seed": sum(example.source == "seed" for example in chosen),
        "machine": sum(example.source == "machine" for example in chosen),
        "classification": sum(bool(example.is_classification) for example in chosen),
        "median_output_words": words[len(words) // 2],
        "rejected": len(rejected),
        "reasons": reasons(rejected),
    }
