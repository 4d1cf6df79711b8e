"""Any OpenAI-compatible endpoint: one asynchronous client, many requests in flight, fail fast on errors that a retry cannot fix.

    request ─> reserve budget ─> send ─> settle ─> reply, or what went wrong ─> pause, try again
A reply is passed on the moment it arrives. A request that fails for good yields a reply marked FAILED and is counted; an
endpoint at which nothing succeeds any more stops the run. An error lets what is in flight finish first: it is paid for.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai

from minilima.config.schema import EndpointConfig
from minilima.errors import MinilimaError
from minilima.models.address import address_text
from minilima.models.budget import Budget, Spend, price_of, worst_case
from minilima.models.cache import CachedModel
from minilima.models.chat import FAILED, UNKNOWN_USAGE, OnReply, Reply, Request
from minilima.models.database import Database
from minilima.models.dialect import Dialect
from minilima.models.dialects import Dialects
from minilima.models.in_flight import in_flight, is_stopping
from minilima.models.openai_api import NoCompletionError, chat_call, is_whole, named, parse_completion
from minilima.models.pacing import FIRST_PAUSE_SECONDS, Throttle, pause_after, too_long_a_wait
from minilima.models.refusals import RedirectedError, Refusal, explain, fault_of, is_cut, root_cause, whom
from minilima.models.wire import Wire, loop_factory, rare_collection

_FAILURES_IN_A_ROW = 3
"""So many requests that failed for good, with no success between them: the endpoint is down."""
_REFUSALS_IN_A_ROW = 8
"""So many prompts that were refused before any was answered: it is not the prompts."""
LONGER = "longer than asked for"
"""Fault of a reply whose server does not keep to the limit."""


class EndpointModel:
    """A model behind an OpenAI-compatible endpoint. Its name alone enters keys, the address does not."""

    def __init__(self, model: str, endpoint: EndpointConfig, budget: Budget, extra: Mapping[str, Any] | None = None) -> None:
        self.model, self._extra = model, dict(extra or {})
        self.name = named(model, self._extra)
        self.endpoint = endpoint
        self.budget = budget
        self._throttle = Throttle(endpoint.concurrency)
        self._fatal: Exception | None = None
        self._ours: Exception | None = None
        """What went wrong on this side: a reply could not be kept, or its cost not be booked."""
        self._last_refusal: Exception | None = None
        self._failures, self._refusals, self._ever_answered = 0, 0, False
        self._dialects = Dialects(budget.database)
        self._dialect = self._dialects.load(address_text(endpoint), model)
        self._unsaid = self._dialect.words()
        """What was learned before, for the usage of this stage, which says it once."""
        self._excess = 0
        """Tokens by which the longest reply was longer than asked for: the server does not keep to its limit."""

    @property
    def database(self) -> Database:
        """Where its costs are booked."""
        return self.budget.database

    @property
    def dialect(self) -> list[str]:
        """What differs at this server from OpenAI's protocol, in words; empty where nothing does."""
        return self._dialect.words()

    def begin_afresh(self, limit: str | None = None) -> None:
        """Forgets what was learned before: a probe is to see the server as it is now. `limit` as Dialect's."""
        self._dialect, self._unsaid = (Dialect(limit=limit) if limit else Dialect()), []

    def save_dialect(self, *, probed: float | None = None) -> None:
        """Keeps what was learned, for other processes; `probed` as Dialects.save's."""
        self._dialects.save(address_text(self.endpoint), self.model, self._dialect, probed=probed)

    @property
    def cause(self) -> Exception | None:
        """What the endpoint did that ended the last requests; None where nothing did."""
        return self._fatal

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        """Sends all requests, at most `endpoint.concurrency` at once.

        Raises:
            MinilimaError: the key or the model is refused, the budget is used up, or the endpoint is down.
            KeyboardInterrupt: the process is asked to end; what was in flight is kept.
        """
        with rare_collection(), asyncio.Runner(loop_factory=loop_factory()) as runner:
            replies = runner.run(self._reply_all(requests, on_reply))
        if self._fatal is None and not self._ever_answered and replies:
            self._fatal = self._last_refusal  # whatever was asked was refused
        if self._ours is not None:
            raise self._ours
        if self._fatal is not None:
            raise explain(self._fatal, self.model, self.endpoint) from None
        if is_stopping():
            raise KeyboardInterrupt
        return replies

    async def _reply_all(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        replies: dict[int, Reply] = {}
        waiting = deque(enumerate(requests))
        self._fatal = self._ours = None
        self._settled = asyncio.Event()

        async def work(number: int) -> None:
            while waiting and not self._stopped():
                if number >= self._throttle.limit:
                    await asyncio.sleep(FIRST_PAUSE_SECONDS)
                    continue
                index, request = waiting.popleft()
                try:
                    with in_flight():
                        if (reply := await self._reply(wire, request)) is not None:
                            replies[index] = reply
                            on_reply(index, reply)
                        await asyncio.sleep(0)  # until it is kept
                except Exception as error:  # a full disk, for example: what is in flight may still be kept
                    self._fail(error)

        async with Wire(self.endpoint) as wire, asyncio.TaskGroup() as group:
            for number in range(min(self.endpoint.concurrency, len(requests))):
                group.create_task(work(number))
        return [] if self._stopped() else [replies[index] for index in range(len(requests))]

    def _fail(self, error: Exception) -> None:
        self._ours = self._ours or error
        self._settled.set()

    def _stopped(self) -> bool:
        return self._fatal is not None or self._ours is not None or is_stopping()

    async def _reply(self, wire: Wire, request: Request) -> Reply | None:
        """The reply to one request after as many tries as are allowed; None where the run has to stop."""
        faults: list[str] = []
        attempt = 0
        while True:
            if (reserved := await self._reserve(request)) is None:
                return None
            ticket, worst = reserved
            sent, reply, error = await self._try(wire, request)
            self._settle(ticket, worst, reply, error)
            if reply is not None and is_whole(reply):
                self._answered()
                before, self._unsaid = self._unsaid, []
                known = (*before, *faults, *reply.faults, *self._overlong(reply, request))
                return replace(reply, faults=known) if known else reply
            if error is not None and (learned := self._learn(sent, error)) is not None:
                faults += [learned] if learned else []
                continue
            fault = fault_of(reply, error)
            faults.append(fault)
            kind = whom(error)
            if kind != "retry" or attempt == self.endpoint.max_retries:
                return self._give_up(kind, error, faults)
            await self._pause(error, fault, attempt)
            if self._stopped():
                return None
            attempt += 1

    async def _pause(self, error: Exception | None, fault: str, attempt: int) -> None:
        """Waits before the next try, but not where the run is to stop; stops it where the endpoint asks for too long a wait."""
        if fault in ("busy", "timeout"):
            self._throttle.busy(time.monotonic())
        pause = pause_after(error, attempt)
        if pause > self.endpoint.longest_wait_seconds and isinstance(error, openai.APIStatusError):
            self._fatal = self._fatal or too_long_a_wait(pause, self.endpoint)
        until = time.monotonic() + pause
        while not self._stopped() and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, FIRST_PAUSE_SECONDS))

    def _learn(self, sent: Mapping[str, Any], error: Exception) -> str | None:
        """What is done about a refusal, as Dialect.learn says it; other processes are to know."""
        learned = None
        if isinstance(error, openai.APIStatusError):
            learned = self._dialect.learn(sent, error.status_code, error.body or error.response.text)
        elif isinstance(error, NoCompletionError) and error.is_stream and self._dialect.add("stream", False, sent):
            self.save_dialect()  # it may be of no use: the try counts
        if learned:
            self.save_dialect()
        return learned

    def _answered(self) -> None:
        self._failures, self._refusals, self._ever_answered = 0, 0, True
        self._throttle.answered()

    def _overlong(self, reply: Reply, request: Request) -> tuple[str, ...]:
        """Takes note of a reply that is longer than asked for, and of what is done about it."""
        excess = reply.completion_tokens - request.sampling.max_tokens
        if excess <= 0:
            return ()
        self._excess = max(self._excess, excess)
        if learned := self._dialect.overlong():
            self.save_dialect()
        return (LONGER, *filter(None, [learned]))

    async def _try(self, wire: Wire, request: Request) -> tuple[dict[str, Any], Reply | None, Exception | None]:
        """What was sent, and its reply or what went wrong."""
        path, body = chat_call(self.model, request)
        sent = self._dialect.applied({**body, **self._extra})
        try:
            async with asyncio.timeout(self.endpoint.timeout_seconds):
                content = await wire.post(path, sent)
            return sent, parse_completion(content, self.budget.price, request), None
        except Exception as error:
            if isinstance(error, openai.APIStatusError) and is_cut(error):
                cut = Reply(text="", finish="length", prompt_tokens=0, completion_tokens=0, faults=(UNKNOWN_USAGE,))
                return sent, cut, None
            if isinstance(root := root_cause(error), RedirectedError):
                return sent, None, root
            # Not only openai's errors: what a broken server sends reaches us as many kinds, and none of them ends the run.
            return sent, None, error

    def _worst(self, request: Request) -> Spend:
        """The most that a request can take, by what this server has been seen to take."""
        worst = worst_case(request, self.budget.price)
        if not self._excess:
            return worst
        usd = self.budget.price.usd(0, self._excess) if self.budget.price else 0.0
        return worst + Spend(tokens=self._excess, usd=usd)

    async def _reserve(self, request: Request) -> tuple[int, Spend] | None:
        """A ticket of the budget and what it stands for; waits where requests in flight may turn out cheaper than reserved.

        Under a cap, requests go one at a time until one has shown that the server keeps to the length that it is asked for, and
        where it does not: the books are right before each.
        """
        while not self._stopped():
            alone = self.budget.is_capped and (self._excess > 0 or not self._ever_answered)
            if not (alone and self.budget.in_flight):
                worst = self._worst(request)  # anew, since it may have grown while this one waited
                self.budget.database.join_turn(self._fail)
                if (ticket := self.budget.reserve(worst)) is not None:
                    await asyncio.sleep(0)  # until it is booked
                    if self._ours is None:
                        return ticket, worst
                    self.budget.settle(ticket, worst, Spend())
                    break
            if self.budget.in_flight == 0:
                self._fatal = self.budget.exhausted()
                break
            self._settled.clear()
            await self._settled.wait()
        return None

    def _settle(self, ticket: int, worst: Spend, reply: Reply | None, error: Exception | None) -> None:
        if reply is not None and UNKNOWN_USAGE not in reply.faults:
            actual = Spend(requests=1, tokens=reply.prompt_tokens + reply.completion_tokens, usd=reply.usd or 0.0)
        elif isinstance(error, openai.APIStatusError):
            actual = Spend(requests=1)  # refused or failed at the server: not billed
        else:
            actual = worst  # a dropped connection, a time-out, a broken reply: it may have been billed
        self.budget.database.join_turn(self._fail)
        self.budget.settle(ticket, worst, actual)
        self._settled.set()

    def _give_up(self, kind: Refusal, error: Exception | None, faults: Sequence[str]) -> Reply | None:
        """A reply marked FAILED; None where the run has to stop: the endpoint is down, or refuses whatever is asked."""
        self._refusals += kind == "prompt"
        self._failures += kind == "retry" and error is not None and not isinstance(error, NoCompletionError)
        self._last_refusal = error if kind == "prompt" else self._last_refusal
        down = kind == "retry" and error is not None and (not self._ever_answered or self._failures >= _FAILURES_IN_A_ROW)
        refuses = not self._ever_answered and self._refusals >= _REFUSALS_IN_A_ROW
        if kind == "run" or down or refuses or self._fatal is not None:
            self._fatal = self._fatal or error
            return None
        return Reply(text="", finish=FAILED, prompt_tokens=0, completion_tokens=0, faults=(*faults, "given_up"))


def connect(
    setting: str, model: str | None, endpoint: EndpointConfig, cache: Path, stage: str, extra: Mapping[str, Any] | None = None
) -> CachedModel:
    """The model at an endpoint, with its replies kept in `cache` and its costs booked there under `stage`.

    Args:
        setting: where the model's name belongs.
        model: its name at the endpoint.
        endpoint: how it is reached, and what it may cost.
        cache: the database of replies.
        stage: the account.
        extra: further fields of each request's body; they are part of the name under which replies are kept.

    Raises:
        MinilimaError: the model has no name (`setting` is where it belongs), or a cap in USD has no price.
    """
    if not model:
        raise MinilimaError(f"{setting} is not set.", "An endpoint needs the name of a model.", f"Add {setting}=…")
    budget = Budget(cache, stage, endpoint.budget, price_of(model, endpoint))
    if endpoint.batch:
        from minilima.models.batch import BatchModel

        return CachedModel(BatchModel(model, endpoint, budget, cache, extra), cache)
    return CachedModel(EndpointModel(model, endpoint, budget, extra), cache)
