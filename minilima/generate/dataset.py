"""Step 4: the data set: the pool without duplicates and contamination, then a nested choice of `dataset.size` rows."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minilima.config.choices import Encoding, Tokenizer
from minilima.config.schema import Config, DataConfig, DatasetConfig
from minilima.errors import MinilimaError
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.formats.records import EvalPrompt, Example, OnProgress, Rejected, SeedTask, user_text
from minilima.formats.seeds import load_seeds
from minilima.formats.words import count_words
from minilima.generate.dataset_statistics import describe
from minilima.generate.layouts import encode
from minilima.generate.near_duplicates import first_near_duplicates
from minilima.generate.pool import reasons
from minilima.generate.scoring import Scoring
from minilima.generate.selection import arrange
from minilima.rouge import RougeIndex
from minilima.store.job import Job, Outcome

_SHOWN = 120
"""Characters of an instruction in order.jsonl, to see what stands where."""


def build_dataset(job: Job, on_progress: OnProgress) -> Outcome:
    """Writes dataset.jsonl, rejected.jsonl, and order.jsonl: all that could be chosen, in order, with what it was chosen by."""
    config, dataset = job.config, job.config.dataset
    pool = [Example(**row) for row in read_jsonl(job.inputs["pool"] / "instances.jsonl")]
    seeds: list[Example] = []
    if dataset.include_seeds:
        assert job.sources.seeds is not None and job.sources.seeds.path is not None
        seeds = [_as_example(task) for task in load_seeds(job.sources.seeds.path)]
    # All prompts, not only the first eval_set.size: a smaller evaluation must not let the other prompts in.
    sets = job.sources.all_sets if dataset.decontaminate else ()
    prompts = [prompt for asked in sets for prompt in load_eval_set(asked.local_path, None)]
    passed, rejected = sift([*seeds, *pool], prompts, config.data, dataset)
    kept = with_fewer_seeds(passed, dataset.max_seeds, config.seed)
    scoring = Scoring(job=job, on_progress=on_progress, examples=kept)
    ordered = arrange(kept, dataset, config.seed, scoring.tools())
    chosen = [_encoded(example, config) for example in ordered[: dataset.size]]
    if not chosen:
        raise MinilimaError(
            "The data set is empty.",
            f"None of {len(seeds) + len(pool):,} examples passed: {reasons(rejected)}.",
            "Ask for more with data.instructions=…, or loosen the filters.",
        )
    write_jsonl(job.work / "dataset.jsonl", chosen)
    write_jsonl(job.work / "rejected.jsonl", rejected)
    write_jsonl(job.work / "order.jsonl", [_ranked(rank, example) for rank, example in enumerate(ordered, start=1)])
    return Outcome(metrics={**_metrics(chosen, kept, rejected, dataset), **scoring.metrics()}, usage=scoring.usage)


def sift(
    examples: Sequence[Example], prompts: Sequence[EvalPrompt], data: DataConfig, dataset: DatasetConfig
) -> tuple[list[Example], list[Rejected]]:
    """Rejects duplicates, answers outside the length window, and what resembles an evaluation prompt.

    An example resembles one where its instruction, its instruction and input, or an earlier prompt of its conversation has
    a ROUGE-L F1 above `data.max_similarity` with it.
    """
    index = RougeIndex(data.tokenizer)
    for prompt in prompts:
        index.add(prompt.id, prompt.instruction)
    texts = list(dict.fromkeys(text for example in examples for text in _asked(example)))
    nearest = dict(zip(texts, index.nearest_above(texts, data.max_similarity), strict=True))
    kept: list[Example] = []
    rejected: list[Rejected] = []
    seen: dict[tuple[object, ...], str] = {}
    for example in examples:
        content = (example.system, example.history, example.instruction, example.input, example.output)
        near = max((one for text in _asked(example) if (one := nearest[text])), key=lambda one: one[1], default=None)
        words = count_words(example.output)
        if content in seen:
            rejected.append(_rejection(example, "duplicate", seen[content], 1.0))
        elif words < dataset.min_output_words:
            rejected.append(_rejection(example, "output_too_short", example.nearest_id, example.nearest_rouge))
        elif dataset.max_output_words is not None and words > dataset.max_output_words:
            rejected.append(_rejection(example, "output_too_long", example.nearest_id, example.nearest_rouge))
        elif near is not None:
            rejected.append(_rejection(example, "contamination", near[0], round(near[1], 4)))
        else:
            kept.append(example)
        seen.setdefault(content, example.id)
    if dataset.max_similarity is None:
        return kept, rejected
    distinct, near_duplicates = _without_near_duplicates(kept, dataset.max_similarity, data.tokenizer)
    return distinct, [*rejected, *near_duplicates]


def with_fewer_seeds(examples: Sequence[Example], most: int | None, seed: int) -> list[Example]:
    """All but the seed tasks above `most`; fewer of them lie inside more."""
    seeds = [example.id for example in examples if example.source == "seed"]
    random.Random(f"max_seeds:{seed}").shuffle(seeds)
    excluded = set() if most is None else set(seeds[most:])
    return [example for example in examples if example.source != "seed" or example.id not in excluded]


def _without_near_duplicates(
    examples: Sequence[Example], limit: float, tokenizer: Tokenizer
) -> tuple[list[Example], list[Rejected]]:
    """What is above the limit with an earlier example that is kept, by all that the user says, is rejected."""
    requests = ["\n".join([*(user for user, _ in each.history), user_text(each.instruction, each.input)]) for each in examples]
    nearest = first_near_duplicates(requests, limit, tokenizer=tokenizer)
    kept = [example for example, near in zip(examples, nearest, strict=True) if near is None]
    rejected = [
        _rejection(example, "near_duplicate", examples[near[0]].id, round(near[1], 4))
        for example, near in zip(examples, nearest, strict=True)
        if near is not None
    ]
    return kept, rejected


def _rejection(example: Example, reason: str, nearest_id: str | None, nearest_rouge: float | None) -> Rejected:
    return Rejected(
        id=example.id, text=example.instruction, reason=reason, nearest_id=nearest_id, nearest_rouge=nearest_rouge,
        input=example.input or None, output=example.output, request=example.request,
    )  # fmt: skip


def _asked(example: Example) -> list[str]:
    """The texts of an example that are compared with evaluation prompts."""
    return [example.instruction, user_text(example.instruction, example.input), *(user for user, _ in example.history)]


def _ranked(rank: int, example: Example) -> dict[str, Any]:
    numbers = {"score": example.score, "scores": example.scores}
    row = {"rank": rank, "id": example.id, "source": example.source, "words": count_words(example.output)}
    row["instruction"] = " ".join(example.instruction.split())[:_SHOWN]
    return {**row, **{name: value for name, value in numbers.items() if value is not None}}


def _encoded(example: Example, config: Config) -> Example:
    if config.dataset.encoding == Encoding.plain:
        return example
    return replace(example, prompt=encode(example.instruction, example.input, f"{config.seed}:{example.id}"))


def _as_example(task: SeedTask) -> Example:
    fields = {name: getattr(task, name) for name in ("id", "instruction", "input", "output", "is_classification")}
    return Example(source="seed", **fields)


def _metrics(
    chosen: Sequence[Example], kept: Sequence[Example], rejected: Sequence[Rejected], dataset: DatasetConfig
) -> dict[str, Any]:
    return {
        "examples": len(chosen),
        "wanted": dataset.size,
        "available": len(kept),
        "seed": sum(example.source == "seed" for example in chosen),
        "machine": sum(example.source == "machine" for example in chosen),
        **describe(chosen),
        "rejected": len(rejected),
        "reasons": reasons(rejected),
    }
