"""What a server turned out not to take: a parameter that its refusal names is left out or exchanged, once, and remembered.

    body ─> Dialect.applied ─> sent ─> refusal ─> Dialect.learn ─> the next body
Reasoning models of OpenAI take no temperature but 1, Anthropic's newer ones no top_p beside a temperature, Mistral and older
servers no max_completion_tokens; each says so in words of its own.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import openai

_OPTIONAL = ("top_p", "temperature", "presence_penalty", "reasoning_effort", "chat_template_kwargs")
"""Left out where they are refused; top_p first, because a server that refuses both together takes either."""
_LIMITS = ("max_completion_tokens", "max_tokens")
_NOT_TAKEN = re.compile(
    r"not (?:be )?(?:support|permit|allow|accept|recogni[sz]ed|available|compatible)|unsupported|unknown|unrecogni[sz]ed"
    r"|unexpected|extra|does not (?:support|accept|have)|doesn't (?:support|accept)|cannot (?:both|be)|can't be"
    r"|only the default|deprecated"
    r"|instead|invalid (?:argument|parameter|field)|no such|may not be|mutually exclusive",
    re.IGNORECASE,
)  # fmt: skip
"""Words of a parameter that a model does not have; others (too large, out of range) are for the user to hear."""
_SCHEMA_STATUS = (400, 404, 415, 422, 500, 501)


@dataclass(kw_only=True)
class Dialect:
    """What one model at one address takes; the only state that requests to it share."""

    left_out: set[str] = field(default_factory=set)
    limit: str = "max_completion_tokens"
    """How the longest reply is called; the older name is `max_tokens`."""
    limits_tried: set[str] = field(default_factory=set)
    takes_schema: bool = True

    def applied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body as this server takes it."""
        sent = {name: value for name, value in body.items() if name not in self.left_out}
        if not self.takes_schema:
            sent.pop("response_format", None)
        if "max_completion_tokens" in sent and self.limit != "max_completion_tokens":
            sent[self.limit] = sent.pop("max_completion_tokens")
        return sent

    def learn(self, sent: Mapping[str, Any], error: openai.APIStatusError) -> str | None:
        """What is done about a refusal, in words, empty where another request met it before; None where nothing helps."""
        words = refusal_words(error)
        if error.status_code in (400, 422) and (name := _named(sent, error, words)) is not None:
            return self._exchange(name) if name in _LIMITS else self._leave_out(name)
        if "response_format" in sent and error.status_code in _SCHEMA_STATUS and _may_mean_schema(error, words):
            said = "" if not self.takes_schema else "no JSON schema"
            self.takes_schema = False
            return said
        return None

    def overlong(self) -> str | None:
        """What is done about a server that writes more than it was asked for: it may know only the older name of the limit."""
        return self._exchange("max_completion_tokens") if self.limit == "max_completion_tokens" else None

    def _leave_out(self, name: str) -> str:
        known = name in self.left_out
        self.left_out.add(name)
        return "" if known else f"{name} left out"

    def _exchange(self, refused: str) -> str | None:
        if refused != self.limit:
            # Sent before another request learned it; a text to continue knows max_tokens alone, and would be refused for ever.
            return "" if refused == "max_completion_tokens" else None
        other = next(name for name in _LIMITS if name != refused)
        if other in self.limits_tried:
            return None
        self.limits_tried.add(refused)
        self.limit = other
        return f"{other} instead of {refused}"


def refusal_words(error: openai.APIStatusError) -> str:
    """All that a server says in a refusal, as one text."""
    body = error.body
    return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False) if body else str(error)


def _named(sent: Mapping[str, Any], error: openai.APIStatusError, words: str) -> str | None:
    """The parameter of the request that a refusal is about."""
    if not _NOT_TAKEN.search(words):
        return None
    named = [name for name in (*_OPTIONAL, *_LIMITS) if name in sent and re.search(rf"(?<![a-z_]){name}(?![a-z_])", words)]
    if error.param in named:
        return str(error.param)
    return named[0] if named else None


def _may_mean_schema(error: openai.APIStatusError, words: str) -> bool:
    """A refusal in words of schemas; or one without any words to go by (a bare 404, 500 or 501)."""
    if re.search(r"response_format|json_schema|schema|structured|grammar|guided|json", words, re.IGNORECASE):
        return True
    return error.status_code in (500, 501) or (error.status_code == 404 and "model" not in words.lower())
