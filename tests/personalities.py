"""Servers that people use, as the loopback server plays them: `python -m tests.personalities` writes what becomes of each.

The page is docs/reference/servers.md; a test plays them all again and compares.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minilima.config.schema import EndpointConfig
from minilima.errors import MinilimaError
from minilima.models.chat import Request, Sampling, ask
from minilima.models.endpoint import connect
from tests.server import VALID_KEY, ModelServer

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "servers.md"
SCHEMA = '{"type": "object", "properties": {}, "additionalProperties": false}'
Refuse = Callable[[dict[str, Any]], tuple[int, object] | None]


@dataclass(frozen=True, kw_only=True)
class Personality:
    """One server's behaviour: what it refuses, and how its completions differ."""

    server: str
    behaviour: str
    refuses: Refuse = lambda body: None
    message: Mapping[str, Any] | None = None
    choice: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] | None = None
    raw: bytes | None = None

    def play(self, server: ModelServer) -> None:
        """Makes the loopback server behave so."""
        server.refuse, server.reshapes = self.refuses, self._reshape

    def _reshape(self, body: dict[str, Any]) -> object:
        if self.raw is not None:
            return self.raw
        [choice] = body["choices"]
        choice = {**choice, "message": {**choice["message"], **(self.message or {})}, **(self.choice or {})}
        return {**body, "choices": [choice], "usage": body["usage"] if self.usage is None else self.usage}


def refuses(name: str, status: int, message: str) -> Refuse:
    """A refusal of a parameter, in a server's words."""
    return lambda body: (status, {"error": {"message": message}}) if name in body else None


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]}, {"type": "text", "text": "Output (a)"}]
PERSONALITIES = (
    Personality(
        server="OpenAI, reasoning models",
        behaviour="400 at any temperature but 1",
        refuses=refuses("temperature", 400, "Unsupported value: 'temperature' does not support 0 with this model."),
    ),
    Personality(
        server="Anthropic",
        behaviour="400 at temperature and top_p together",
        refuses=refuses("top_p", 400, "`temperature` and `top_p` cannot both be specified for this model."),
    ),
    Personality(
        server="Mistral",
        behaviour="422 at max_completion_tokens",
        refuses=refuses("max_completion_tokens", 422, "Extra inputs are not permitted: max_completion_tokens"),
    ),
    Personality(server="Mistral", behaviour="content is a list of parts", message={"content": PARTS}),
    Personality(server="DeepSeek", behaviour="reasoning_content beside the content", message={"reasoning_content": "hmm"}),
    Personality(
        server="OpenRouter",
        behaviour="404 at a JSON schema",
        refuses=refuses("response_format", 404, "No endpoints found that support structured outputs"),
    ),
    Personality(
        server="Gemini",
        behaviour="only total_tokens counts what was thought",
        usage={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40},
    ),
    Personality(
        server="Ollama", behaviour="writes on past max_completion_tokens", usage={"prompt_tokens": 10, "completion_tokens": 500}
    ),
    Personality(server="TGI", behaviour="finish_reason eos_token", choice={"finish_reason": "eos_token"}),
    Personality(
        server="vLLM, SGLang", behaviour="the think block stands in the text", message={"content": "<think>hmm</think>Output (a)"}
    ),
    Personality(
        server="llama.cpp", behaviour="500 at a JSON schema", refuses=refuses("response_format", 500, "failed to parse grammar")
    ),
    Personality(server="LM Studio", behaviour="usage is null", usage={"prompt_tokens": None}),
    Personality(server="OpenAI", behaviour="a refusal beside an empty content", message={"content": None, "refusal": "No."}),
    Personality(
        server="OpenRouter", behaviour="an error with status 200", raw=b'{"error": {"message": "Provider returned error"}}'
    ),
    Personality(server="a proxy", behaviour="a web page with status 200", raw=b"<html>Welcome</html>"),
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


def page() -> str:
    """docs/reference/servers.md."""
    lines = [
        "# Servers and their ways",
        "",
        "What becomes of two requests to a server of each kind, as the loopback server of the tests plays it. These are no",
        "measurements of the real services. Written by `python -m tests.personalities`.",
        "",
        "| Server | What it does | What becomes of it |",
        "|---|---|---|",
    ]
    rows = [f"| {item.server} | {item.behaviour} | {outcome(item)} |" for item in PERSONALITIES]
    return "\n".join([*lines, *rows]) + "\n"


if __name__ == "__main__":
    os.environ["TEST_KEY"] = VALID_KEY
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
