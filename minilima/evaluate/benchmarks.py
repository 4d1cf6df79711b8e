"""What a model scores on one benchmark: the packaged prompts that a program checks, or a task of lm-evaluation-harness.

model ─> replies, each in the reply cache as soon as it is there ─> items.jsonl: {id, scores: {figure: 0 to 1}, …}
Base and tuned model read the same items, so that their scores are paired (benchmark_scores.py).
"""

from typing import Any

from minilima.evaluate import verifiable
from minilima.evaluate.answers import load_engine
from minilima.evaluate.benchmark_scores import ITEMS
from minilima.formats.files import write_jsonl
from minilima.formats.records import BASE, TUNED, OnProgress
from minilima.models.cache import CachedModel
from minilima.models.chat import Request, Sampling, all_came, ask, counted
from minilima.store.job import Job, Outcome


def build_benchmark(job: Job, on_progress: OnProgress) -> Outcome:
    """The tuned model's scores."""
    return _build(job, job.role.removesuffix(TUNED), str(job.inputs["model"]), job.inputs["model"].name, on_progress)


def build_base_benchmark(job: Job, on_progress: OnProgress) -> Outcome:
    """The same of the base model."""
    base = job.sources.base
    return _build(job, job.role.removesuffix(BASE), job.model_location(base, "model"), base.identity, on_progress)


def _build(job: Job, task: str, location: str, name: str, on_progress: OnProgress) -> Outcome:
    if task != verifiable.NAME:
        from minilima.evaluate.harness import run_task

        return run_task(job, task, location, name, on_progress)
    settings = job.config.benchmark
    items = verifiable.load_items(settings.size)
    model = CachedModel(load_engine(job, location, name, tokens=len(items) * settings.max_tokens), job.cache)
    # Greedy, whatever eval samples with: what is checked has no luck of the draw in it.
    sampling = Sampling(temperature=0.0, max_tokens=settings.max_tokens)
    thinking = job.config.model.thinking
    requests = [Request(messages=ask(item.instruction), sampling=sampling, thinking=thinking) for item in items]
    replies = all_came(model.reply_many(requests, counted(on_progress, len(requests), "answers")))
    rows: list[dict[str, Any]] = []
    for item, reply in zip(items, replies, strict=True):
        score = verifiable.score(item, reply.text.strip())
        scores = {"strict": float(score.strict), "loose": float(score.loose)}
        rows.append({"id": item.id, "category": item.category, "scores": scores, "output": reply.text.strip()})
    write_jsonl(job.work / ITEMS, rows)
    figures = {figure: sum(row["scores"][figure] for row in rows) / len(rows) for figure in ("strict", "loose")}
    cut = sum(reply.finish == "length" for reply in replies)
    return Outcome(metrics={"items": len(rows), "figures": figures, "truncated": cut, **model.arithmetic}, usage=model.usage)
