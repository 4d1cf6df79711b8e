"""What a server turned out not to take: a parameter that its refusal names is left out or exchanged, once, and remembered.

    body ─> Dialect.applied ─> sent ─> refusal ─> Dialect.learn ─> the next body
                                                  └─> Dialects (beside the reply cache) ─> the next stage's process
Reasoning models of OpenAI take no temperature but 1, Anthropic's newer ones no top_p beside a temperature, Mistral and older
servers no max_completion_tokens; each says so in words of its own.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minilima.models.openai_api import said_in

_OPTIONAL = ("top_p", "temperature", "presence_penalty", "reasoning_effort", "chat_template_kwargs")
"""Left out where they are refused; top_p first, because a server that refuses both together takes either."""
_STOP = "stop"
"""Left out whatever a server has against it (some take one text, or four): replies are ended here too."""
_NEUTRAL = {"top_p": 1, "presence_penalty": 0}
"""Values that change nothing: they are left out whatever a server has against them (some want a top_p below 1)."""
_LEAST_TEMPERATURE = 0.01
"""Instead of 0, for servers whose range begins above it."""
OLDER_LIMIT = "max_tokens"
LIMITS = ("max_completion_tokens", OLDER_LIMIT)
_NOT_TAKEN = re.compile(
    r"not (?:be )?(?:support|permit|allow|accept|recogni[sz]ed|available|compatible)|unsupported|unknown|unrecogni[sz]ed"
    r"|unexpected|extra|does not (?:support|accept|have)|doesn't (?:support|accept)|cannot (?:both|be)|can't be"
    r"|only the default|deprecated|only one of|not a valid (?:field|parameter|argument)"
    r"|only 1 is allowed|(?:must|should|has to) be (?:set to |equal to )?1(?:\.0)?(?!\.?\d| (?:to|and|or)\b)|instead"
    r"|invalid (?:argument|parameter|field)|no such|may not be|mutually exclusive",
    re.IGNORECASE,
)  # fmt: skip
"""Words of a parameter that a model does not have; others (too large, out of range) are for the user to hear."""
_OF_VALUES = re.compile(
    r"(?<![\w-])\d|too (?:large|high|big|small|low|long|many|short|few)|range|exceed|maximum|minimum|at (?:most|least)|between"
    r"|greater|smaller|larger|lower|less|positive|negative|limit|范围|超过|过大|过长",
    re.IGNORECASE,
)
"""Words, and numbers in any language, of a value that a model does not take. Where there are none, it is the parameter."""
_MUST_BE = re.compile(r"\b([a-z]+(?:_[a-z]+)+)\W+must be (?:set to )?(true|false)\b", re.IGNORECASE)
"""DashScope's thinking models: `parameter.enable_thinking must be set to false for non-streaming calls`."""
_STATUS = (400, 404, 415, 422, 500, 501)
"""With which servers refuse parameters."""
_CONTENT = re.compile(r"content\b.{0,120}\b(?:list|array|sequence|parts)\b", re.IGNORECASE | re.DOTALL)
"""`Invalid type for 'messages[0].content': expected an array of objects`."""
_SYSTEM = re.compile(
    r"\bsystem\b\W*(?:role|message|prompt|instruction)|\broles?\b|alternat|['\"`]system|developer (?:instruction|message)",
    re.IGNORECASE,
)
"""`System role not supported` (Gemma's template), `Developer instruction is not enabled` (Google), `roles must alternate`."""
_ECHOES = ("input", "failed_generation", "body", "request")
"""Fields in which a refusal repeats what it was sent, or what was written."""
_SCHEMA_WORDS = re.compile(r"response[_ ]format|schema|structured|grammar|guided|json", re.IGNORECASE)
_NO_ZERO = f"temperature={_LEAST_TEMPERATURE} instead of 0"
NO_SCHEMA = "no JSON schema"
NO_LIMIT = "no limit of tokens"
_NO_SYSTEM = "the system message within the first question"
_IN_PARTS = "content as a list of parts"


@dataclass(kw_only=True)
class Dialect:
    """What one model at one address takes; the only state that requests to it share."""

    left_out: set[str] = field(default_factory=set)
    limit: str = "max_completion_tokens"
    """How the longest reply is called; the older name is `max_tokens`. Empty = neither is taken."""
    limits_refused: set[str] = field(default_factory=set)
    takes_schema: bool = True
    schema_in_doubt: bool = False
    """Whether the schema was dropped after an error without words (a bare 500), which may have had another cause."""

    takes_zero: bool = True
    """Whether a temperature may be 0."""
    takes_system: bool = True
    in_parts: bool = False
    """Whether the content of a message has to be a list of parts."""
    added: dict[str, bool] = field(default_factory=dict)
    """Fields that the server asks for: `stream=false` where it sent a stream, `enable_thinking=false`."""

    def words(self) -> list[str]:
        """What differs from OpenAI's protocol, in words; empty where nothing does."""
        exchanged = [] if self.limit == LIMITS[0] else [f"{self.limit} instead of {LIMITS[0]}" if self.limit else NO_LIMIT]
        left_out = [f"{name} left out" for name in sorted(self.left_out)]
        added = [_assigned(name, value) for name, value in sorted(self.added.items())]
        zero = [] if self.takes_zero else [_NO_ZERO]
        forms = [] if self.takes_system else [_NO_SYSTEM]
        forms += [_IN_PARTS] if self.in_parts else []
        return [*left_out, *exchanged, *zero, *forms, *added, *([] if self.takes_schema else [NO_SCHEMA])]

    def applied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body as this server takes it."""
        sent = {name: value for name, value in body.items() if name not in self.left_out}
        if not self.takes_schema:
            sent.pop("response_format", None)
        if not self.takes_zero and sent.get("temperature") == 0:
            sent["temperature"] = _LEAST_TEMPERATURE
        if "max_completion_tokens" in sent and self.limit != "max_completion_tokens":
            most = sent.pop("max_completion_tokens")
            sent |= {self.limit: most} if self.limit else {}
        if "messages" in sent and (self.in_parts or not self.takes_system):
            sent["messages"] = self._formed(sent["messages"])
        return {**sent, **self.added}

    def _formed(self, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        if not self.takes_system and _has_system(messages):
            system, first, *others = messages
            messages = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *others]
        if not self.in_parts:
            return list(messages)
        return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]

    def learn(self, sent: Mapping[str, Any], status: int, body: object) -> str | None:
        """What is done about a refusal, in words, empty where another request met it before; None where nothing helps.

        Args:
            sent: the body that was refused.
            status: of the refusal.
            body: what came with it, parsed where it is JSON.
        """
        if status not in _STATUS:
            return None
        body = _without_echoes(body)
        words = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False) if body else ""
        if (wanted := _MUST_BE.search(words)) and (said := self.add(wanted[1], wanted[2].lower() == "true", sent)) is not None:
            return said
        if (said := self._reform(sent, words)) is not None:
            return said
        if (name := _named(sent, words, body)) is not None:
            return self._exchange(name, sent, body) if name in LIMITS else self._leave_out(name)
        if sent.get("temperature") == 0 and _names("temperature", words):
            known, self.takes_zero = not self.takes_zero, False
            return "" if known else _NO_ZERO
        if "response_format" in sent and _may_mean_schema(status, words):
            known = not self.takes_schema
            self.takes_schema = False
            self.schema_in_doubt = status >= 500 and not _SCHEMA_WORDS.search(words)
            return "" if known else NO_SCHEMA
        return None

    def overlong(self) -> str | None:
        """What is done about a server that writes more than it was asked for: it may know only the older name of the limit."""
        newer, older = LIMITS
        if self.limit != newer or older in self.limits_refused:
            return None
        self.limit = older
        return f"{older} instead of {newer}"

    def add(self, name: str, value: bool, sent: Mapping[str, Any]) -> str | None:
        """A field that further requests carry; None where this one did already."""
        if sent.get(name) is value:
            return None
        known = self.added.get(name) is value
        self.added[name] = value
        return "" if known else _assigned(name, value)

    def _reform(self, sent: Mapping[str, Any], words: str) -> str | None:
        """Another form of the messages, where the words are about that."""
        messages = sent.get("messages") or ()
        if messages and isinstance(messages[0]["content"], str) and _CONTENT.search(words):
            known, self.in_parts = self.in_parts, True
            return "" if known else _IN_PARTS
        if _has_system(messages) and _SYSTEM.search(words):
            known, self.takes_system = not self.takes_system, False
            return "" if known else _NO_SYSTEM
        return None

    def _leave_out(self, name: str) -> str:
        known = name in self.left_out
        self.left_out.add(name)
        return "" if known else f"{name} left out"

    def _exchange(self, refused: str, sent: Mapping[str, Any], body: object) -> str | None:
        if "prompt" in sent:  # a text to continue knows max_tokens alone
            return None
        self.limits_refused.add(refused)
        if refused != self.limit:
            return ""  # sent before another request learned it
        other = next(name for name in LIMITS if name != refused)
        if other in self.limits_refused:
            if _OF_VALUES.search(said_in(body)):
                return None
            self.limit = ""
            return NO_LIMIT
        self.limit = other
        return f"{other} instead of {refused}"


def _has_system(messages: Sequence[Mapping[str, Any]]) -> bool:
    return len(messages) > 1 and messages[0]["role"] == "system"


def _without_echoes(body: object) -> object:
    """The body of a refusal without what it repeats."""
    if isinstance(body, list):
        return [_without_echoes(item) for item in body]
    if not isinstance(body, Mapping):
        return body
    return {name: _without_echoes(value) for name, value in body.items() if name not in _ECHOES}


def _pointed(body: object) -> set[str]:
    """The parameters that a refusal names in a field of its own: `param` (OpenAI's form), `loc` (FastAPI's)."""
    if isinstance(body, list):
        return {name for item in body for name in _pointed(item)}
    if not isinstance(body, Mapping):
        return set()
    here = {part for name in ("param", "parameter", "loc") for part in re.findall(r"\w+", str(body.get(name, "")))}
    return here.union(*(_pointed(value) for value in body.values()))


def _assigned(name: str, value: bool) -> str:
    return f"{name}={str(value).lower()}"


def _names(name: str, words: str) -> bool:
    """Whether words name a parameter, as it is written in JSON or in camel case (xAI, Google)."""
    head, *tail = name.split("_")
    camel = head + "".join(part.capitalize() for part in tail)
    return re.search(rf"(?<![A-Za-z_])(?:{name}|{camel})(?![A-Za-z_])", words) is not None


def _named(sent: Mapping[str, Any], words: str, body: object) -> str | None:
    """The parameter of the request that a refusal is about, and that the server would rather not have."""
    named = [name for name in (*_OPTIONAL, *LIMITS) if name in sent and _names(name, words)]
    pointed = _pointed(body)
    named.sort(key=lambda name: name not in pointed)
    if _STOP in sent and (
        _STOP in pointed or re.search(r"[\"'`]stop[\"'`]|\bstop (?:sequence|list|array|parameter|word)", words)
    ):
        return _STOP
    if not _NOT_TAKEN.search(words) and _OF_VALUES.search(said_in(body)):
        return next((name for name in named if sent[name] == _NEUTRAL.get(name)), None)
    return named[0] if named else None


def _may_mean_schema(status: int, words: str) -> bool:
    """A refusal in words of schemas; or one without any words to go by (a bare 404, 500 or 501)."""
    if _SCHEMA_WORDS.search(words):
        return True
    return status in (500, 501) or (status == 404 and "model" not in words.lower())
