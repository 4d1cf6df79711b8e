"""One small request to each endpoint before a run, as its stages will send it: does it answer, and what does it refuse?

    settings ─> request_of ─> probe ─> Probe (the reply, what was learned, or what stands in the way) ─> preflight, doctor
What is learned is kept beside the reply cache, where the stages' processes find it; within a day no run asks again.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import openai
from filelock import FileLock

from minilima import console
from minilima.config.choices import JudgeKind
from minilima.config.schema import Config, EndpointConfig
from minilima.errors import MinilimaError
from minilima.evaluate.judge_forms import form_named
from minilima.generate.prompting import Prompter
from minilima.models.address import address_text
from minilima.models.budget import Budget, price_of
from minilima.models.chat import FAILED, REFUSAL, UNKNOWN_USAGE, Reply, Request, Sampling, ask, continue_text
from minilima.models.dialect import NO_LIMIT, NO_SCHEMA, OLDER_LIMIT
from minilima.models.dialects import Dialects
from minilima.models.endpoint import LONGER, EndpointModel
from minilima.models.openai_api import extra_fields
from minilima.models.refusals import RedirectedError, kind_of, root_cause
from minilima.run.endpoints import endpoints_of
from minilima.run.graph import Node
from minilima.store.sources import Sources

TEXT = "Reply with the single word ready."
"""What a probe asks; tests know it by this."""
_MAX_TOKENS = 32
_SCHEMA = '{"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"], "additionalProperties": false}'
_FRESH_SECONDS = 86_400.0
_MAX_RETRIES, _TIMEOUT_SECONDS, _LONGEST_WAIT_SECONDS = 2, 60.0, 10.0


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What one small request showed: the reply, or what stands in the way."""

    model: str
    address: str
    reply: Reply | None = None
    dialect: Sequence[str] = ()
    """What differs from OpenAI's protocol, in words."""
    ignores_schema: bool = False
    """Whether a JSON schema was sent, not refused, and not kept to."""
    problem: MinilimaError | None = None
    is_busy: bool = False
    """Whether the problem may pass: the endpoint is busy, or a cap leaves no room for a probe."""

    def text(self) -> str:
        """All of it in one paragraph, without the address."""
        if self.problem is not None:
            return f"{self.problem.what} {self.problem.why}"
        assert self.reply is not None, "a probe without a problem has a reply"
        if self.reply.finish == FAILED:
            faults = ", ".join(fault.replace("_", " ") for fault in dict.fromkeys(self.reply.faults) if fault != "given_up")
            return f"{self.model} sent no usable reply to a small request ({faults})."
        unknown = UNKNOWN_USAGE in self.reply.faults
        usd = "" if self.reply.usd is None else f", {self.reply.usd:.4f} USD"
        tokens = f"{self.reply.prompt_tokens + self.reply.completion_tokens:,} tokens{usd}"
        notes = [
            (bool(self.dialect), f"Its requests are changed: {', '.join(self.dialect)}."),
            (NO_SCHEMA in self.dialect, "Lists are asked for in words."),
            (self.ignores_schema, "It does not keep to the JSON schema that is sent: its lists are read as it writes them."),
            (NO_LIMIT in self.dialect, "Nothing bounds the length of its replies: under a cap, requests go one at a time."),
            (self.reply.reasoning is not None, "Its reasoning is kept apart from its answers."),
            (unknown, "It does not say how many tokens a reply takes: caps count the worst case."),
            (LONGER in self.reply.faults, "It wrote more than it was asked for: under a cap, requests go one at a time."),
            (self.reply.finish == REFUSAL, "It declined to answer."),
            (self.reply.logprobs is not None, "It gives log-probabilities."),
        ]
        said = f"{self.model} answers a small request ({'tokens not known' if unknown else tokens})."
        return " ".join([said, *(note for applies, note in notes if applies)])


def request_of(who: str, config: Config, sources: Sources) -> Request:
    """A small request of the form that the generator or the judge will be sent."""
    if who == "generator":
        prompter = Prompter(generator=config.generator, data=config.data)
        sampling = prompter.sampling(_MAX_TOKENS)
        if not prompter.is_chat:
            return Request(messages=continue_text(TEXT), sampling=sampling)
        return Request(messages=ask(TEXT), sampling=sampling, schema=_SCHEMA if prompter.wants_json else None)
    if config.judge.kind == JudgeKind.alpaca_eval:
        kwargs = sources.judge_kwargs()
        weighs = kwargs.get("top_logprobs") if kwargs.get("logprobs") else None
        sampling = Sampling(temperature=kwargs.get("temperature", 0.7), max_tokens=_MAX_TOKENS, top_logprobs=weighs)
        return Request(messages=ask(TEXT), sampling=sampling)
    form = form_named(config.judge.prompt)
    sampling = form.sampling(config.judge)
    sampling = replace(sampling, max_tokens=min(_MAX_TOKENS, sampling.max_tokens))
    return Request(messages=ask(TEXT), sampling=sampling, schema=form.schema)


def probe(who: str, config: Config, sources: Sources, cache: Path, account: str) -> Probe:
    """Sends one small request; what is learned is kept in `cache`, and its cost booked there under `account`."""
    endpoint, model = endpoints_of(config, sources)[who]
    assert model is not None, "checked before"
    patient = replace(
        endpoint,
        batch=False,
        concurrency=1,
        max_retries=min(endpoint.max_retries, _MAX_RETRIES),
        timeout_seconds=min(endpoint.timeout_seconds, _TIMEOUT_SECONDS),
        longest_wait_seconds=min(endpoint.longest_wait_seconds, _LONGEST_WAIT_SECONDS),
    )
    budget = Budget(cache, account, endpoint.budget, price_of(model, patient))
    with closing(budget.database):
        asked = EndpointModel(model, patient, budget, extra_fields(config.generator if who == "generator" else config.judge))
        foreign = who == "judge" and config.judge.kind == JudgeKind.alpaca_eval
        asked.begin_afresh(limit=OLDER_LIMIT if foreign else None)  # that is what the package sends
        address, request = address_text(endpoint), request_of(who, config, sources)
        try:
            (reply,) = asked.reply_many([request], _ignore)
            if LONGER in reply.faults:  # does it keep to the limit by its other name?
                (reply,) = asked.reply_many([request], _ignore)
        except MinilimaError as error:
            return Probe(model=model, address=address, problem=error, is_busy=_may_pass(asked.cause))
        asked.save_dialect(probed=time.time())
        problem = _no_logprobs(model, address) if request.sampling.top_logprobs and _lacks_logprobs(reply) else None
        dialect = _said(asked.dialect, foreign=foreign)
        ignores = request.schema is not None and NO_SCHEMA not in dialect and _is_prose(reply)
        return Probe(model=model, address=address, reply=reply, dialect=dialect, ignores_schema=ignores, problem=problem)


def probe_missing(missing: Sequence[Node], cache: Path) -> None:
    """Probes the endpoints that the stages ask which are to be built, unless that was done within a day; says what was learned.

    Raises:
        MinilimaError: an endpoint would refuse, or not understand, whatever the run sends.
    """
    asking = {
        (who, id(node.config)): node
        for node in reversed(missing)
        if (who := node.spec.asks(node.config, node.sources)) is not None
    }
    for (who, _), node in reversed(asking.items()):
        config, sources = node.config, node.sources
        endpoint, model = endpoints_of(config, sources)[who]
        if not endpoint.probe or model is None:
            continue
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(cache.with_name(f"{cache.name}.probe.lock")):  # jobs that start together ask once
            if _is_known(cache, endpoint, model):
                continue
            result = probe(who, config, sources, cache, node.stage.account)
        if result.problem is not None and not result.is_busy:
            raise _with_switch(result.problem, who)
        console.say(f"{who:<18} {result.address}: {result.text()}")


def _is_known(cache: Path, endpoint: EndpointConfig, model: str) -> bool:
    with closing(Budget(cache, "", endpoint.budget, price_of(model, endpoint)).database) as database:
        probed = Dialects(database).probed(address_text(endpoint), model)
    return probed is not None and 0 <= time.time() - probed < _FRESH_SECONDS


def _with_switch(problem: MinilimaError, who: str) -> MinilimaError:
    switch = f"Nothing was built. endpoints.{who}.probe=false skips this request, for a run whose replies are all kept."
    return MinilimaError(problem.what, problem.why, f"{problem.fix.rstrip('.')}. {switch}")


def _may_pass(cause: Exception | None) -> bool:
    """Whether waiting may help, or the endpoint was not asked at all."""
    if isinstance(cause, openai.APIStatusError):
        return kind_of(cause) == "retry"
    if isinstance(cause, RedirectedError):
        return False
    return isinstance(cause, MinilimaError) or (cause is not None and isinstance(root_cause(cause), TimeoutError))


def _said(dialect: Sequence[str], *, foreign: bool) -> list[str]:
    """What is changed, without the name of the limit where another client sends that by itself."""
    return [words for words in dialect if not (foreign and OLDER_LIMIT in words)]


def _ignore(index: int, reply: Reply) -> None:
    """A probe's reply is not kept."""


def _is_prose(reply: Reply) -> bool:
    return reply.finish == "stop" and not reply.text.lstrip().startswith(("{", "```"))


def _lacks_logprobs(reply: Reply) -> bool:
    return reply.logprobs is None and reply.finish not in (FAILED, REFUSAL)


def _no_logprobs(model: str, address: str) -> MinilimaError:
    return MinilimaError(
        f"{model} at {address} gives no log-probabilities.",
        "This judge reads them, and would have no verdict.",
        "Choose a model that gives them, or a judge that writes its choice: judge=cot, judge=chatgpt.",
    )
