"""Verdicts: for each prompt, whether the tuned model's answer is better than the reference model's.

`reference` compares both with the set's reference answer; `local` and `openai` ask a language model, by default in both
orders, so that a preference for a position cancels out; `alpaca_eval` hands the answers to the alpaca-eval package.
Equal answers are a tie, about which no endpoint is asked.
"""

import random
from collections.abc import Mapping, Sequence

from minilima.config.choices import JudgeKind, Orders
from minilima.config.schema import JudgeConfig
from minilima.errors import MinilimaError
from minilima.evaluate.judge_forms import JudgeForm, Letters, check_form, form_named
from minilima.formats.eval_sets import load_eval_set, require_references
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.formats.records import TIE, Answer, OnProgress, Progress, Usage, Verdict
from minilima.models.cache import CachedModel
from minilima.models.chat import FAILED, REFUSAL, Message, OnReply, Reply, Request, ask, counted
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
    references = {prompt.id: prompt.output for prompt in load_eval_set(job.sources.eval_set.local_path, job.config.eval_set.size)}
    verdicts, usage = judge_pairs(job, pairs, references, on_progress)
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
    job: Job, pairs: Sequence[Pair], references: Mapping[str, str | None], on_progress: OnProgress
) -> tuple[list[Verdict], Usage]:
    """The verdicts of the job's judge, in the order of the pairs.

    Args:
        job: names the judge, and how it is reached.
        pairs: whose ids differ.
        references: the reference answer of each pair's id, for a judge that compares with it.
        on_progress: called with how far it is.
    """
    check_form(job.config.judge)
    kind = job.config.judge.kind
    if kind == JudgeKind.reference:
        return _by_reference(job, pairs, references, on_progress), Usage()
    if kind == JudgeKind.local:
        letters = form_named(job.config.judge.prompt).letters
        return _by_log_odds(job, letters, pairs, on_progress) if letters else _by_words(job, pairs, on_progress)
    if kind == JudgeKind.alpaca_eval:
        from minilima.evaluate.judge_alpaca_eval import judge_with_alpaca_eval

        return judge_with_alpaca_eval(job, pairs, on_progress)
    return _by_endpoint(job, pairs, on_progress)


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
    replies = model.reply_many(requests, counted(on_progress, len(requests), "replies"))
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
        self._model = LocalModel(location, source.identity, device=compute.device, batch=compute.generation_batch)
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


def _by_endpoint(job: Job, pairs: Sequence[Pair], on_progress: OnProgress) -> tuple[list[Verdict], Usage]:
    from minilima.models.endpoint import connect

    judge, endpoint = job.config.judge, job.config.endpoints.judge
    model = connect("judge.model", judge.model, endpoint, job.cache, job.key, extra_fields(judge))
    return _by_replies(model, judge, pairs, on_progress, alone=0 if endpoint.batch else 1)


def _by_words(job: Job, pairs: Sequence[Pair], on_progress: OnProgress) -> tuple[list[Verdict], Usage]:
    """A local model that writes its reasons and its choice, which are read as an endpoint's are."""
    from minilima.models.engines import load_writer

    source = job.sources.judge or job.sources.base
    writer = load_writer(job.model_location(source, "judge"), source.identity, job.config.compute)
    return _by_replies(CachedModel(writer, job.cache), job.config.judge, pairs, on_progress)


def _by_replies(
    model: CachedModel, judge: JudgeConfig, pairs: Sequence[Pair], on_progress: OnProgress, *, alone: int = 0
) -> tuple[list[Verdict], Usage]:
    form = form_named(judge.prompt)
    sampling = form.sampling(judge)
    shown = [(pair, swapped) for pair in pairs if not _equal(pair) for swapped in _orders(judge.orders, pair)]
    requests = [Request(messages=_question(form, pair, swapped), sampling=sampling) for pair, swapped in shown]
    by_prompt: dict[str, list[tuple[Reply, bool]]] = {}
    for (pair, swapped), reply in zip(shown, _ask_all(model, requests, judge, on_progress, alone=alone), strict=True):
        by_prompt.setdefault(pair[1].id, []).append((reply, swapped))
    return [_combine(pair[1].id, by_prompt.get(pair[1].id, []), form) for pair in pairs], model.usage


def _ask_all(
    model: CachedModel, requests: Sequence[Request], judge: JudgeConfig, on_progress: OnProgress, *, alone: int
) -> list[Reply]:
    """All replies. The first `alone` are waited for before the others: a wrong key, model or setting costs few requests."""
    form, asks_endpoint = form_named(judge.prompt), judge.kind == JudgeKind.openai

    def usable(reply: Reply) -> bool:
        if not asks_endpoint and judge.temperature == 0:
            return True  # it would write the same again
        if reply.finish == REFUSAL or (reply.finish == "length" and not form.needs_logprobs):
            return True  # it is no verdict, and would be cut again
        # An endpoint that gave no log-probabilities will not do so when it is asked again.
        return (form.needs_logprobs and reply.logprobs is None) or form.read(reply) is not None

    on_reply = counted(on_progress, len(requests), "replies")
    first = model.reply_many(requests[:alone], on_reply, usable)
    if form.needs_logprobs and any(reply.logprobs is None and reply.finish != FAILED for reply in first):
        raise MinilimaError(
            f"{model.name} gave no log-probabilities.",
            f"judge.prompt={form.name} reads them; the endpoint or the model does not send any.",
            "Name another model with judge.model=…, or use a judge whose text is read: judge=chatgpt or judge=cot.",
        )
    if asks_endpoint and first and all(reply.finish == "length" and form.read(reply) is None for reply in first):
        raise MinilimaError(
            f"The first reply of {model.name} was cut at judge.max_tokens={judge.max_tokens}, before its choice.",
            f"It began: {(first[0].text or first[0].reasoning or 'nothing was written')[:200]}",
            "Raise judge.max_tokens; a model that thinks first needs some thousand. What was answered is kept.",
        )
    if asks_endpoint and first and not form.needs_logprobs and all(_is_no_verdict(reply, form) for reply in first):
        raise MinilimaError(
            f"The first reply of {model.name} is no verdict in the form of judge.prompt={form.name}.",
            f"It wrote: {first[0].text[:200]}",
            "Choose another model or judge.prompt, or raise judge.max_tokens where the choice comes last.",
        )
    return first + model.reply_many(requests[alone:], on_reply, usable)


def _is_no_verdict(reply: Reply, form: JudgeForm) -> bool:
    return reply.finish not in (FAILED, REFUSAL) and form.read(reply) is None


def _combine(identity: str, replies: Sequence[tuple[Reply, bool]], form: JudgeForm) -> Verdict:
    """One verdict from the replies in each order: their mean; unread if any of them cannot be read."""
    if not replies:
        return Verdict(id=identity, preference=TIE, explanation="The answers are equal; nobody was asked.")
    preferences = []
    for reply, swapped in replies:
        # Unswapped, the reference model's answer is shown first and the tuned model's second.
        preference = form.read(reply)
        if preference is None:
            return Verdict(id=identity, preference=None, explanation=_unread(reply))
        preferences.append(REFERENCE_WINS + TUNED_WINS - preference if swapped else preference)
    words = "\n\n".join(reply.text.strip() for reply, _ in replies)
    if form.needs_logprobs:
        words = "probability of the tuned answer: " + ", ".join(f"{preference - 1:.3f}" for preference in preferences)
    orders = tuple(preferences) if len(preferences) > 1 else ()
    return Verdict(id=identity, preference=sum(preferences) / len(preferences), orders=orders, explanation=words)


def _unread(reply: Reply) -> str:
    """Why a reply is no verdict."""
    if reply.finish == FAILED:
        return "no reply came, after all tries"
    how = "was cut at judge.max_tokens" if reply.finish == "length" else "could not be read"
    return f"{how}: {reply.text[:200]}"


def _equal(pair: Pair) -> bool:
    return pair[0].output == pair[1].output


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
    asked = judge.kind in (JudgeKind.local, JudgeKind.openai)
    return judge.kind == JudgeKind.alpaca_eval or (asked and judge.orders == Orders.random)


def is_switched(instruction: str, seed: int = 0) -> bool:
    """Whether alpaca_eval shows the model's answer before the baseline's (RandomSwitchTwoColumnsProcessor of 0.6.6)."""
    return random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True])[0]


def _question(form: JudgeForm, pair: Pair, swapped: bool) -> tuple[Message, ...]:
    base, tuned = pair
    first, second = (tuned, base) if swapped else (base, tuned)
    text = render(form.template, instruction=tuned.instruction, first=first.output, second=second.output)
    return ask(text)
