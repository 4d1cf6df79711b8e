"""Asks a judge's questions: the first one alone, what cannot be read again, and stops early where none ever could be read."""

from collections.abc import Sequence

from minilima.config.choices import JudgeKind, Orders
from minilima.config.schema import JudgeConfig
from minilima.errors import MinilimaError
from minilima.evaluate.judge_forms import JudgeForm, form_named
from minilima.formats.records import OnProgress
from minilima.models.cache import CachedModel
from minilima.models.chat import FAILED, REFUSAL, Reply, Request, counted


def replies_each(judge: JudgeConfig) -> int:
    """Replies for one verdict of a judge that compares two answers."""
    return 2 if judge.orders == Orders.both else 1


def ask_all(
    model: CachedModel, requests: Sequence[Request], judge: JudgeConfig, on_progress: OnProgress, *, first: int
) -> list[Reply]:
    """All replies. The `first` ones are waited for before the others: a wrong key, model or setting costs few requests."""
    form, asks_endpoint = form_named(judge.prompt), judge.kind == JudgeKind.openai

    def usable(reply: Reply) -> bool:
        if not asks_endpoint and judge.temperature == 0:
            return True  # it would write the same again
        if reply.finish == REFUSAL or (reply.finish == "length" and not form.needs_logprobs):
            return True  # it is no verdict, and would be cut again
        # An endpoint that gave no log-probabilities will not do so when it is asked again.
        return (form.needs_logprobs and reply.logprobs is None) or form.read(reply) is not None

    unit, each = ("scores", 1) if form.alone else ("verdicts", replies_each(judge))
    on_reply = counted(on_progress, len(requests), unit, each=each)
    early = model.reply_many(requests[:first], on_reply, usable)
    if form.needs_logprobs and any(reply.logprobs is None and reply.finish != FAILED for reply in early):
        raise MinilimaError(
            f"{model.name} gave no log-probabilities.",
            f"judge.prompt={form.name} reads them; the endpoint or the model does not send any.",
            "Name another model with judge.model=…, or use a judge whose text is read: judge=chatgpt or judge=cot.",
        )
    if asks_endpoint and early and all(reply.finish == "length" and form.read(reply) is None for reply in early):
        raise MinilimaError(
            f"The first reply of {model.name} was cut at judge.max_tokens={judge.max_tokens}, before its choice.",
            f"It began: {(early[0].text or early[0].reasoning or 'nothing was written')[:200]}",
            "Raise judge.max_tokens; a model that thinks first needs some thousand. What was answered is kept.",
        )
    if asks_endpoint and early and not form.needs_logprobs and all(_is_no_verdict(reply, form) for reply in early):
        raise MinilimaError(
            f"The first reply of {model.name} is no verdict in the form of judge.prompt={form.name}.",
            f"It wrote: {early[0].text[:200]}",
            "Choose another model or judge.prompt, or raise judge.max_tokens where the choice comes last.",
        )
    return early + model.reply_many(requests[first:], on_reply, usable)


def _is_no_verdict(reply: Reply, form: JudgeForm) -> bool:
    return reply.finish not in (FAILED, REFUSAL) and form.read(reply) is None


def why_unread(reply: Reply) -> str:
    """Why a reply is no verdict."""
    if reply.finish == FAILED:
        return "no reply came, after all tries"
    how = "was cut at judge.max_tokens" if reply.finish == "length" else "could not be read"
    return f"{how}: {reply.text[:200]}"
