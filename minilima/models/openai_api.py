"""What goes to an OpenAI-compatible endpoint and what comes back: request bodies, replies, and refusals in words."""

import json
import os
from dataclasses import replace
from typing import Any

import openai

from minilima.config.choices import Thinking
from minilima.config.schema import EndpointConfig
from minilima.errors import MinilimaError, options
from minilima.models.budget import COUNTABLE, Price
from minilima.models.chat import TEXT, Reply, Request
from minilima.models.reasoning import CLOSE, OPEN, without_reasoning


def chat_call(model: str, request: Request, *, with_schema: bool = True) -> tuple[str, dict[str, Any]]:
    """Path and body of a request; a text to continue goes to the older completions endpoint, which base models have."""
    sampling = request.sampling
    body: dict[str, Any] = {"model": model, "temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.presence_penalty is not None:
        body["presence_penalty"] = sampling.presence_penalty
    if sampling.stop is not None:
        body["stop"] = list(sampling.stop)
    if sampling.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
    if request.messages[0].role == TEXT:
        return "/completions", {**body, "prompt": request.messages[0].content, "max_tokens": sampling.max_tokens}
    if request.schema is not None and with_schema:
        schema = {"name": "reply", "strict": True, "schema": json.loads(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.thinking is not None:
        # vLLM's and SGLang's way to reach a chat template; only servers of our own models are told.
        body["chat_template_kwargs"] = {"enable_thinking": request.thinking != Thinking.off}
    body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
    return "/chat/completions", {**body, "max_completion_tokens": sampling.max_tokens}


def parse_completion(content: str, price: Price | None, request: Request | None = None) -> Reply:
    """The reply in a chat completion's JSON; reasoning, which servers give apart or in the text, is apart in it.

    Raises:
        ValueError: it is not a chat completion.
    """
    try:
        body = json.loads(content)
        choice = body["choices"][0]
        message = {} if "text" in choice else choice["message"]
        text = choice["text"] if "text" in choice else message.get("content") or ""
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        usage = body.get("usage") or {}
        prompt, completion = _amount(usage.get("prompt_tokens")), _amount(usage.get("completion_tokens"))
        reply = Reply(
            # JSON can name half of a character (a lone surrogate), which no file, database or tokenizer takes.
            text=str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
            finish=str(choice.get("finish_reason")),
            prompt_tokens=prompt,
            completion_tokens=completion,
            usd=price.usd(prompt, completion) if price else None,
            logprobs=_first_token(choice.get("logprobs")),
            reasoning=str(reasoning) if reasoning else None,
        )
        return reply if "text" in choice else sorted_reply(reply, request)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"not a chat completion: {error!r}") from None


def sorted_reply(reply: Reply, request: Request | None) -> Reply:
    """The reply with reasoning apart, or where the request keeps it, in the text as a model on this machine would write it."""
    if request is None or request.thinking != Thinking.keep:
        return without_reasoning(reply, request)
    if reply.reasoning is None:
        return reply
    return replace(reply, text=f"{OPEN}\n{reply.reasoning}\n{CLOSE}\n\n{reply.text}", reasoning=None)


def _amount(value: object) -> int:
    """A count of tokens; 0 = not known, where it is none: negative, endless, or more than any request can take."""
    return int(value) if isinstance(value, int | float) and 0 <= value < COUNTABLE else 0


def _first_token(logprobs: Any) -> dict[str, float] | None:
    """The log-probabilities of the likeliest first tokens; None where the endpoint gives none."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return {str(top["token"]): float(top["logprob"]) for top in content[0]["top_logprobs"]} if content else None


def is_whole(reply: Reply) -> bool:
    """A cut reply counts as one, also where nothing was left to show: asking again would cut it again."""
    return reply.finish != "content_filter" and (bool(reply.text.strip()) or reply.finish == "length")


def open_client(endpoint: EndpointConfig) -> openai.OpenAI:
    """A client for single calls that are not worth many at once."""
    key = os.environ.get(endpoint.api_key_env) or "none"
    return openai.OpenAI(api_key=key, base_url=endpoint.base_url, max_retries=2)


def explain(error: Exception, model: str, endpoint: EndpointConfig) -> MinilimaError:
    """What an endpoint's refusal or silence means, and what to do."""
    if isinstance(error, MinilimaError):
        return error
    address = endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or "OpenAI"
    variable = endpoint.api_key_env
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return MinilimaError(
            f"{address} refuses the key in ${variable}.",
            "The key is wrong, expired, or may not use this model.",
            f"Set a valid one (export {variable}=…) and run the same command again; what was answered is kept.",
        )
    if isinstance(error, openai.NotFoundError):
        return MinilimaError(
            f"{address} has no model {model!r}.",
            f"It offers: {_offered(endpoint)}.",
            "Choose one of them with generator.model=… or judge.model=…",
        )
    if isinstance(error, openai.BadRequestError):
        return MinilimaError(
            f"{address} refuses the request.",
            f"It says: {error}.",
            "Most often a setting does not suit the model (temperature, tokens, log-probabilities), or the prompt is too long.",
        )
    root = root_cause(error)
    return MinilimaError(
        f"{address} did not answer, after {endpoint.max_retries} retries.",
        f"The last error was {type(root).__name__}: {str(root).rstrip('.') or 'it took too long'}.",
        "Run the same command again later: every reply that arrived is kept and not asked for again.",
    )


def root_cause(error: BaseException) -> BaseException:
    """The first error of a chain: the libraries between say less of it at each step. A time-out is caused by nothing."""
    while error.__cause__ is not None and not isinstance(error, TimeoutError):
        error = error.__cause__
    return error


def _offered(endpoint: EndpointConfig) -> str:
    try:
        with open_client(endpoint) as client:
            return options(model.id for model in client.models.list()) or "nothing"
    except openai.OpenAIError:
        return "a list it does not give out"
