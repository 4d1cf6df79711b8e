"""Verdicts: for each prompt, whether the tuned model's answer is better than the reference model's.

`reference` compares both with the set's reference answer; `local` and `openai` ask a language model, by default in both
orders, so that a preference for a position cancels out; `alpaca_eval` hands the answers to the alpaca-eval package.
Equal answers are a tie, about which no endpoint is asked.
"""

import random
from collections.abc import Mapping, Sequence

from minilima.config.choices import JudgeKind, Orders, Precision
from minilima.config.schema import JudgeConfig
from minilima.evaluate.judge_asking import ask_all, replies_each, why_unread
from minilima.evaluate.judge_forms import JudgeForm, Letters, check_form, form_named
from minilima.evaluate.judge_scores import judge_alone
from minilima.formats.eval_sets import load_eval_set, require_references
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.formats.records import TIE, Answer, EvalPrompt, OnProgress, Progress, Usage, Verdict
from minilima.models.cache import CachedModel
from minilima.models.chat import Message, OnReply, Reply, Request, ask, counted
from minilima.models.openai_api import extra_fields
from minilima.prompts import render
from minilima.store.job import Job, Outcome

REFERENCE_WINS, TUNED_WINS = 1.0, 2.0

Pair = tuple[Answer, Answer]
"""(reference model's answer, tuned model's answer) to one prompt."""


def build_verdicts(job: Job, on_progress: OnProgress) -> Outcome:
    """Writes verdicts.jsonl."""
    tuned = {row["id"]: Answer(**row) for row in read_jsonl(job.inputs["answers"] / "answers.jsonl")}
    pairs = [(Answer(**row), tuned[row["id"]]) for row in read_jsonl(job.inputs["reference"] / "answers.jsonl")]
    prompts = {prompt.id: prompt for prompt in load_eval_set(job.sources.eval_set.local_path, job.config.eval_set.size)}
    verdicts, usage = judge_pairs(job, pairs, prompts, on_progress)
    write_jsonl(job.work / "verdicts.jsonl", verdicts)
    return Outcome(metrics=counts(verdicts), usage=usage)


def counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many verdicts there are of each kind; a win is one for the second answer of a pair."""
    read = [verdict.preference for verdict in verdicts if verdict.preference is not None]
    return {
        "prompts": len(verdicts),
        "judged": len(read),
        "wins": sum(preference > TIE for preference in read),
        "losses": sum(preference < TIE for preference in read),
        "ties": sum(preference == TIE for preference in read),
    }


def judge_pairs(
    job: Job, pairs: Sequence[Pair], prompts: Mapping[str, EvalPrompt], on_progress: OnProgress
) -> tuple[list[Verdict], Usage]:
    """The verdicts of the job's judge, in the order of the pairs.

    Args:
        job: names the judge, and how it is reached.
        pairs: whose ids differ.
        prompts: by each pair's id, for a judge that reads the reference answer or the criteria.
        on_progress: called with how far it is.
    """
    check_form(job.config.judge)
    kind = job.config.judge.kind
    if kind == JudgeKind.reference:
        return _by_reference(job, pairs, {name: prompt.output for name, prompt in prompts.items()}, on_progress), Usage()
    if kind == JudgeKind.alpaca_eval:
        from minilima.evaluate.judge_alpaca_eval import judge_with_alpaca_eval

        return judge_with_alpaca_eval(job, pairs, on_progress)
    form = form_named(job.config.judge.prompt)
    if kind == JudgeKind.local and form.letters:
        return _by_log_odds(job, form.letters, pairs, on_progress)
    model, first = _connected(job) if kind == JudgeKind.openai else (_loaded(job), 0)
    if form.alone:
        rubric = job.sources.rubric.local_path.read_text(encoding="utf-8") if job.sources.rubric is not None else ""
        return judge_alone(model, job.config.judge, pairs, prompts, rubric, on_progress, first=first), model.usage
    return _by_replies(model, job.config.judge, pairs, on_progress, first=first), model.usage


def _by_reference(
    job: Job, pairs: Sequence[Pair], references: Mapping[str, str | None], on_progress: OnProgress
) -> list[Verdict]:
    from minilima.evaluate.judge_reference import Closeness

    config = job.config
    require_references({tuned.id: references.get(tuned.id) for _, tuned in pairs})
    measure = Closeness(config.judge.embedding_weight)
    verdicts = []
    for base, tuned in pairs:
        reference = references[tuned.id] or ""
        of_base, of_tuned = measure(reference, [base.output, tuned.output])
        gain = of_tuned.score - of_base.score
        preference = TIE if abs(gain) <= config.judge.tie_margin else TUNED_WINS if gain > 0 else REFERENCE_WINS
        words = f"closeness to the reference answer: tuned {of_tuned}, base {of_base}"
        verdicts.append(Verdict(id=tuned.id, preference=preference, explanation=words))
        on_progress(Progress(done=len(verdicts), total=len(pairs), unit="verdicts"))
    return verdicts


def _by_log_odds(job: Job, letters: Letters, pairs: Sequence[Pair], on_progress: OnProgress) -> tuple[list[Verdict], Usage]:
    shown = [(pair, swapped) for pair in pairs for swapped in _orders(job.config.judge.orders, pair)]
    form = form_named(job.config.judge.prompt)
    requests = [
        Request(messages=_question(form, pair, swapped), sampling=letters.sampling, prefill=letters.prefill)
        for pair, swapped in shown
    ]
    model = CachedModel(_LogOdds(job, letters), job.cache)
    replies = model.reply_many(requests, counted(on_progress, len(requests), "verdicts", each=replies_each(job.config.judge)))
    by_prompt: dict[str, list[float]] = {}
    for (pair, swapped), reply in zip(shown, replies, strict=True):
        assert reply.logprobs is not None, "it was asked for them"
        odds = reply.logprobs[letters.first] - reply.logprobs[letters.second]
        by_prompt.setdefault(pair[1].id, []).append(odds if swapped else -odds)
    return [_by_mean_odds(identity, odds) for identity, odds in by_prompt.items()], model.usage


def _by_mean_odds(identity: str, orders: Sequence[float]) -> Verdict:
    """The verdict from the log-odds for the tuned answer in each order."""
    mean = sum(orders) / len(orders)
    preference = TIE if mean == 0 else TUNED_WINS if mean > 0 else REFERENCE_WINS
    each = tuple(TUNED_WINS if order > 0 else REFERENCE_WINS for order in orders) if len(orders) > 1 else ()
    words = "log-odds for the tuned answer: " + ", ".join(f"{order:+.2f}" for order in orders)
    return Verdict(id=identity, preference=preference, orders=each, explanation=words)


class _LogOdds:
    """A local model that states how likely the two letters are; as a ChatModel, so that each reply is kept."""

    def __init__(self, job: Job, letters: Letters) -> None:
        from minilima.models.local import LocalModel

        source, compute = job.sources.judge or job.sources.base, job.config.compute
        location = job.model_location(source, "judge")
        batch, exact = compute.generation_batch, compute.precision == Precision.float32
        self._model = LocalModel(location, source.identity, device=compute.device, batch=batch, exact=exact)
        self._letters = letters
        self.name = source.identity

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        replies = []
        for index, request in enumerate(requests):
            first, second = self._letters.first, self._letters.second
            odds = self._model.log_odds(request.messages, first, second, prefill=request.prefill or "")
            reply = Reply(text="", finish="stop", prompt_tokens=0, completion_tokens=0, logprobs={first: odds, second: 0.0})
            replies.append(reply)
            on_reply(index, reply)
        return replies


def _connected(job: Job) -> tuple[CachedModel, int]:
    """The model at the judge's endpoint, and how many requests are waited for before the others."""
    from minilima.models.endpoint import connect

    judge, endpoint = job.config.judge, job.config.endpoints.judge
    model = connect("judge.model", judge.model, endpoint, job.cache, job.key, extra_fields(judge))
    return model, 0 if endpoint.batch else 1


def _loaded(job: Job) -> CachedModel:
    """A local model that writes its reasons and its choice, which are read as an endpoint's are."""
    from minilima.models.engines import load_writer

    source = job.sources.judge or job.sources.base
    return CachedModel(load_writer(job.model_location(source, "judge"), source.identity, job.config.compute), job.cache)


def _by_replies(
    model: CachedModel, judge: JudgeConfig, pairs: Sequence[Pair], on_progress: OnProgress, *, first: int
) -> list[Verdict]:
    form = form_named(judge.prompt)
    sampling = form.sampling(judge)
    shown = [(pair, swapped) for pair in pairs if not _equal(pair) for swapped in _orders(judge.orders, pair)]
    requests = [
        Request(messages=_question(form, pair, swapped), sampling=sampling, schema=form.schema) for pair, swapped in shown
    ]
    by_prompt: dict[str, list[tuple[Reply, bool]]] = {}
    for (pair, swapped), reply in zip(shown, ask_all(model, requests, judge, on_progress, first=first), strict=True):
        by_prompt.setdefault(pair[1].id, []).append((reply, swapped))
    return [_combine(pair[1].id, by_prompt.get(pair[1].id, []), form) for pair in pairs]


def _combine(identity: str, replies: Sequence[tuple[Reply, bool]], form: JudgeForm) -> Verdict:
    """One verdict from the replies in each order: their weighted mean; unread if any of them cannot be read."""
    if not replies:
        return Verdict(id=identity, preference=TIE, explanation="The answers are equal; nobody was asked.")
    preferences, weights = [], []
    for reply, swapped in replies:
        # Unswapped, the reference model's answer is shown first and the tuned model's second.
        preference = form.read(reply)
        if preference is None:
            return Verdict(id=identity, preference=None, explanation=why_unread(reply))
        preferences.append(REFERENCE_WINS + TUNED_WINS - preference if swapped else preference)
        weights.append(form.weight(reply) if form.weight is not None else 1.0)
    words = "\n\n".join(reply.text.strip() for reply, _ in replies)
    if form.needs_logprobs:
        words = "probability of the tuned answer: " + ", ".join(f"{preference - 1:.3f}" for preference in preferences)
    orders = tuple(preferences) if len(preferences) > 1 else ()
    total = sum(weights)
    mean = sum(weight * preference for weight, preference in zip(weights, preferences, strict=True)) / total
    weight = total if form.weight is not None else None
    return Verdict(id=identity, preference=mean, orders=orders, explanation=words, weight=weight)


def _equal(pair: Pair) -> bool:
    return pair[0].text == pair[1].text


def _orders(orders: Orders, pair: Pair) -> list[bool]:
    """For each time that a judge is asked: whether the tuned model's answer is shown first."""
    return [False, True] if orders == Orders.both else [is_switched(pair[1].instruction)]


def orders_of(verdict: Verdict, instruction: str | None) -> Sequence[float]:
    """The preference in each order, as `statistics.position_preference` takes it.

    Args:
        verdict: of a judge.
        instruction: where the judge was asked once, in the order drawn for it; None = it was asked in both, or in none.
    """
    if verdict.orders or instruction is None or verdict.preference is None:
        return verdict.orders
    # Shown the other way round, the first answer is the tuned model's.
    return [REFERENCE_WINS + TUNED_WINS - verdict.preference if is_switched(instruction) else verdict.preference]


def draws_order(judge: JudgeConfig) -> bool:
    """Whether a judge is asked once, in the order of alpaca_eval's seeded switch."""
    asked = judge.kind in (JudgeKind.local, JudgeKind.openai) and not form_named(judge.prompt).alone
    return judge.kind == JudgeKind.alpaca_eval or (asked and judge.orders == Orders.random)


def is_switched(instruction: str, seed: int = 0) -> bool:
    """Whether alpaca_eval shows the model's answer before the baseline's (RandomSwitchTwoColumnsProcessor of 0.6.6)."""
    return random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True])[0]


def _question(form: JudgeForm, pair: Pair, swapped: bool) -> tuple[Message, ...]:
    base, tuned = pair
    first, second = (tuned, base) if swapped else (base, tuned)
    text = render(form.template, instruction=tuned.instruction, first=first.text, second=second.text)
    return ask(text)
