"""Servers that people use, as the loopback server plays them: `python -m tests.personalities` writes what becomes of each.

The page is docs/reference/servers.md; a test plays them all again and compares, another runs the whole pipeline with each.
"""

import copy
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from minilima.cli.doctor_endpoints import examine_endpoint
from minilima.config.compose import load_config
from minilima.config.schema import Config, EndpointConfig
from minilima.errors import MinilimaError
from minilima.models.chat import Request, Sampling, ask
from minilima.models.endpoint import connect
from minilima.run.sources import resolve
from tests.server import VALID_KEY, ModelServer

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
PAGE = Path(__file__).parent.parent / "docs" / "reference" / "servers.md"
SCHEMA = '{"type": "object", "properties": {}, "additionalProperties": false}'
Body = dict[str, Any]
Refuse = Callable[[Body], tuple[int, object] | None]


@dataclass(frozen=True, kw_only=True)
class Personality:
    """One server's behaviour: what it refuses, and how its completions differ."""

    server: str
    behaviour: str
    refuses: Refuse = lambda body: None
    message: Callable[[str], Mapping[str, Any]] = lambda text: {}
    """What its message holds beside, or instead of, the text."""
    choice: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] | None = None
    raw: bytes | None = None
    stream: bool = False
    """Whether its completions come in pieces."""
    keeps_schema: bool = True
    works: bool = True
    """Whether the whole pipeline can run with it."""

    def play(self, server: ModelServer) -> None:
        """Makes the loopback server behave so."""
        server.refuse, server.reshapes, server.keeps_schema = self.refuses, self._reshape, self.keeps_schema

    def _reshape(self, body: Body) -> object:
        if self.raw is not None:
            return self.raw
        [choice] = body["choices"]
        if "message" in choice:
            choice = {**choice, "message": {**choice["message"], **self.message(choice["message"]["content"])}}
        if self.stream and "message" in choice:
            return _pieces(choice, body["usage"])
        return {**body, "choices": [{**choice, **(self.choice or {})}], "usage": self.usage or body["usage"]}


def _pieces(choice: Body, usage: object) -> bytes:
    """A completion as a stream of events, a word each."""
    words = re.findall(r"\S+\s*|\s+", choice["message"]["content"])
    deltas: list[Body] = [{"delta": {"content": word}, "finish_reason": None} for word in words]
    events = [{"choices": [each]} for each in [*deltas, {"delta": {}, "finish_reason": choice["finish_reason"]}]]
    lines = [f"data: {json.dumps(event)}" for event in [*events, {"choices": [], "usage": usage}]]
    return "\n\n".join([": comment", *lines, "data: [DONE]", ""]).encode()


def refuses(name: str, status: int, error: object, when: Callable[[Any], bool] = lambda value: True) -> Refuse:
    """A refusal of a parameter: a text is the message of an error in OpenAI's form, anything else the whole body."""
    body = {"error": {"message": error}} if isinstance(error, str) else error
    return lambda sent: (status, body) if name in sent and when(sent[name]) else None


def each(*refusals: Refuse) -> Refuse:
    """The first of several refusals that applies."""
    return lambda sent: next((refused for refusal in refusals if (refused := refusal(sent)) is not None), None)


def parts(text: str) -> Mapping[str, Any]:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]}
    return {"content": [thinking, {"type": "text", "text": text}]}


def always(status: int, error: object) -> Refuse:
    return lambda sent: (status, {"error": {"message": error}} if isinstance(error, str) else error)


def text_content(body: Body) -> tuple[int, object] | None:
    words = "Invalid type for 'messages[0].content': expected an array of objects, but got a string instead."
    return (400, {"error": {"message": words}}) if isinstance(body["messages"][0]["content"], str) else None


def tool_call(text: str) -> Mapping[str, Any]:
    return {"content": None, "tool_calls": [{"type": "function", "function": {"name": "reply", "arguments": text}}]}


UNKNOWN = {"prompt_tokens": None}
PERSONALITIES = (
    Personality(
        server="OpenAI, reasoning models",
        behaviour="400 at any temperature but 1, at top_p and at max_tokens",
        refuses=each(
            refuses("temperature", 400, "Unsupported value: 'temperature' does not support 0 with this model."),
            refuses("top_p", 400, "Unsupported parameter: 'top_p' is not supported with this model."),
            refuses("max_tokens", 400, "Unsupported parameter: 'max_tokens' is not supported with this model."),
        ),
    ),
    Personality(
        server="Anthropic",
        behaviour="400 at temperature and top_p together",
        refuses=lambda sent: (
            (400, {"error": {"message": "`temperature` and `top_p` cannot both be specified for this model."}})
            if {"temperature", "top_p"} <= set(sent)
            else None
        ),
    ),
    Personality(
        server="Anthropic",
        behaviour="400 where the credit is used up",
        refuses=always(400, "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."),
        works=False,
    ),
    Personality(
        server="Mistral",
        behaviour="422 at max_completion_tokens, the error in detail",
        refuses=refuses(
            "max_completion_tokens",
            422,
            {"detail": [{"loc": ["body", "max_completion_tokens"], "msg": "Extra inputs are not permitted"}]},
        ),
    ),
    Personality(server="Mistral", behaviour="content is a list of parts", message=parts),
    Personality(
        server="DeepSeek", behaviour="reasoning_content beside the content", message=lambda text: {"reasoning_content": "hmm"}
    ),
    Personality(
        server="DeepSeek",
        behaviour="400 at a JSON schema",
        refuses=refuses("response_format", 400, "This response_format type is unavailable now"),
    ),
    Personality(
        server="OpenRouter",
        behaviour="404 at a JSON schema",
        refuses=refuses("response_format", 404, "No endpoints found that support structured outputs"),
    ),
    Personality(
        server="OpenRouter",
        behaviour="an error with status 200",
        raw=b'{"error": {"message": "Provider returned error"}}',
        works=False,
    ),
    Personality(
        server="OpenRouter",
        behaviour="an error within a choice",
        choice={"finish_reason": "error", "error": {"code": 502, "message": "Upstream error from Nebius"}},
        works=False,
    ),
    Personality(
        server="Gemini",
        behaviour="only total_tokens counts what was thought",
        usage={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40},
    ),
    Personality(
        server="Gemini",
        behaviour="400 at a wrong key, the error in a list",
        refuses=always(400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}]),
        works=False,
    ),
    Personality(
        server="xAI",
        behaviour="400 at topP and presencePenalty, the error a text",
        refuses=each(
            refuses(
                "presence_penalty", 400, {"code": "invalid", "error": "Argument not supported on this model: presencePenalty"}
            ),
            refuses("top_p", 400, {"code": "invalid", "error": "Argument not supported on this model: topP"}),
        ),
    ),
    Personality(
        server="Cohere",
        behaviour="400 at max_completion_tokens, and at a top_p of 1",
        refuses=each(
            refuses(
                "max_completion_tokens", 400, {"message": 'parameter "max_completion_tokens" is not a valid field', "id": "1"}
            ),
            refuses("top_p", 400, {"message": "top_p must be between 0.01 and 0.99 inclusive."}, lambda value: value >= 1),
        ),
    ),
    Personality(
        server="TGI",
        behaviour="finish_reason eos_token; 422 at a temperature of 0 and a top_p of 1, at a JSON schema plain text",
        choice={"finish_reason": "eos_token"},
        refuses=each(
            refuses("response_format", 422, "Failed to deserialize the JSON body: unknown variant `json_schema`"),
            refuses(
                "temperature",
                422,
                {"error": "Input validation error: `temperature` must be strictly positive", "error_type": "validation"},
                lambda value: value <= 0,
            ),
            refuses(
                "top_p",
                422,
                {"error": "Input validation error: `top_p` must be > 0.0 and < 1.0", "error_type": "validation"},
                lambda value: value >= 1,
            ),
        ),
    ),
    Personality(
        server="LiteLLM",
        behaviour="400 that lists what is not supported",
        refuses=refuses(
            "top_p", 400, "litellm.UnsupportedParamsError: azure does not support parameters: ['top_p'], for model=gpt-5."
        ),
    ),
    Personality(
        server="Zhipu",
        behaviour="400 in Chinese at a temperature of 0",
        refuses=refuses(
            "temperature",
            400,
            {"error": {"code": "1210", "message": "temperature 参数非法, 取值范围 (0, 1)"}},
            lambda value: value <= 0,
        ),
    ),
    Personality(
        server="DashScope",
        behaviour="400 at thinking without a stream",
        refuses=lambda sent: (
            (400, {"error": {"message": "parameter.enable_thinking must be set to false for non-streaming calls"}})
            if sent.get("enable_thinking") is not False
            else None
        ),
    ),
    Personality(
        server="Bedrock gateway",
        behaviour="usage in input_tokens and output_tokens",
        usage={"input_tokens": 10, "output_tokens": 5},
    ),
    Personality(
        server="SGLang", behaviour="finish_reason is an object", choice={"finish_reason": {"type": "stop", "matched": 2}}
    ),
    Personality(
        server="vLLM, SGLang",
        behaviour="the think block stands in the text",
        message=lambda text: {"content": f"<think>hmm</think>{text}"},
    ),
    Personality(
        server="Ollama", behaviour="writes on past max_completion_tokens", usage={"prompt_tokens": 10, "completion_tokens": 5000}
    ),
    Personality(
        server="llama.cpp", behaviour="500 at a JSON schema", refuses=refuses("response_format", 500, "failed to parse grammar")
    ),
    Personality(server="transformers serve", behaviour="ignores a JSON schema", keeps_schema=False),
    Personality(server="LM Studio", behaviour="usage is null", usage=UNKNOWN),
    Personality(
        server="LM Studio",
        behaviour="a wrong path with status 200",
        raw=b'{"error": "Unexpected endpoint or method. (POST /chat/completions). Returning 200 anyway"}',
        works=False,
    ),
    Personality(
        server="OpenAI",
        behaviour="a refusal beside an empty content",
        message=lambda text: {"content": None, "refusal": "No."},
        works=False,
    ),
    Personality(
        server="FastAPI servers (TensorRT-LLM, Bedrock's gateway)",
        behaviour="422 that lists in detail all that is too much",
        refuses=lambda sent: (
            (
                422,
                {
                    "detail": [
                        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
                        for name in over
                    ]
                },
            )
            if (over := [name for name in ("max_completion_tokens", "response_format", "top_p") if name in sent])
            else None
        ),
    ),
    Personality(
        server="Moonshot",
        behaviour="400 at a temperature: only 1 is allowed",
        refuses=refuses("temperature", 400, "invalid temperature: only 1 is allowed for this model", lambda value: value != 1),
    ),
    Personality(
        server="Databricks",
        behaviour="400 at a JSON schema, the message without an error",
        refuses=refuses(
            "response_format",
            400,
            {"error_code": "INVALID_PARAMETER_VALUE", "message": "Response format type object is not supported for this model."},
        ),
    ),
    Personality(
        server="Groq",
        behaviour="400 where its JSON cannot be made",
        refuses=refuses("response_format", 400, "Failed to generate JSON. Please adjust your prompt."),
    ),
    Personality(
        server="LiteLLM",
        behaviour="400 where the budget is used up",
        works=False,
        refuses=always(400, "Budget has been exceeded! Current cost: 10.0, Max budget: 10.0"),
    ),
    Personality(
        server="Hugging Face's router",
        behaviour="400 at a model that no provider has",
        works=False,
        refuses=always(
            400, {"error": {"message": "The requested model is not supported by any provider", "code": "model_not_supported"}}
        ),
    ),
    Personality(
        server="SageMaker",
        behaviour="424, the words in OriginalMessage",
        works=False,
        refuses=always(424, {"ErrorCode": "INTERNAL_FAILURE_FROM_MODEL", "OriginalMessage": "CUDA out of memory"}),
    ),
    Personality(
        server="Zhipu",
        behaviour="400 where it filters, in Chinese",
        works=False,
        refuses=always(400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}),
    ),
    Personality(server="a proxy", behaviour="a stream of events although none was asked for", stream=True),
    Personality(
        server="a proxy",
        behaviour="400 at each name of the limit",
        refuses=each(
            refuses("max_completion_tokens", 400, "Unsupported parameter: max_completion_tokens"),
            refuses("max_tokens", 400, "Unsupported parameter: max_tokens"),
        ),
    ),
    Personality(
        server="FastAPI servers, in French",
        behaviour="422 whose words name no parameter, its loc does",
        refuses=refuses("top_p", 422, {"detail": [{"loc": ["body", "top_p"], "msg": "champ inconnu"}]}),
    ),
    Personality(server="a gateway", behaviour="400 at content that is a text", refuses=text_content),
    Personality(server="a gateway", behaviour="a call of a tool in place of a text", message=tool_call, works=False),
    Personality(
        server="a gateway",
        behaviour="an error within a stream of events",
        raw=b'data: {"error": {"message": "The upstream server is overloaded"}}\n\n',
        works=False,
    ),
    Personality(server="Azure", behaviour="no choice at all", raw=b'{"choices": [], "usage": null}', works=False),
    Personality(server="a proxy", behaviour="a web page with status 200", raw=b"<html>Welcome</html>", works=False),
    Personality(server="a proxy", behaviour="a stream of events", raw=b'data: {"choices": []}\n\ndata: [DONE]\n\n', works=False),
)


def outcome(personality: Personality) -> str:
    """What becomes of two requests to such a server, in words."""
    sampling = Sampling(temperature=0.0, max_tokens=50)
    asked = [Request(messages=ask(f"question {number}"), sampling=sampling, schema=SCHEMA) for number in range(2)]
    with ModelServer() as server, tempfile.TemporaryDirectory() as folder:
        personality.play(server)
        endpoint = EndpointConfig(base_url=server.url, api_key_env="TEST_KEY", concurrency=1, max_retries=1)
        model = connect("generator.model", "writer-small", endpoint, Path(folder) / "replies.sqlite", "page")
        try:
            replies = [replace(reply, key=None) for reply in model.reply_many(asked)]
        except MinilimaError as error:
            return f"the run stops: {error.why}"
    last = replies[-1]
    counted = (
        "unknown: reserved at its worst" if not last.prompt_tokens else f"{last.prompt_tokens} + {last.completion_tokens} tokens"
    )
    changes = [fault.replace("_", " ") for fault in model.usage.faults if fault not in ("refused", "server_error")]
    words = [f"{last.finish}: {last.text!r}", *(["reasoning kept apart"] if last.reasoning else []), counted, *changes]
    return "; ".join([*words, f"{server.received} requests for 2 replies"])


def settings(url: str) -> list[str]:
    """Generator and judge at one server."""
    return [
        "generator=openai", "generator.model=writer-small", f"endpoints.generator.base_url={url}", "judge=chatgpt",
        "judge.model=writer-large", f"endpoints.judge.base_url={url}", "endpoints.generator.api_key_env=TEST_KEY",
        "endpoints.judge.api_key_env=TEST_KEY", "endpoints.generator.max_retries=1", "endpoints.judge.max_retries=1",
    ]  # fmt: skip


@cache
def _composed() -> Config:
    return load_config(settings("http://127.0.0.1/v1"))


def diagnosis(personality: Personality) -> str:
    """What `doctor` says of such a server as the generator, in one paragraph."""
    with ModelServer() as server:
        personality.play(server)
        config = copy.deepcopy(_composed())
        config.endpoints.generator.base_url = server.url
        finding = examine_endpoint("generator", config, resolve(config), probe=True)
    says = f"{finding.level}: {finding.says}" + (f" Fix: {finding.fix}" if finding.fix else "")
    return re.sub(r"http://127\.0\.0\.1:\d+", "http://…", says)


COLUMNS = (
    "Server", "Date", "What it refused", "What was changed", "How replies ended", "Requests", "Answered and sent again",
    "Models answered",
)  # fmt: skip


def real() -> list[str]:
    """Servers that were run, by the committed results of benchmarks/servers.py."""
    lines = [
        "## Servers that were run",
        "",
        "Each was generator and judge of a whole run that was killed twice with SIGKILL, while tasks were written and while",
        "answers were judged, and went on by the same command; a proxy in between noted every request. Written from the results",
        "in `benchmarks/results/`, which name the command; `python benchmarks/servers.py --help` says how to run another one.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for file in sorted(RESULTS.glob("server_*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        cells = [
            record["server"],
            record["date"],
            "; ".join(f"{item['status']}: {item['says']}" for item in record["refused"]) or "nothing",
            ", ".join(record["learned"]) or "nothing",
            ", ".join(f"{name}: {count}" for name, count in sorted(record["finish_reasons"].items())),
            str(record["requests"]),
            str(record["answered_and_sent_again"]),
            "at servers" if record["answers_from_servers"] else "on this machine",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def page() -> str:
    """docs/reference/servers.md."""
    lines = [
        "# Servers and their ways",
        "",
        "What becomes of two requests to a server of each kind, as the loopback server of the tests plays it, what `doctor` says",
        "of it, and whether the whole pipeline runs with it as generator and judge. These are no measurements of the real",
        "services. Written by `python -m tests.personalities`.",
        "",
        *real(),
        "## As tests play them",
        "",
        "| Server | What it does | What becomes of it | What `doctor` says | Whole run |",
        "|---|---|---|---|---|",
    ]
    rows = [
        f"| {item.server} | {item.behaviour} | {outcome(item)} | {diagnosis(item)} | {'yes' if item.works else 'no'} |"
        for item in PERSONALITIES
    ]
    return "\n".join([*lines, *rows]) + "\n"


if __name__ == "__main__":
    os.environ["TEST_KEY"] = VALID_KEY
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
