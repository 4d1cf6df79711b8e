"""Answers of one model to the evaluation set, and how surprising the reference answers are to it.

Each answer is in the reply cache as soon as it is written, so a kill loses only those that are being written.
`model_outputs.json` is in AlpacaEval's format.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minilima.config.choices import Precision, Thinking
from minilima.config.schema import ComputeConfig, Config
from minilima.formats.eval_sets import load_eval_set, read_references
from minilima.formats.files import read_jsonl, write_atomic, write_jsonl
from minilima.formats.records import Answer, EvalPrompt, OnProgress, Progress, ReferenceLoss
from minilima.formats.words import count_words
from minilima.models.cache import CachedModel
from minilima.models.chat import ChatModel, Reply, Request, Sampling, all_came, ask, counted
from minilima.models.engines import find_served, load_writer
from minilima.models.local import LocalModel
from minilima.store.job import Job, Outcome
from minilima.store.sources import answers_beside


def build_answers(job: Job, on_progress: OnProgress) -> Outcome:
    """The tuned model's: answers.jsonl, model_outputs.json and, where the set has reference answers, reference_loss.jsonl."""
    name = job.inputs["model"].name
    return _answers_of(job, str(job.inputs["model"]), name, name, on_progress)


def build_base_answers(job: Job, on_progress: OnProgress) -> Outcome:
    """The same files, of the base model."""
    location = job.model_location(job.sources.base, "model")
    return _answers_of(job, location, job.sources.base.identity, Path(location).name, on_progress)


def _answers_of(job: Job, location: str, name: str, generator: str, on_progress: OnProgress) -> Outcome:
    """`name` identifies the model in the reply cache, `generator` in what is written."""
    config = job.config
    prompts = load_eval_set(job.sources.eval_set.local_path, config.eval_set.size)
    most = sum(len(prompt.asked) for prompt in prompts) * config.eval.max_tokens
    writer = load_engine(job, location, name, tokens=most)
    model = CachedModel(writer, job.cache)
    answers = answer_prompts(prompts, model, config, generator, on_progress)
    metrics = write_answers(job, prompts, answers, lambda: for_losses(writer, location, name, config.compute), on_progress)
    return Outcome(metrics={**metrics, **model.arithmetic}, usage=model.usage)


def write_answers(
    job: Job, prompts: list[EvalPrompt], answers: list[Answer], model: Callable[[], LocalModel], on_progress: OnProgress
) -> dict[str, Any]:
    """Writes the stage's files, the loss on the reference answers by `model` last; returns its metrics."""
    write_jsonl(job.work / "answers.jsonl", answers)
    _write_model_outputs(job, prompts, answers)
    thinking = job.config.model.thinking
    losses = _reference_losses(prompts, model(), thinking, on_progress) if any(prompt.output for prompt in prompts) else []
    write_jsonl(job.work / "reference_loss.jsonl", losses)
    return {
        "answers": len(answers),
        "truncated": sum(answer.truncated for answer in answers),
        "mean_words": sum(count_words(answer.output) for answer in answers) / len(answers),
        "reference_tokens": sum(loss.tokens for loss in losses),
        "reference_nats": sum(loss.nats for loss in losses),
    }


def load_base(job: Job) -> LocalModel:
    """The base model in transformers."""
    base = job.sources.base
    return _in_transformers(job.model_location(base, "model"), base.identity, job.config.compute)


def load_engine(job: Job, location: str, name: str, *, tokens: int | None = None) -> ChatModel:
    """The model that answers: on this machine, or at the server that holds it.

    Args:
        location: folder, or owner/name@commit.
        name: identifies it in the reply cache.
        tokens: the most that it will write, as load_writer's.
    """
    compute = job.config.compute
    if compute.served_at:
        return find_served(location, name, compute, job.cache, job.key)
    return load_writer(location, name, compute, group=compute.answer_group, tokens=tokens)


def for_losses(writer: ChatModel, location: str, name: str, compute: ComputeConfig) -> LocalModel:
    """The model in transformers: no other engine scores a given text in the same way."""
    if isinstance(writer, LocalModel):
        return writer
    if close := getattr(writer, "close", None):
        close()
    return _in_transformers(location, name, compute)


def _in_transformers(location: str, name: str, compute: ComputeConfig) -> LocalModel:
    exact = compute.precision == Precision.float32
    return LocalModel(location, name, device=compute.device, batch=compute.generation_batch, exact=exact)


def answer_prompts(
    prompts: Sequence[EvalPrompt], model: CachedModel, config: Config, generator: str, on_progress: OnProgress
) -> list[Answer]:
    """One answer to each prompt, sampled as the experiment's `eval` says; `generator` names the model in them.

    Of a conversation each turn is answered after those before it, the model's own answers among them.
    """
    sampling = Sampling(
        temperature=config.eval.temperature,
        top_p=config.eval.top_p,
        max_tokens=config.eval.max_tokens,
        repetition_penalty=config.eval.repetition_penalty,
    )
    asked: dict[str, Any] = {"sampling": sampling, "sample": config.seed, "thinking": config.model.thinking}
    on_reply = counted(on_progress, sum(len(prompt.asked) for prompt in prompts), "answers")
    replies: list[list[Reply]] = [[] for _ in prompts]
    for turn in range(max((len(prompt.asked) for prompt in prompts), default=0)):
        going = [(prompt, before) for prompt, before in zip(prompts, replies, strict=True) if len(prompt.asked) > turn]
        requests = [Request(messages=ask(*_so_far(prompt, before)), **asked) for prompt, before in going]
        for (_, before), reply in zip(going, all_came(model.reply_many(requests, on_reply)), strict=True):
            before.append(reply)
    return [_answer(prompt, said, generator) for prompt, said in zip(prompts, replies, strict=True)]


def _so_far(prompt: EvalPrompt, said: Sequence[Reply]) -> list[str]:
    """The conversation up to the turn that is answered next: what the user says and what the model said, in turn."""
    before = [text for user, reply in zip(prompt.asked, said, strict=False) for text in (user, reply.text.strip())]
    return [*before, prompt.asked[len(said)]]


def _answer(prompt: EvalPrompt, said: Sequence[Reply], generator: str) -> Answer:
    *earlier, last = said
    history = tuple((user, reply.text.strip()) for user, reply in zip(prompt.turns, earlier, strict=False))
    return Answer(
        id=prompt.id,
        instruction=prompt.instruction,
        output=last.text.strip(),
        generator=generator,
        tokens=sum(reply.completion_tokens for reply in said),
        truncated=any(reply.finish == "length" for reply in said),
        history=history or None,
    )


def _write_model_outputs(job: Job, prompts: list[EvalPrompt], answers: list[Answer]) -> None:
    """model_outputs.json in AlpacaEval's format."""
    rows = [
        {
            "dataset": prompt.category,
            "instruction": answer.instruction,
            "output": answer.output,
            "generator": answer.generator,
            **({"history": answer.history} if answer.history else {}),
        }
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    write_atomic(job.work / "model_outputs.json", json.dumps(rows, indent=1, ensure_ascii=False))


def _reference_losses(
    prompts: list[EvalPrompt], model: LocalModel, thinking: Thinking | None, on_progress: OnProgress
) -> list[ReferenceLoss]:
    """The model's loss on the set's reference answers, where it has any."""
    asked = [(prompt.id, prompt.instruction, prompt.output) for prompt in prompts if prompt.output]
    losses = []
    for loss in model.reference_losses(asked, thinking):
        losses.append(loss)
        on_progress(Progress(done=len(losses), total=len(asked), unit="reference answers"))
    return losses


def build_references(job: Job, on_progress: OnProgress) -> Outcome:
    """Writes answers.jsonl, model_outputs.json and reference_loss.jsonl, as `build_answers` does."""
    assert job.sources.reference is not None, "the stage is only there with a reference"
    path, name = job.sources.reference.local_path, job.sources.reference.name
    prompts = load_eval_set(job.sources.eval_set.local_path, job.config.eval_set.size)
    answers = _with_lengths(read_references(path, name, prompts), path)
    return Outcome(metrics=write_answers(job, prompts, answers, lambda: load_base(job), on_progress))


def _with_lengths(answers: list[Answer], outputs: Path) -> list[Answer]:
    """The answers with their tokens, and whether they were cut, where there is an answers.jsonl beside the file."""
    own = answers_beside(outputs)
    rows = {row["instruction"]: row for row in read_jsonl(own)} if own is not None else {}
    return [
        replace(answer, tokens=rows[answer.instruction]["tokens"], truncated=rows[answer.instruction]["truncated"])
        if answer.instruction in rows
        else answer
        for answer in answers
    ]
