"""What goes over the wire is what openai's own client would send, and what comes back raises what it would raise."""

import asyncio
import gzip
import json
from collections.abc import Callable, Coroutine
from typing import Any

import openai
import pytest

from minilima.config.schema import EndpointConfig
from minilima.models.refusals import RedirectedError
from minilima.models.wire import Wire

BODY = {"model": "m", "messages": [{"role": "user", "content": "Grüße, \u4f60"}], "temperature": 0.5}
_OF_OPENAI_ALONE = {"x-stainless-retry-count", "x-stainless-read-timeout"}
"""Telemetry of the client's own retries, which are switched off."""


def sent_by(send: Callable[[str], Coroutine[Any, Any, object]], *replies: bytes) -> tuple[str, dict[str, str], Any]:
    """Request line, headers and body of the last request; requests get `replies` in turn."""
    left = list(replies)
    seen: list[tuple[str, dict[str, str], Any]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        seen.append((first, headers, json.loads(await reader.readexactly(int(headers["content-length"])))))
        writer.write(left.pop(0))
        await writer.drain()
        writer.close()

    async def go() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            await send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")

    asyncio.run(go())
    assert not left
    return seen[-1]


def endpoint(address: str) -> EndpointConfig:
    return EndpointConfig(base_url=address, api_key_env="WIRE_KEY")


def http(status: str, body: bytes, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def post(address: str) -> str:
    async with Wire(endpoint(address)) as wire:
        return await wire.post("/chat/completions", BODY)


def received(reply: bytes) -> str:
    """The text of what a post is answered."""
    texts: list[str] = []

    async def read(address: str) -> None:
        texts.append(await post(address))

    sent_by(read, reply)
    return texts[0]


def raised(reply: bytes) -> openai.APIError:
    """What a post raises that is answered so."""
    caught: list[openai.APIError] = []

    async def refused(address: str) -> None:
        try:
            await post(address)
        except openai.APIError as error:
            caught.append(error)

    sent_by(refused, reply)
    return caught[0]


def test_it_sends_what_openai_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIRE_KEY", "secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    reply = http("200 OK", b"{}")

    async def by_openai(address: str) -> str:
        http_client = openai.DefaultAioHttpClient()
        query = {"api-version": "1"}
        async with openai.AsyncOpenAI(api_key="secret", base_url=address, default_query=query, http_client=http_client) as client:
            return await client.post("/chat/completions", body=BODY, cast_to=str)

    theirs, ours = sent_by(by_openai, reply), sent_by(lambda address: post(f"{address}?api-version=1"), reply)
    assert ours[0] == theirs[0] == "POST /v1/chat/completions?api-version=1 HTTP/1.1" and ours[2] == theirs[2] == BODY
    assert ours[1]["authorization"] == "Bearer secret" and ours[1]["openai-organization"] == "org-1"
    differ = {name for name in {*ours[1], *theirs[1]} if ours[1].get(name) != theirs[1].get(name)}
    assert differ <= {*_OF_OPENAI_ALONE, "host", "api-key"}
    assert ours[1]["api-key"] == "secret", "a gateway with an api-version reads the key there"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, openai.RateLimitError), (503, openai.InternalServerError), (404, openai.APIStatusError), (304, openai.APIStatusError)],
)
def test_a_refusal_is_openais_error_with_the_servers_words(status: int, kind: type[openai.APIStatusError]) -> None:
    body = b'{"error": {"message": "no", "code": "c1"}}'
    if status == 304:  # has no body
        body = b""
    error = raised(http(f"{status} No", body, "Retry-After: 7\r\n"))
    assert isinstance(error, kind) and error.status_code == status and error.response.headers["retry-after"] == "7"
    assert status == 304 or (error.body == {"message": "no", "code": "c1"} and error.code == "c1")


def test_no_answer_is_a_connection_error_with_its_cause() -> None:
    with pytest.raises(openai.APIConnectionError) as caught:
        asyncio.run(post("http://127.0.0.1:9/v1"))
    assert caught.value.__cause__ is not None


def test_a_redirect_that_keeps_the_request_is_followed_and_one_that_does_not_is_refused() -> None:
    moved = http("307 Moved", b"", "Location: /v2/chat/completions\r\n")
    line, headers, body = sent_by(post, moved, moved, http("200 OK", b"{}"))
    assert line == "POST /v2/chat/completions HTTP/1.1" and body == BODY and headers["authorization"] == "Bearer none"
    error = raised(http("302 Found", b"", "Location: https://elsewhere.example/v1/chat/completions\r\n"))
    assert isinstance(error, openai.APIConnectionError) and isinstance(error.__cause__, RedirectedError)


def test_a_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def by_proxy(address: str) -> str:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "other.example")
        monkeypatch.setenv("http_proxy", address.removesuffix("/v1"))
        return await post("http://model.example/v1")

    line, headers, body = sent_by(by_proxy, http("200 OK", b"{}"))
    assert line.startswith("POST http://model.example/v1/chat/completions") and headers["host"] == "model.example"
    assert body == BODY


@pytest.mark.parametrize("charset", ["", "; charset=latin-1", "; charset=nothing"])
def test_text_is_read_by_its_charset_or_as_utf_8(charset: str) -> None:
    content = '"Grüße"'.encode("latin-1" if "latin" in charset else "utf-8")
    reply = http("200 OK", content).replace(b"application/json", f"application/json{charset}".encode())
    assert received(reply) == '"Grüße"'


WORDS = '{"says": "Grüße, 你"}'


@pytest.mark.parametrize(
    "reply",
    [
        http("200 OK", WORDS.encode()).replace(b"application/json", b"text/html; charset=iso-8859-1"),
        http("200 OK", '{"says": "Grüße"}'.encode("latin-1")).replace(b"json", b"json; charset=iso-8859-1"),
        http("200 OK", gzip.compress(WORDS.encode()), "Content-Encoding: gzip\r\n"),
        b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + WORDS.encode(),
    ],
    ids=["wrong charset", "right charset", "gzip", "HTTP/1.0 without a length"],
)
def test_a_body_is_read_as_it_was_meant(reply: bytes) -> None:
    assert "Grüße" in received(reply)
