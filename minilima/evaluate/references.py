"""Reference answers from outside: the set's own, a published model_outputs.json, or those of another run.

They become a stage like the base model's answers, so that everything after it is the same. The loss on the set's answers
is still the base model's, which the tuned model's is compared with.
"""

from dataclasses import replace

from minilima.evaluate.answers import load_base, write_answers
from minilima.evaluate.prompts import load_eval_set, read_references
from minilima.files import read_jsonl
from minilima.records import Answer, Tell
from minilima.sources import FileSource, answers_beside
from minilima.store import Outcome
from minilima.worker import Job


def build_references(job: Job, tell: Tell) -> Outcome:
    """Writes answers.jsonl, model_outputs.json and reference_loss.jsonl, as `build_answers` does."""
    assert job.sources.reference is not None, "the stage is only there with a reference"
    prompts = load_eval_set(job.sources.eval_set, job.config.eval_set.size)
    answers = _with_lengths(read_references(job.sources.reference, prompts), job.sources.reference)
    return Outcome(metrics=write_answers(job, prompts, answers, lambda: load_base(job), tell))


def _with_lengths(answers: list[Answer], source: FileSource) -> list[Answer]:
    """The answers with their tokens, and whether they were cut, where answers.jsonl beside the file tells it."""
    assert source.path is not None, "checked before anything runs"
    own = answers_beside(source.path)
    told = {row["instruction"]: row for row in read_jsonl(own)} if own is not None else {}
    return [
        replace(answer, tokens=told[answer.instruction]["tokens"], truncated=told[answer.instruction]["truncated"])
        if answer.instruction in told
        else answer
        for answer in answers
    ]
