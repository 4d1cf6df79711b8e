"""Verdicts: for each prompt, whether the tuned model's answer is better than the reference model's.

`reference` compares both with the set's reference answer; `local` and `openai` ask a language model, by default in both
orders, so that a preference for a position cancels out.
"""

import re
from collections.abc import Sequence

from minilima.config import JudgeKind
from minilima.errors import MinilimaError
from minilima.evaluate.prompts import load_eval_set
from minilima.files import read_jsonl, write_jsonl
from minilima.llm.chat import Message, Request, Sampling, ask, counted
from minilima.prompts import render
from minilima.records import Answer, Progress, Tell, Usage, Verdict
from minilima.store import Outcome
from minilima.worker import Job

REFERENCE_WINS, TIE, TUNED_WINS = 1.0, 1.5, 2.0

Pair = tuple[Answer, Answer]
"""(reference model's answer, tuned model's answer) to one prompt."""


def build_verdicts(job: Job, tell: Tell) -> Outcome:
    """Writes verdicts.jsonl."""
    tuned = {row["id"]: Answer(**row) for row in read_jsonl(job.inputs["answers"] / "answers.jsonl")}
    pairs = [(Answer(**row), tuned[row["id"]]) for row in read_jsonl(job.inputs["reference"] / "answers.jsonl")]
    usage = Usage()
    if job.config.judge.kind == JudgeKind.reference:
        verdicts = _by_reference(job, pairs, tell)
    elif job.config.judge.kind == JudgeKind.local:
        verdicts = _by_log_odds(job, pairs, tell)
    else:
        verdicts, usage = _by_endpoint(job, pairs, tell)
    write_jsonl(job.work / "verdicts.jsonl", verdicts)
    read = [verdict.preference for verdict in verdicts if verdict.preference is not None]
    metrics = {
        "prompts": len(verdicts),
        "judged": len(read),
        "wins": sum(preference > TIE for preference in read),
        "losses": sum(preference < TIE for preference in read),
        "ties": sum(preference == TIE for preference in read),
    }
    return Outcome(metrics=metrics, usage=usage)


def _by_reference(job: Job, pairs: Sequence[Pair], tell: Tell) -> list[Verdict]:
    from minilima.evaluate.closeness import Closeness

    config = job.config
    prompts = {prompt.id: prompt for prompt in load_eval_set(job.sources.eval_set, config.eval_set.size)}
    lacking = [prompt.id for prompt in prompts.values() if not prompt.output]
    if lacking:
        raise MinilimaError(
            f"{len(lacking):,} prompts of {job.sources.eval_set.name} have no reference answer.",
            f"judge=reference compares with it; the first is {lacking[0]!r}.",
            "Add `output` to them, or choose another judge.",
        )
    measure = Closeness(config.judge.embedding_weight)
    verdicts = []
    for base, tuned in pairs:
        reference = prompts[tuned.id].output or ""
        of_base, of_tuned = measure(reference, [base.output, tuned.output])
        gain = of_tuned.score - of_base.score
        preference = TIE if abs(gain) <= config.judge.tie_margin else TUNED_WINS if gain > 0 else REFERENCE_WINS
        words = f"closeness to the reference answer: tuned {of_tuned}, base {of_base}"
        verdicts.append(Verdict(id=tuned.id, preference=preference, explanation=words))
        tell(Progress(done=len(verdicts), total=len(pairs), unit="verdicts"))
    return verdicts


def _by_log_odds(job: Job, pairs: Sequence[Pair], tell: Tell) -> list[Verdict]:
    from minilima.llm.local import LocalModel

    source = job.sources.judge or job.sources.base
    compute = job.config.compute
    location = job.model_location(source, "judge")
    model = LocalModel(location, source.identity, device=compute.device, batch=compute.generation_batch)
    verdicts = []
    for pair in pairs:
        orders = []
        for swapped in _orders(job.config.judge.both_orders):
            odds = model.log_odds(_question("choose", pair, swapped), "a", "b", prefill="Output (")
            orders.append(-odds if not swapped else odds)
        mean = sum(orders) / len(orders)
        preference = TIE if mean == 0 else TUNED_WINS if mean > 0 else REFERENCE_WINS
        each = tuple(TUNED_WINS if order > 0 else REFERENCE_WINS for order in orders)
        words = "log-odds for the tuned answer: " + ", ".join(f"{order:+.2f}" for order in orders)
        verdicts.append(Verdict(id=pair[1].id, preference=preference, orders=each, explanation=words))
        tell(Progress(done=len(verdicts), total=len(pairs), unit="verdicts"))
    return verdicts


def _by_endpoint(job: Job, pairs: Sequence[Pair], tell: Tell) -> tuple[list[Verdict], Usage]:
    from minilima.llm.client import connect

    judge = job.config.judge
    model = connect("judge.model", judge.model, judge.endpoint, job.cache, job.key)
    sampling = Sampling(temperature=0.0, max_tokens=judge.max_tokens)
    orders = _orders(judge.both_orders)
    requests = [
        Request(messages=_question(judge.prompt, pair, swapped), sampling=sampling) for pair in pairs for swapped in orders
    ]
    replies = iter(
        model.reply_many(requests, counted(tell, len(requests), "replies"), lambda reply: parse_choice(reply.text) is not None)
    )
    verdicts = []
    for pair in pairs:
        texts = [(next(replies).text, swapped) for swapped in orders]
        verdicts.append(_combine(pair[1].id, texts))
    return verdicts, model.usage


def _combine(identity: str, texts: Sequence[tuple[str, bool]]) -> Verdict:
    """One verdict from the replies in each order; unread if any of them cannot be read, a tie if they disagree."""
    preferences = []
    for text, swapped in texts:
        choice = parse_choice(text)
        if choice is None:
            return Verdict(id=identity, preference=None, explanation=f"could not be read: {text[:200]}")
        # Unswapped, (a) is the reference model's answer and (b) the tuned model's.
        preferences.append(TUNED_WINS if (choice == "b") != swapped else REFERENCE_WINS)
    words = "\n\n".join(text.strip() for text, _ in texts)
    return Verdict(id=identity, preference=sum(preferences) / len(preferences), orders=tuple(preferences), explanation=words)


_CHOICE = re.compile(r"\boutput\s*\(?\s*([ab])\s*\)?", re.IGNORECASE)


def parse_choice(text: str) -> str | None:
    """`a` or `b`: the last choice that a reply names on its last line, or in a reply of one line; None if there is none."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    named = _CHOICE.findall(lines[-1]) if lines else []
    choices = {name.lower() for name in named}
    return choices.pop() if len(choices) == 1 else None


def _orders(both: bool) -> list[bool]:
    return [False, True] if both else [False]


def _question(prompt: str, pair: Pair, swapped: bool) -> tuple[Message, ...]:
    base, tuned = pair
    first, second = (tuned, base) if swapped else (base, tuned)
    text = render(f"judge/{prompt}", instruction=tuned.instruction, first=first.output, second=second.output)
    return ask(text)
