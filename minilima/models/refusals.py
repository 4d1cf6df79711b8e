"""What an endpoint's refusal or silence means: whether to try again, whom it concerns, and what to say to the user.

The server's own words are always quoted; a cause is guessed only beside them. Keys that a server repeats are masked.
"""

import os
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, Literal
from urllib.parse import urlsplit

import openai

from minilima.config.schema import EndpointConfig
from minilima.errors import MinilimaError, options
from minilima.models.address import FORM, open_client
from minilima.models.chat import Reply
from minilima.models.masking import masked
from minilima.models.openai_api import BROKEN_OFF, NoCompletionError, said_in

Refusal = Literal["retry", "prompt", "run"]
"""retry: waiting may help; prompt: this one request is refused; run: every request would be."""

_OF_THE_RUN = (401, 402, 404, 405, 410)
_WAITS = (408, 409, 423, 424, 425, 429, 449, 498, 499)
_MODERATED = re.compile(
    r"moderat|flagged|content.?(?:filter|policy|management)|safety|harm|policy violation|blocked|high risk|inappropriate"
    r"|sensitive|data_inspection|敏感|不安全",
    re.IGNORECASE,
)
_NO_MONEY = re.compile(
    r"insufficient[_ ](?:quota|funds|balance|credit)|exceeded (?:your current|current|your) (?:token )?quota"
    r"|exceeded_current_quota|budget has been exceeded|budget_exceeded|credit (?:balance|limit)|out of credit|arrears",
    re.IGNORECASE,
)
_RENEWED = re.compile(r"retryDelay|per.?minute|(?:again|retry) (?:in|after) [\d.]+ ?m?s", re.IGNORECASE)
"""A quota that comes back soon: Gemini speaks of it as of one that is used up."""
_BAD_KEY = re.compile(
    r"api[ _-]?key\b.{0,40}\b(?:not valid|invalid|incorrect|wrong|expired)"
    r"|(?:invalid|incorrect|wrong|expired)\b.{0,20}\bapi[ _-]?key",
    re.IGNORECASE,
)
"""Google and xAI answer a wrong key with 400."""
_NO_MODEL = re.compile(
    r"model[_ ]not[_ ](?:exist|found|supported)|(?:invalid|unknown|no such) model|model\b.{0,80}\b(?:does not exist|not found)",
    re.IGNORECASE,
)
"""Mistral and DeepSeek answer a wrong model with 400."""
_CUT = re.compile(r"could not finish the message because max_tokens|max_tokens or model output limit was reached", re.IGNORECASE)
_SHOWN = 400
_FEW, _LIST_SECONDS = 12, 10.0


class RedirectedError(MinilimaError):
    """The server names another address."""


def whom(error: Exception | None) -> Refusal:
    """Whom an error concerns; without one, a reply could not be used."""
    if isinstance(error, openai.APIStatusError):
        return kind_of(error)
    return "run" if isinstance(error, RedirectedError) else "retry"


def kind_of(error: openai.APIStatusError) -> Refusal:
    """Whom a refusal concerns."""
    status, words = _status(error), words_of(error)
    if status >= 500 or status in _WAITS:
        return "retry"
    if status == 403:
        return "prompt" if _MODERATED.search(words) else "run"
    return "run" if status in _OF_THE_RUN else "prompt"


def _status(error: openai.APIStatusError) -> int:
    """The status that fits the words: some servers refuse a key, a model or an empty account with 400, 403 or 429."""
    status, words = error.status_code, f"{error.code} {words_of(error)}"
    if status in (400, 403, 429) and _NO_MONEY.search(words):
        return status if status == 429 and _RENEWED.search(error.response.text) else 402
    if status in (400, 403) and _BAD_KEY.search(words):
        return 401
    return 404 if status in (400, 422) and _NO_MODEL.search(words) else status


def is_cut(error: openai.APIStatusError) -> bool:
    """Whether a reasoning model says so that its thoughts took all the tokens it may write: the reply is there, and empty."""
    return error.status_code == 400 and _CUT.search(words_of(error)) is not None


def words_of(error: openai.APIStatusError) -> str:
    """The beginning of what the server says, without its JSON."""
    return _whole_words(error)[:_SHOWN]


def _whole_words(error: openai.APIStatusError) -> str:
    words = said_in(error.body) or error.response.text
    if words.lstrip().startswith("<"):  # a page, of a proxy for example
        words = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", words, flags=re.DOTALL | re.IGNORECASE)
    return " ".join(words.split())


def quoted(words: str, endpoint: EndpointConfig) -> str:
    """A server's words for people: without the key, cut, without a full stop."""
    # The key first: half of one is no longer known as such.
    return masked(words, endpoint.api_key_env)[:_SHOWN].rstrip(".")


def explain(error: Exception, model: str, endpoint: EndpointConfig) -> MinilimaError:
    """The error that ends a run, in three parts."""
    if isinstance(error, RedirectedError):
        return MinilimaError(*(masked(part, endpoint.api_key_env) for part in (error.what, error.why, error.fix)))
    if isinstance(error, MinilimaError):
        return error
    address = masked(endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or "OpenAI", endpoint.api_key_env)
    if isinstance(error, openai.APIStatusError) and kind_of(error) != "retry":
        what, guess, fix = _explain_refusal(error, address, model, endpoint)
        says = quoted(_whole_words(error), endpoint)
        return MinilimaError(what, " ".join(filter(None, [f"It says: {says}." if says else "It says nothing.", guess])), fix)
    again = "Run the same command again later: every reply that arrived is kept and not asked for again."
    root = root_cause(error)
    after = f"after {endpoint.max_retries} {'retry' if endpoint.max_retries == 1 else 'retries'}"
    if isinstance(error, NoCompletionError):
        says = quoted(str(error), endpoint)
        return MinilimaError(f"{address} sent no chat completion, {after}.", f"It sent {says}.", error.fix or again)
    if isinstance(error, openai.APIStatusError):
        says = quoted(_whole_words(error), endpoint)
        why = f"It says: {says}." if says else "It says nothing."
        return MinilimaError(f"{address} still fails ({error.status_code}), {after}.", why, again)
    says = quoted(str(root), endpoint)
    return MinilimaError(
        f"{address} did not answer, {after}.",
        f"The last error was {type(root).__name__}: {says or 'it took too long'}.",
        tls_fix(str(root)) or again,
    )


def tls_fix(words: str) -> str | None:
    """What to do about an error of an encrypted connection; None where it is none."""
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return "If the server's certificate is your own, name it: export SSL_CERT_FILE=/its/certificate.pem"
    return "Write http:// in place of https://, or switch TLS on at the server." if "WRONG_VERSION_NUMBER" in words else None


def _explain_refusal(error: openai.APIStatusError, address: str, model: str, endpoint: EndpointConfig) -> tuple[str, str, str]:
    """(what, a guess, what to do)."""
    status, given, variable = _status(error), error.status_code, endpoint.api_key_env
    again = "and run the same command again; what was answered is kept."
    if status == 401:
        guess = "The key may be wrong, expired, or of another organisation."
        return f"{address} refuses the key in ${variable} ({given}).", guess, f"Set a valid one (export {variable}=…) {again}"
    if status == 402:
        return f"{address} asks for payment ({given}).", "", f"Add credit there {again}"
    if status == 403:
        guess = (
            f"The key in ${variable} may lack the right to this model; some services refuse countries or contents in this way."
        )
        return (
            f"{address} does not permit this request (403).",
            guess,
            f"Ask for the right there, or choose another model, {again}",
        )
    if status == 404:
        return _explain_404(address, error, model, endpoint)
    guess = "Most often a setting does not suit the model (temperature, tokens, log-probabilities), or the prompt is too long."
    if _MODERATED.search(words_of(error)):
        guess = "It may filter what is asked or answered."
    return f"{address} refuses the request ({status}).", guess, "Correct what it names and run the same command again."


def _explain_404(address: str, error: openai.APIStatusError, model: str, endpoint: EndpointConfig) -> tuple[str, str, str]:
    status, offered = error.status_code, _offered(endpoint)
    choose = "Choose {} with generator.model=… or judge.model=…"
    bare = not urlsplit(address).path.strip("/") and "://" in address
    form = f"Try {address.rstrip('/')}/v1 as the address." if bare else f"Correct the address: {FORM}."
    if offered is None:
        guess = f"The path may be wrong, or there is no model {model!r}; it gives out no list of models."
        return f"{address} answers {status}.", guess, form
    if model in offered:
        guess = f"It lists the model {model!r}: the path, or a policy of the account (data, privacy), may be the cause."
        fix = choose.format("another one") if _NO_MODEL.search(f"{error.code} {words_of(error)}") else form
        return f"{address} answers {status}.", guess, fix
    return f"{address} has no model {model!r}.", f"It offers: {nearest(model, offered)}.", choose.format("one of them")


def nearest(model: str, offered: Sequence[str]) -> str:
    """The models on offer for people: all of a few, else those whose names are most like the one asked for."""
    if len(offered) <= _FEW:
        return options(offered) or "nothing"
    asked = model.lower().rpartition("/")[2]
    names = {name: SequenceMatcher(None, asked, name.lower().rpartition("/")[2]).ratio() for name in offered}
    first = sorted(names, key=lambda name: (-names[name], name))[:_FEW]
    return f"{', '.join(first)}, and {len(offered) - _FEW:,} others"


def _offered(endpoint: EndpointConfig) -> list[str] | None:
    try:
        with open_client(endpoint) as client:
            page = client.with_options(timeout=_LIST_SECONDS, max_retries=0).models.list()
            names = [masked(str(model.id), endpoint.api_key_env) for model in page]
            return None if getattr(page, "has_more", None) else names  # a part of a list says nothing of what is not in it
    except (openai.OpenAIError, ValueError, TypeError, AttributeError):
        return None


async def refuse_redirect(response: Any) -> None:
    """For a client's hook: a POST that is sent elsewhere with 301 to 303 would arrive as a GET, without what was asked.

    Raises:
        RedirectedError: the response is such a one; 307 and 308 are followed.
    """
    if response.status_code in (301, 302, 303):
        asked = response.request.url
        target = response.headers.get("location") or "nowhere"
        base = re.sub(r"/(chat/completions|completions)/?$", "", str(asked.join(target)) if target != "nowhere" else "…")
        raise RedirectedError(
            f"{asked.scheme}://{asked.netloc.decode()} sends requests elsewhere ({response.status_code}).",
            f"It names {target}. A request that follows would lose what is asked.",
            f"Set the address that it names, if that is the server's: base_url={base}",
        )


def root_cause(error: BaseException) -> BaseException:
    """The first error of a chain: the libraries between say less of it at each step. A time-out is caused by nothing."""
    while error.__cause__ is not None and not isinstance(error, TimeoutError):
        error = error.__cause__
    return error


def fault_of(reply: Reply | None, error: Exception | None) -> str:
    """One word for what went wrong."""
    if reply is not None:
        if reply.finish in BROKEN_OFF:
            return "broken_off"
        if reply.finish in ("tool_calls", "function_call"):
            return "tool_call"
        return "filtered" if reply.finish == "content_filter" else "empty"
    if isinstance(error, openai.RateLimitError):
        return "busy"
    # aiohttp's errors all come as time-outs: their cause decides.
    if error is not None and isinstance(root_cause(error), TimeoutError):
        return "timeout"
    if isinstance(error, openai.APIConnectionError):
        return "connection"
    if isinstance(error, openai.InternalServerError):
        return "server_error"
    return "refused" if isinstance(error, openai.APIStatusError) else "malformed"
