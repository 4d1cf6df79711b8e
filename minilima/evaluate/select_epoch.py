"""Which epoch's weights become the model: by answers to dev prompts, as LIMA did it, or by the loss on a dev set.

    epochs ─┬─> loss on the dev set's answers, each epoch  ─────────────┐
            └─> answers to the dev prompts ─> judge: against the last ──┴─> the best epoch, as it is

The judge is the experiment's. Each epoch's answers are compared with the last one's: the same opponent for all, and one
of about their own strength, so that verdicts can rank epochs even where all of them beat the base model.
The losses are written as a curve in any case (perplexity is their exponential).
"""

import gc
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from minilima.config.choices import Pick, Precision
from minilima.errors import MinilimaError
from minilima.evaluate.answers import answer_prompts
from minilima.evaluate.judge import judge_pairs
from minilima.evaluate.results import Coverage
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.formats.records import TIE, Answer, EvalPrompt, OnProgress, Progress, Usage
from minilima.models.cache import CachedModel
from minilima.models.local import LocalModel
from minilima.rouge import RougeIndex
from minilima.store.job import Job, Outcome

FEWEST_PROMPTS = 10


@dataclass(frozen=True, kw_only=True)
class EpochScore:
    """How good one epoch is. `preference`: mean verdict against the last epoch, above 1.5 where it is better."""

    epoch: int
    dev_loss: float | None
    """Nats per token of the reference answers; None where the dev set has none."""
    perplexity: float | None
    preference: float | None = None


def choose_epoch(job: Job, on_progress: OnProgress) -> Outcome:
    """Writes the chosen epoch's files, dev_curve.jsonl and, where a judge was asked, dev_answers.jsonl."""
    trained = job.inputs["epochs"]
    folders = sorted((trained / "epochs").iterdir())
    prompts, left_out = clean_prompts(job)
    scores, answers = [], []
    for number, folder in enumerate(folders, start=1):
        on_progress(Progress(done=number - 1, total=len(folders), unit="epochs"))
        loss, written = _ask_epoch(job, folder, prompts)
        perplexity = None if loss is None else math.exp(loss)
        scores.append(EpochScore(epoch=number, dev_loss=loss, perplexity=perplexity))
        answers.append(written)
    usage = Usage()
    if job.config.epoch.select == Pick.judge:
        preferences, usage = _judge(job, prompts, answers, on_progress)
        scores = [EpochScore(**{**vars(score), "preference": mean}) for score, mean in zip(scores, preferences, strict=True)]
        rows = [{"epoch": epoch, **vars(answer)} for epoch, written in enumerate(answers, start=1) for answer in written]
        write_jsonl(job.work / "dev_answers.jsonl", rows)
    chosen = best_epoch(scores, job.config.epoch.select)
    for file in [*folders[chosen - 1].iterdir(), trained / "training_log.jsonl"]:
        _link(file, job.work / file.name)
    write_jsonl(job.work / "dev_curve.jsonl", scores)
    metrics = json.loads((trained / "manifest.json").read_text(encoding="utf-8"))["metrics"]
    choice = {"chosen_epoch": chosen, "epochs": len(folders), "dev_prompts": len(prompts), "dev_prompts_left_out": left_out}
    losses = {} if scores[0].dev_loss is None else {"chosen_dev_loss": scores[chosen - 1].dev_loss}
    return Outcome(metrics={**metrics, **choice, **losses}, usage=usage)


def clean_prompts(job: Job) -> tuple[list[EvalPrompt], int]:
    """The dev prompts that resemble neither an evaluation prompt nor a training example, and how many others there were.

    Raises:
        MinilimaError: hardly any are left, or select=dev_loss and there are no reference answers.
    """
    source, data = job.sources.dev_set, job.config.data
    assert source is not None, "resolved where an epoch is chosen"
    prompts = load_eval_set(source.local_path, None)
    index = RougeIndex(data.tokenizer)
    for number, asked in enumerate(job.sources.all_sets):
        for prompt in load_eval_set(asked.local_path, None):
            index.add(f"eval {number} {prompt.id}", prompt.instruction)
    for row in read_jsonl(job.inputs["dataset"] / "dataset.jsonl"):
        index.add(row["id"], row["instruction"])
    nearest = index.nearest_many([prompt.instruction for prompt in prompts])
    kept = [prompt for prompt, near in zip(prompts, nearest, strict=True) if near is None or near.rouge <= data.max_similarity]
    if len(kept) < FEWEST_PROMPTS:
        raise MinilimaError(
            f"Only {len(kept)} of the {len(prompts)} prompts of {source.name} can be used to choose an epoch.",
            "The others resemble prompts of the evaluation set or training examples, by which a choice would mislead.",
            "Name another dev set with epoch.dev_set=…, for example minilima_dev_50.",
        )
    if job.config.epoch.select == Pick.dev_loss and not any(prompt.output for prompt in kept):
        raise MinilimaError(
            f"The prompts of {source.name} have no reference answers.",
            "epoch.select=dev_loss is the loss on them.",
            "Add `output` to the prompts, or choose epoch.select=judge.",
        )
    return kept, len(prompts) - len(kept)


def _ask_epoch(job: Job, folder: Path, prompts: Sequence[EvalPrompt]) -> tuple[float | None, list[Answer]]:
    """One epoch's loss on the reference answers in nats per token, and its answers if a judge is to see them."""
    compute = job.config.compute
    name = f"{job.inputs['epochs'].name}/{folder.name}"
    exact = compute.precision == Precision.float32
    local = LocalModel(str(folder), name, device=compute.device, batch=compute.generation_batch, exact=exact)
    asked = [(prompt.id, prompt.instruction, prompt.output) for prompt in prompts if prompt.output]
    losses = list(local.reference_losses(asked, job.config.model.thinking))
    answers = []
    if job.config.epoch.select == Pick.judge:
        answers = answer_prompts(prompts, CachedModel(local, job.cache), job.config, name, lambda progress: None)
    del local
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return (sum(loss.nats for loss in losses) / sum(loss.tokens for loss in losses) if losses else None), answers


def _judge(
    job: Job, prompts: Sequence[EvalPrompt], answers: Sequence[Sequence[Answer]], on_progress: OnProgress
) -> tuple[list[float], Usage]:
    """The mean preference for each epoch over the last, and what asking took."""
    pairs = [(last, other) for epoch in answers[:-1] for last, other in zip(answers[-1], epoch, strict=True)]
    by_id = {prompt.id: prompt for prompt in prompts}
    preferences: list[float] = []
    usage = Usage()
    for start in range(0, len(pairs), len(prompts)):
        verdicts, took = judge_pairs(job, pairs[start : start + len(prompts)], by_id, on_progress)
        usage += took
        read = [verdict.preference for verdict in verdicts if verdict.preference is not None]
        coverage = Coverage(judged=len(read), prompts=len(prompts), minimum=job.config.judge.min_coverage)
        if not coverage.enough:
            raise MinilimaError(
                f"The judge's verdicts on epoch {len(preferences) + 1} are too few: {coverage}.",
                f"At least {coverage.minimum:.0%} must have one that can be read, as for a win rate.",
                "Choose another judge, or epoch.select=last.",
            )
        preferences.append(sum(read) / len(read))
    return [*preferences, TIE], usage


def best_epoch(scores: Sequence[EpochScore], select: Pick) -> int:
    """The number of the best epoch; of equal ones the latest."""
    if select == Pick.judge:
        return max(scores, key=lambda score: (score.preference or 0.0, score.epoch)).epoch
    return min(scores, key=lambda score: (score.dev_loss or math.inf, -score.epoch)).epoch


def _link(file: Path, target: Path) -> None:
    """A hard link where possible; store entries never change, so that they can share a file."""
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:  # a file system without links
        shutil.copyfile(file, target)
