"""The protocol all models speak: a batch of requests in, one reply each, in the same order."""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from minilima.errors import MinilimaError
from minilima.formats.files import canonical_json, sha256_text
from minilima.formats.records import OnProgress, Progress, Usage

TEXT = "text"
"""Role of a message that is a document to continue."""


@dataclass(frozen=True, kw_only=True)
class Message:
    role: str
    """system, user or assistant; a single message with the role TEXT is continued as it is, without a chat template."""
    content: str


@dataclass(frozen=True, kw_only=True)
class Sampling:
    temperature: float | None
    """0 = greedy; None = the endpoint's own."""
    max_tokens: int
    top_p: float | None = 1.0
    """None = the endpoint's own."""
    repetition_penalty: float | None = None
    """Local models only: chat endpoints have no such setting."""
    presence_penalty: float | None = None
    """Endpoints only."""
    stop: tuple[str, ...] | None = None
    """Texts at which the reply ends; they are not part of it."""
    top_logprobs: int | None = None
    """Ask for the log-probabilities of so many likeliest first tokens, 1 to 20; a local model writes no more than that one."""


@dataclass(frozen=True, kw_only=True)
class Request:
    messages: tuple[Message, ...]
    sampling: Sampling
    sample: int = 0
    """Tells apart requests that are otherwise equal, so that each is sampled again."""
    prefill: str | None = None
    """How a local model's reply is made to begin; the reply's text includes it. Endpoints ignore it."""
    schema: str | None = None
    """JSON schema of the reply, as JSON text; sent to endpoints that can hold to it."""
    thinking: str | None = None
    """`model.thinking`, for the template of a model on this machine; enters keys."""
    attempt: int | None = None
    """Counts how often the same was asked before, where the earlier replies could not be used."""

    def key(self, model: str) -> str:
        """sha256 over the model's name and all that can change the reply."""
        # Not asdict, which copies every value: a tenth of what a request takes.
        messages, sampling = [vars(message) for message in self.messages], vars(self.sampling)
        return sha256_text(canonical_json({"model": model, **vars(self), "messages": messages, "sampling": sampling}))


@dataclass(frozen=True, kw_only=True)
class Reply:
    text: str
    finish: str
    """stop, length (cut by max_tokens), content_filter, REFUSAL, or FAILED: there is none."""
    prompt_tokens: int
    completion_tokens: int
    usd: float | None = None
    """What it cost; None where no price is known."""
    faults: tuple[str, ...] = ()
    """What went wrong before it came."""
    logprobs: dict[str, float] | None = None
    """Natural logarithms of the probabilities of the likeliest first tokens, where they were asked for and given."""
    reasoning: str | None = None
    """What the model wrote before its answer, where it is apart from `text`; never judged or trained on."""
    key: str | None = None
    """Under which the reply stands in the cache, where it went through one."""

    def usage(self) -> Usage:
        return Usage(
            calls=1,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            usd=self.usd,
            faults=dict(Counter(self.faults)) if self.faults else {},
        )


FAILED = "failed"
"""`finish` of a reply that never came, after all tries."""
REFUSAL = "refusal"
"""`finish` of a reply in which the model declines; asking again would not change its mind."""
UNKNOWN_USAGE = "unknown_usage"
"""Fault of a reply whose server did not say how many tokens it took: 0 are counted, and the worst case is booked."""

OnReply = Callable[[int, Reply], None]
"""Called with the request's position as soon as its reply is there."""


def counted(on_progress: OnProgress, total: int, unit: str, *, each: int = 1) -> OnReply:
    """What to call with each of `total` replies, so that progress is shown in `unit`, of which each takes so many replies."""
    if total:
        on_progress(Progress(done=0, total=total // each, unit=unit))  # the first reply may take long
    numbers = itertools.count(1)
    return lambda index, reply: on_progress(Progress(done=next(numbers) // each, total=total // each, unit=unit))


def all_came(replies: list[Reply]) -> list[Reply]:
    """The replies as they are.

    Raises:
        MinilimaError: some never came.
    """
    if failed := sum(reply.finish == FAILED for reply in replies):
        raise MinilimaError(
            f"{failed:,} of {len(replies):,} answers did not come.",
            "The server failed at them, also when they were asked for again.",
            "Run the same command again: the answers that came are kept, and only the others are asked for.",
        )
    return replies


class ChatModel(Protocol):
    """A language model, wherever it runs."""

    @property
    def name(self) -> str:
        """Enters the reply cache's keys: two models with one name must give the same replies."""

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        """Answers all requests.

        Raises:
            MinilimaError: the model cannot answer; replies already passed to `on_reply` are not lost.
        """


@runtime_checkable
class BatchedModel(ChatModel, Protocol):
    """A model whose replies depend, in the last digits of its arithmetic, on what is computed with them."""

    def reply_beside(self, requests: Sequence[Request], kept: Mapping[int, Reply], on_reply: OnReply) -> list[Reply]:
        """Answers the requests that are not `kept` (by index) as it would have beside those; returns all replies."""


def ask(*texts: str) -> tuple[Message, ...]:
    """A conversation from alternating user and assistant texts, the user first."""
    return tuple(Message(role="assistant" if turn % 2 else "user", content=text) for turn, text in enumerate(texts))


def continue_text(text: str) -> tuple[Message, ...]:
    """A document to continue, for base models."""
    return (Message(role=TEXT, content=text),)
