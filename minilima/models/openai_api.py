"""What goes to an OpenAI-compatible endpoint and what comes back: request bodies, and replies of many servers."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilima.config.choices import Thinking
from minilima.config.schema import GeneratorConfig, JudgeConfig
from minilima.formats.files import canonical_json
from minilima.models.address import FORM
from minilima.models.budget import COUNTABLE, Price
from minilima.models.chat import REFUSAL, TEXT, UNKNOWN_USAGE, Reply, Request
from minilima.models.reasoning import CLOSE, OPEN, without_reasoning

_CUT = {"length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length", "token_limit"}
_FILTERED = {"content_filter", "content-filter", "safety", "recitation", "blocklist", "prohibited_content", "spii", "sensitive"}
_ENDED = {"stop", "eos", "eos_token", "end", "end_turn", "stop_sequence", "complete", "completed", "normal", "none", ""}
BROKEN_OFF = ("error", "server_error", "network_error", "insufficient_system_resource", "abort", "aborted", "cancelled")
"""How servers call the ends of replies, in lower case."""
_EVENTS = ("data:", "event:", ":")


class NoCompletionError(ValueError):
    """What came with status 200 is no chat completion: what it is instead, and in `fix` what to do where waiting is no use."""

    def __init__(self, says: str, fix: str = "", *, is_stream: bool = False) -> None:
        super().__init__(says)
        self.fix, self.is_stream = fix, is_stream


def extra_fields(asked: GeneratorConfig | JudgeConfig) -> dict[str, Any]:
    """What a generator's or judge's settings add to the body of each request."""
    effort = {"reasoning_effort": asked.reasoning_effort} if asked.reasoning_effort is not None else {}
    return {**effort, **(asked.extra_body or {})}


def named(model: str, extra: Mapping[str, Any]) -> str:
    """Under which name replies are kept: what else is asked of a model makes it another one."""
    return f"{model} {canonical_json(dict(extra))}" if extra else model


def chat_call(model: str, request: Request) -> tuple[str, dict[str, Any]]:
    """Path and body of a request; a text to continue goes to the older completions endpoint, which base models have."""
    sampling = request.sampling
    body: dict[str, Any] = {"model": model, "temperature": sampling.temperature, "top_p": sampling.top_p}
    body = {name: value for name, value in body.items() if value is not None}
    if sampling.presence_penalty is not None:
        body["presence_penalty"] = sampling.presence_penalty
    if sampling.stop is not None:
        body["stop"] = list(sampling.stop)
    if sampling.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
    if request.messages[0].role == TEXT:
        return "/completions", {**body, "prompt": request.messages[0].content, "max_tokens": sampling.max_tokens}
    if request.schema is not None:
        schema = {"name": "reply", "strict": True, "schema": json.loads(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.thinking is not None:
        # vLLM's and SGLang's way to reach a chat template; it is sent only to servers of our own models.
        body["chat_template_kwargs"] = {"enable_thinking": request.thinking != Thinking.off}
    body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
    return "/chat/completions", {**body, "max_completion_tokens": sampling.max_tokens}


def parse_completion(content: str, price: Price | None, request: Request | None = None) -> Reply:
    """The reply in a chat completion's JSON; reasoning, which servers give apart or in the text, is apart in it.

    Where the server does not say, or not in numbers, how many tokens it took, both counts are 0 and a fault says so.

    Raises:
        NoCompletionError: it is not a chat completion.
    """
    try:
        content = content.removeprefix("\ufeff")
        body = _streamed(content) if content.lstrip().startswith(_EVENTS) else json.loads(content)
        choice = body["choices"][0]
        if choice.get("error"):
            raise NoCompletionError(f"an error within a reply: {said_in(choice['error']) or choice['error']}")
        message = {} if "text" in choice else choice["message"]
        text, reasoning = (choice["text"], None) if "text" in choice else _parts(message)
        counts = _tokens_of(body.get("usage"))
        refusal = message.get("refusal") or _declined(message.get("content"))
        reply = Reply(
            # JSON can name half of a character (a lone surrogate), which no file, database or tokenizer takes.
            text=_ended(str(refusal or text).encode("utf-16", "surrogatepass").decode("utf-16", "replace"), request),
            finish=REFUSAL if refusal else _finish(choice.get("finish_reason")),
            prompt_tokens=counts[0] if counts else 0,
            completion_tokens=counts[1] if counts else 0,
            usd=price.usd(*counts) if price and counts else None,
            faults=() if counts else (UNKNOWN_USAGE,),
            logprobs=_first_token(choice.get("logprobs")),
            reasoning=reasoning,
        )
        return reply if "text" in choice else sorted_reply(reply, request)
    except NoCompletionError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _instead(content) from error


def _streamed(content: str) -> dict[str, Any]:
    """The completion that a stream of events comes to, which some servers send although none was asked for.

    Raises:
        ValueError: it holds no whole reply.
        NoCompletionError: it holds an error.
    """
    # Not splitlines(): U+2028 and the like may stand inside a JSON string.
    lines = re.split(r"\r\n|\n|\r", content)
    events = [json.loads(line[5:]) for line in lines if line.startswith("data:") and "[DONE]" not in line]
    if error := next((event["error"] for event in events if event.get("error")), None):
        raise NoCompletionError(f"an error within a stream of events: {said_in(error) or error}")
    choices = [event["choices"][0] for event in events if event.get("choices")]
    deltas = [choice.get("delta") or {} for choice in choices]
    usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
    ends = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    if not ends and not (choices and "[DONE]" in content):
        raise ValueError("it does not end")
    ends = ends or ["stop"]
    if "text" in choices[0]:
        return {
            "choices": [{"text": "".join(choice.get("text") or "" for choice in choices), "finish_reason": ends[-1]}],
            "usage": usage,
        }
    names = ("reasoning_content", "reasoning", "refusal")
    message: dict[str, Any] = {name: "".join(str(delta.get(name) or "") for delta in deltas) for name in names}
    pieces = [delta["content"] for delta in deltas if delta.get("content")]
    message["content"] = [part for piece in pieces for part in (piece if isinstance(piece, list) else [piece])]
    first = next((choice["logprobs"] for choice in choices if choice.get("logprobs")), None)
    return {"choices": [{"message": message, "finish_reason": ends[-1], "logprobs": first}], "usage": usage}


def _ended(text: str, request: Request | None) -> str:
    """The text up to the first of the texts at which it was to stop, for servers that do not know or take them."""
    stops = (request.sampling.stop if request else None) or ()
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _parts(message: Mapping[str, Any]) -> tuple[str, str | None]:
    """Text and reasoning of a message whose content is a text, a part, or a list of both (Mistral, Anthropic, others)."""
    content, given = message.get("content"), message.get("reasoning_content") or message.get("reasoning")
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        return content or "", str(given) if given else None
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        words = part if isinstance(part, str) else part.get("text") or part.get("thinking") or part.get("reasoning") or ""
        if isinstance(words, list):  # Mistral's thinking is a list of parts again
            words = "".join(str(item.get("text", "")) for item in words)
        (thoughts if "think" in kind or "reason" in kind else texts).append(str(words))
    thought = "".join(thoughts) or (str(given) if given else "")
    return "".join(texts), thought or None


def _declined(content: object) -> str | None:
    """The words of a part that declines."""
    parts = content if isinstance(content, list) else ()
    return next((part["refusal"] for part in parts if isinstance(part, Mapping) and part.get("refusal")), None)


def _finish(reason: object) -> str:
    """The end of a reply in OpenAI's words."""
    named = reason.get("type") if isinstance(reason, Mapping) else reason  # SGLang's own form is an object
    said = str(named if named is not None else "").lower()
    if said in _CUT:
        return "length"
    if said in _FILTERED:
        return "content_filter"
    return "stop" if said in _ENDED else said


_COUNTS = ("prompt_tokens", "completion_tokens")


def _tokens_of(usage: object) -> tuple[int, int] | None:
    """(prompt, completion) where both are numbers that can be meant; None = not known."""
    if not isinstance(usage, Mapping):
        return None
    prompt_name, completion_name = ("input_tokens", "output_tokens") if "input_tokens" in usage else _COUNTS
    counts = (usage.get(prompt_name), usage.get(completion_name, 0))
    if not all(isinstance(count, int | float) and not isinstance(count, bool) and 0 <= count < COUNTABLE for count in counts):
        return None
    prompt, completion = int(counts[0]), int(counts[1])  # type: ignore[arg-type]
    total = usage.get("total_tokens")  # some count what was thought there alone
    if isinstance(total, int) and prompt + completion < total < COUNTABLE:
        completion = total - prompt
    return prompt, completion


def _instead(content: str) -> NoCompletionError:
    """What stands where a chat completion should be."""
    start = content.lstrip()[:400]
    if not start:
        return NoCompletionError("an empty reply")
    if start.startswith("<"):
        title = re.search(r"<title>(.*?)</title>", content[:4000], re.IGNORECASE | re.DOTALL)
        says = f"an HTML page{f' ({title[1].strip()[:100]})' if title else ''} and no chat completion"
        return NoCompletionError(says, f"Correct the address: {FORM}. A sign-in page or a proxy may stand before the server.")
    if start.startswith(_EVENTS):
        fix = "Switch streaming off at the server, or in the proxy before it."
        return NoCompletionError("a stream of events (SSE), although none was asked for", fix, is_stream=True)
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return NoCompletionError(f"broken JSON: {start[:200]}")
    if not (message := said_in(body)):
        return NoCompletionError(f"no chat completion: {start[:200]}")
    fix = f"Correct the address: {FORM}." if re.search(r"endpoint or method|route|no such path", message, re.IGNORECASE) else ""
    return NoCompletionError(f"an error with status 200: {message}", fix)


def said_in(body: object) -> str:
    """The words of an error's body, whatever its form; empty where it has none."""
    if isinstance(body, str):
        return body.strip()
    if isinstance(body, list):
        return "; ".join(filter(None, map(said_in, body[:3])))
    if isinstance(body, Mapping):
        named = {str(name).lower(): value for name, value in body.items()}
        for name in ("originalmessage", "message", "msg", "detail", "error", "errors", "title", "reason"):
            if named.get(name) and (words := said_in(named[name])):
                return words
    return ""


def sorted_reply(reply: Reply, request: Request | None) -> Reply:
    """The reply with reasoning apart, or where the request keeps it, in the text as a model on this machine would write it."""
    if request is None or request.thinking != Thinking.keep:
        return without_reasoning(reply, request)
    if reply.reasoning is None:
        return reply
    return replace(reply, text=f"{OPEN}\n{reply.reasoning}\n{CLOSE}\n\n{reply.text}", reasoning=None)


def _first_token(logprobs: Any) -> dict[str, float] | None:
    """The log-probabilities of the likeliest first tokens; None where the endpoint gives none, or in a form of its own."""
    try:
        tops = (logprobs.get("content") or [{}])[0].get("top_logprobs")
        if not tops:  # the older form, which Together and others keep for chats
            older = logprobs.get("top_logprobs")
            tops = older[0] if isinstance(older, list) else older
        pairs = tops.items() if isinstance(tops, dict) else [(top["token"], top["logprob"]) for top in tops]
        return {str(token): float(value) for token, value in pairs if value is not None and math.isfinite(value)} or None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def is_whole(reply: Reply) -> bool:
    """A cut reply counts as one, also where nothing was left to show: asking again would cut it again. So does a refusal."""
    if reply.finish in ("content_filter", *BROKEN_OFF):
        return False
    return bool(reply.text.strip()) or reply.finish in ("length", REFUSAL)
