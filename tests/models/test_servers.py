"""The client against servers as people use them: what each refuses, leaves out or calls by another name."""

import base64
import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import openai
import pytest

from minilima.cli.doctor_endpoints import check_endpoint
from minilima.config.schema import BudgetConfig, EndpointConfig
from minilima.errors import MinilimaError
from minilima.models.address import address_of
from minilima.models.budget import Budget, Price, key_problem, shutdown_note
from minilima.models.chat import Message, Reply, Request, Sampling, ask, continue_text
from minilima.models.dialect import Dialect
from minilima.models.endpoint import EndpointModel, connect
from minilima.models.masking import masked
from minilima.models.openai_api import NoCompletionError, parse_completion
from minilima.models.pacing import pause_after
from minilima.models.refusals import tls_fix
from tests import personalities
from tests.server import VALID_KEY, ModelServer

Body = dict[str, Any]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", VALID_KEY)


def requests(count: int, **sampling: Any) -> list[Request]:
    chosen = Sampling(**{"temperature": 0.7, "top_p": 0.9, "max_tokens": 50, **sampling})
    return [Request(messages=ask(f"question {n}"), sampling=chosen) for n in range(count)]


def client(server: ModelServer, price: Price | None = None, **changes: Any) -> EndpointModel:
    settings = EndpointConfig(
        **{"base_url": server.url, "api_key_env": "TEST_KEY", "timeout_seconds": 5.0, "max_retries": 2, **changes}
    )
    return EndpointModel("writer-small", settings, Budget(Path(":memory:"), "test", settings.budget, price))


def ignore(index: int, reply: Reply) -> None:
    """Nobody listens."""


def refused(message: str, **error: Any) -> Body:
    return {"error": {"message": message, **error}}


def openai_reasoning(body: Body) -> tuple[int, Body] | None:
    if body.get("temperature", 1) != 1:
        words = "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported."
        return 400, refused(words, param="temperature", code="unsupported_value", type="invalid_request_error")
    if "top_p" in body:
        words = "Unsupported parameter: 'top_p' is not supported with this model."
        return 400, refused(words, param="top_p", code="unsupported_parameter")
    return None


def anthropic(body: Body) -> tuple[int, Body] | None:
    if "temperature" in body and "top_p" in body:
        return 400, refused("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    return None


def mistral(body: Body) -> tuple[int, Body] | None:
    if "max_completion_tokens" in body:
        detail = [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"], "msg": "Extra inputs are not permitted"}]
        return 422, {"object": "error", "message": {"detail": detail}, "code": None}
    return None


def old_openai(body: Body) -> tuple[int, Body] | None:
    if "max_completion_tokens" in body:
        return 400, refused("Unrecognized request argument supplied: max_completion_tokens", param=None)
    return None


def newest_openai(body: Body) -> tuple[int, Body] | None:
    if "max_tokens" in body:
        words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        return 400, refused(words, param="max_tokens", code="unsupported_parameter")
    return None


@pytest.mark.parametrize(
    ("personality", "sent", "noted"),
    [
        (openai_reasoning, {"max_completion_tokens"}, {"temperature left out": 1, "top_p left out": 1}),
        (anthropic, {"temperature", "max_completion_tokens"}, {"top_p left out": 1}),
        (mistral, {"temperature", "top_p", "max_tokens"}, {"max_tokens instead of max_completion_tokens": 1}),
        (old_openai, {"temperature", "top_p", "max_tokens"}, {"max_tokens instead of max_completion_tokens": 1}),
        (newest_openai, {"temperature", "top_p", "max_completion_tokens"}, {}),
    ],
)
def test_a_refused_parameter_is_left_out_or_exchanged_once_and_noted(
    server: ModelServer, personality: Callable[[Body], tuple[int, Body] | None], sent: set[str], noted: dict[str, int]
) -> None:
    server.refuse = personality
    model = client(server, max_retries=0, concurrency=4)
    replies = model.reply_many(requests(12), ignore)
    assert {reply.finish for reply in replies} == {"stop"}
    chosen = {"temperature", "top_p", "max_tokens", "max_completion_tokens"}
    assert all(set(body) & chosen == sent for body in server.requests) and len(server.requests) == 12
    faults: dict[str, int] = {}
    for reply in replies:
        for name in reply.faults:
            faults[name] = faults.get(name, 0) + 1
    assert faults == noted, "said once, although four requests were refused together"


OLDER = "max_tokens instead of max_completion_tokens"


def detail(name: object, msg: str, **more: Any) -> Body:
    return {"detail": [{"loc": ["body", name], "msg": msg, **more}]}


@pytest.mark.parametrize(
    ("name", "status", "body", "noted"),
    [
        ("top_p", 422, detail("top_p", "champ inconnu"), ["top_p left out"]),
        ("max_completion_tokens", 422, detail("max_completion_tokens", "champ superflu"), [OLDER]),
        ("max_completion_tokens", 400, refused("不支持参数 max_completion_tokens"), [OLDER]),
        ("top_p", 400, {"error": {"code": 400, "message": "top_p: no permitido"}}, ["top_p left out"]),
        ("temperature", 400, refused("temperature must be an integer"), ["temperature left out"]),
        ("temperature", 400, refused("temperature should be 1"), ["temperature left out"]),
        ("stop", 400, refused("array too long. Expected an array with maximum length 4.", param="stop"), ["stop left out"]),
        ("stop", 422, detail("stop", "Input should be a valid string"), ["stop left out"]),
        ("response_format", 400, refused("Le format n'est pas pris en charge", param="response_format"), ["no JSON schema"]),
        ("temperature", 400, refused("temperature must be less than 0.5", param="temperature"), None),
        ("max_completion_tokens", 400, refused("max_completion_tokens must be 1 or more"), None),
        ("top_p", 422, detail("prompt", "Field required", input={"temperature": 0.7, "top_p": 0.9}), None),
        ("top_p", 400, refused("Failed", failed_generation="unsupported temperature, top_p"), None),
    ],
)  # fmt: skip
def test_a_refusal_in_any_language_is_about_the_parameter_unless_it_speaks_of_values(
    name: str, status: int, body: Body, noted: list[str] | None
) -> None:
    whole = {"temperature": 0.7, "top_p": 0.9, "stop": ["a"], "max_completion_tokens": 50, "response_format": {}, "messages": []}
    dialect = Dialect()
    dialect.learn({**whole, name: whole[name]}, status, body)
    assert dialect.words() == (noted or [])


def test_where_both_names_of_the_limit_are_refused_neither_is_sent(server: ModelServer) -> None:
    limits = ("max_completion_tokens", "max_tokens")
    server.refuse = lambda body: next(((400, refused(f"Unsupported parameter: {name}")) for name in limits if name in body), None)
    replies = client(server, concurrency=1, max_retries=0).reply_many(requests(2), ignore)
    assert replies[0].faults == ("max_tokens instead of max_completion_tokens", "no limit of tokens") and not replies[1].faults


def no_system(body: Body) -> tuple[int, Body] | None:
    return (400, refused("System role not supported")) if body["messages"][0]["role"] == "system" else None


def alternating(body: Body) -> tuple[int, Body] | None:
    words = "Conversation roles must alternate user/assistant/user/assistant/..."
    return (500, refused(words)) if body["messages"][0]["role"] == "system" else None


def in_parts(body: Body) -> tuple[int, Body] | None:
    words = "Invalid type for 'messages[0].content': expected an array of objects, but got a string instead."
    return (400, refused(words)) if isinstance(body["messages"][0]["content"], str) else None


def in_valid_lists(body: Body) -> tuple[int, Body] | None:
    error = {"loc": ["body", "messages", 0, "content"], "msg": "Input should be a valid list", "input": "top_p"}
    return (422, {"detail": [error]}) if isinstance(body["messages"][0]["content"], str) else None


@pytest.mark.parametrize(
    ("refuses", "first"),
    [
        (no_system, {"role": "user", "content": "Be brief.\n\nWhy?"}),
        (alternating, {"role": "user", "content": "Be brief.\n\nWhy?"}),
        (in_parts, {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}),
        (in_valid_lists, {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}),
    ],
)
def test_messages_take_the_form_that_a_server_asks_for(
    server: ModelServer, refuses: Callable[[Body], tuple[int, Body] | None], first: Body
) -> None:
    server.refuse = refuses
    messages = (Message(role="system", content="Be brief."), Message(role="user", content="Why?"))
    asked = [replace(request, messages=messages) for request in requests(3)]
    replies = client(server, concurrency=1, max_retries=0).reply_many(asked, ignore)
    assert [reply.finish for reply in replies] == ["stop"] * 3 and server.received == 4
    assert server.requests[-1]["messages"][0] == first


def test_a_value_that_is_too_large_is_for_the_user_to_hear(server: ModelServer) -> None:
    words = "max_completion_tokens is too large: 50. This model supports at most 16 completion tokens."
    server.refuse = lambda body: (400, refused(words, param="max_completion_tokens", code="invalid_value"))
    with pytest.raises(MinilimaError, match="supports at most 16") as caught:
        client(server).reply_many(requests(3), ignore)
    assert "refuses the request (400)" in caught.value.what


def test_a_text_to_continue_whose_limit_is_refused_is_asked_once(server: ModelServer) -> None:
    server.refuse = lambda body: (400, refused("max_tokens is not supported.", param="max_tokens"))
    asked = [Request(messages=continue_text("Once"), sampling=Sampling(temperature=0.7, max_tokens=50))]
    with pytest.raises(MinilimaError, match="not supported"):
        client(server).reply_many(asked, ignore)
    assert server.received == 1


def test_what_is_null_is_not_sent(server: ModelServer) -> None:
    client(server).reply_many(requests(1, temperature=None, top_p=None), ignore)
    (body,) = server.requests
    assert not {"temperature", "top_p"} & set(body)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "json_schema is not supported"),
        (422, "unknown field response_format"),
        (500, ""),
        (404, "no route for guided decoding"),
    ],
)
def test_a_schema_that_is_refused_in_any_way_is_left_out(server: ModelServer, status: int, words: str) -> None:
    server.refuse = lambda body: (status, refused(words)) if "response_format" in body else None
    asked = [replace(request, schema='{"type": "object"}') for request in requests(3)]
    replies = client(server, max_retries=0, concurrency=1).reply_many(asked, ignore)
    assert [reply.finish for reply in replies] == ["stop"] * 3
    assert [reply.faults for reply in replies] == [("no JSON schema",), (), ()]


def completion(message: Body, finish: object = "stop", usage: object = None) -> str:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], "usage": usage})


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("eos_token", "stop"), ("eos", "stop"), ("end_turn", "stop"), ("end", "stop"), (None, "stop"), ("STOP", "stop"),
        ("max_tokens", "length"), ("MAX_TOKENS", "length"), ("model_length", "length"), ("length", "length"),
        ("SAFETY", "content_filter"), ("content-filter", "content_filter"), ("tool_calls", "tool_calls"),
    ],
)  # fmt: skip
def test_the_ends_of_other_servers_have_openais_names(said: object, known: str) -> None:
    assert parse_completion(completion({"content": "Fine."}, said), None).finish == known


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": [{"type": "text", "text": "Two "}, {"type": "text", "text": "parts."}]}, "Two parts.", None),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Yes."}]},
            "Yes.", "Hm.",
        ),
        ({"content": ["Plain ", "parts."]}, "Plain parts.", None),
        ({"content": "Yes.", "reasoning_content": "Hm."}, "Yes.", "Hm."),
        ({"content": {"type": "text", "text": "One part."}}, "One part.", None),
        ({"content": [{"type": "refusal", "refusal": "I cannot."}]}, "I cannot.", None),
    ],
)  # fmt: skip
def test_content_in_parts_is_joined(message: Body, text: str, reasoning: str | None) -> None:
    reply = parse_completion(completion(message), None)
    assert (reply.text, reply.reasoning) == (text, reasoning)


COUNTED = {"prompt_tokens": 1, "completion_tokens": 2}


def streamed(*events: object) -> str:
    return "\n\n".join([*(f"data: {json.dumps(event, ensure_ascii=False)}" for event in events), "data: [DONE]", ""])


def delta(content: object, finish: str | None = None) -> Body:
    return {"choices": [{"delta": {"content": content}, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("content", "text", "tokens"),
    [
        (streamed(delta("a "), delta("b", "stop"), {"choices": [], "usage": COUNTED}), "a b", 2),
        ("\ufeff" + streamed(delta("a"), delta(None, "stop")), "a", 0),
        (streamed(delta("a"), delta("b")), "ab", 0),
        (streamed(delta([{"type": "text", "text": "a"}]), delta([{"type": "text", "text": "b"}], "stop")), "ab", 0),
        (streamed(delta("a\u2028b"), delta("c", "stop")), "a\u2028bc", 0),
        (streamed(delta("a", "stop")).replace("\n", "\r\n"), "a", 0),
        ("event: completion\n" + streamed(delta("a", "stop")), "a", 0),
    ],
)  # fmt: skip
def test_a_stream_of_any_form_is_joined(content: str, text: str, tokens: int) -> None:
    reply = parse_completion(content, None)
    assert (reply.text, reply.completion_tokens, reply.finish) == (text, tokens, "stop")


def test_an_error_within_a_stream_is_quoted() -> None:
    with pytest.raises(NoCompletionError, match="overloaded"):
        parse_completion(streamed(delta("a"), {"error": {"message": "overloaded"}}), None)


@pytest.mark.parametrize(
    ("logprobs", "known"),
    [
        ({"content": [{"token": "m", "top_logprobs": {"m": -0.1, "M": -2}}]}, {"m": -0.1, "M": -2.0}),
        ({"tokens": ["m"], "top_logprobs": {"m": -0.1, "M": -2}}, {"m": -0.1, "M": -2.0}),
        ({"tokens": ["m"], "top_logprobs": [{"m": -0.1}]}, {"m": -0.1}),
        ({"content": [{"top_logprobs": [{"token": "m", "logprob": None}, {"token": "M", "logprob": -1}]}]}, {"M": -1.0}),
        ({"content": [{"top_logprobs": [{"token": "m", "logprob": float("nan")}, {"token": "M", "logprob": -1}]}]}, {"M": -1.0}),
        ({"content": [{"token": "m", "logprob": -0.1, "top_logprobs": None}]}, None),
        ({"content": []}, None), ({"content": [None]}, None), ({"content": "x"}, None), ([], None), (None, None),
    ],
)  # fmt: skip
def test_log_probabilities_of_any_form_are_read_or_none(logprobs: object, known: dict[str, float] | None) -> None:
    choice = {"message": {"content": "m"}, "finish_reason": "stop", "logprobs": logprobs}
    assert parse_completion(json.dumps({"choices": [choice]}), None).logprobs == known


@pytest.mark.parametrize(
    "usage",
    [
        None, {}, {"prompt_tokens": "10", "completion_tokens": "5"}, {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": 10**30}, {"prompt_tokens": None}, "many", {"prompt_tokens": True},
    ],
)  # fmt: skip
def test_usage_that_is_no_number_is_unknown_and_booked_at_its_worst(server: ModelServer, usage: object) -> None:
    reply = parse_completion(completion({"content": "Fine."}, usage=usage), Price(prompt=1.0, completion=1.0))
    assert (reply.prompt_tokens, reply.completion_tokens, reply.usd, reply.faults) == (0, 0, None, ("unknown_usage",))
    server.raw = completion({"content": "Fine."}, usage=usage).encode()
    model = client(server)
    model.reply_many(requests(1), ignore)
    assert model.budget.spent.tokens == 16 + len("question 0") + 50


def test_a_reply_longer_than_asked_for_stops_sending_until_the_books_are_right(server: ModelServer) -> None:
    server.tokens = (10, 400)  # the server writes on without bound
    model = client(server, budget=BudgetConfig(tokens=2_000), concurrency=16)
    with pytest.raises(MinilimaError, match="budget is used up"):
        model.reply_many(requests(60), ignore)
    assert 1_200 < sum(server.billed) <= 2_000
    assert "max_completion_tokens" in server.requests[0] and "max_tokens" in server.requests[1]


def test_under_a_cap_many_are_sent_at_once_after_the_first_has_kept_to_its_length(server: ModelServer) -> None:
    server.latency = 0.02
    client(server, budget=BudgetConfig(tokens=1_000_000), concurrency=16).reply_many(requests(40), ignore)
    assert server.most_in_flight > 4


def test_tokens_that_only_the_total_counts_are_counted() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40}
    reply = parse_completion(completion({"content": "Fine."}, usage=usage), None)
    assert (reply.prompt_tokens, reply.completion_tokens) == (10, 30)


def test_the_page_of_servers_says_what_becomes_of_each() -> None:
    assert personalities.PAGE.read_text(encoding="utf-8") == personalities.page()


def test_a_server_that_ignores_the_limits_name_is_asked_by_the_older_one(server: ModelServer) -> None:
    server.answer = lambda body: "word " * (5 if "max_tokens" in body else 500)
    server.counts = lambda body, text: (10, len(text.split()))
    replies = client(server, concurrency=1).reply_many(requests(3), ignore)
    assert [reply.completion_tokens for reply in replies] == [500, 5, 5]
    assert replies[0].faults == ("longer than asked for", "max_tokens instead of max_completion_tokens")


def test_a_limit_whose_older_name_is_refused_keeps_the_newer_one(server: ModelServer) -> None:
    server.counts, server.refuse = lambda body, text: (10, 500), newest_openai
    replies = client(server, concurrency=1).reply_many(requests(4), ignore)
    assert [reply.finish for reply in replies] == ["stop"] * 4 and server.received == 5, "refused once, and not tried again"
    assert replies[1].faults == ("max_completion_tokens instead of max_tokens", "longer than asked for")


def test_a_refusal_is_kept_as_what_it_is(server: ModelServer, tmp_path: Path) -> None:
    message = {"role": "assistant", "content": None, "refusal": "I can't help with that."}
    server.raw = completion(message, usage={"prompt_tokens": 3, "completion_tokens": 4}).encode()
    endpoint = EndpointConfig(base_url=server.url, api_key_env="TEST_KEY")
    model = connect("generator.model", "writer-small", endpoint, tmp_path / "c.sqlite", "s")
    (reply,) = model.reply_many(requests(1), ignore)
    assert (reply.text, reply.finish) == ("I can't help with that.", "refusal")
    assert server.received == 1, "it is not asked again to the last try"


@pytest.mark.parametrize("position", [0, 3, 5])
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "The response was filtered due to the prompt triggering the content management policy."),
        (413, "prompt is too long"),
        (403, "Input was flagged by moderation"),
        (422, "input too long"),
    ],
)
def test_a_prompt_that_is_refused_is_one_missing_reply_wherever_it_stands(
    server: ModelServer, position: int, status: int, words: str
) -> None:
    server.refuse = lambda body: (status, refused(words)) if f"question {position}" in str(body["messages"]) else None
    replies = client(server, concurrency=1).reply_many(requests(6), ignore)
    assert [reply.finish for reply in replies] == ["failed" if n == position else "stop" for n in range(6)]
    assert replies[position].faults == ("refused", "given_up") and server.received == 6, "it is not asked for again"


def test_where_every_prompt_is_refused_the_run_ends_soon_with_the_servers_words(server: ModelServer) -> None:
    server.refuse = lambda body: (400, refused("No credits for this model family."))
    with pytest.raises(MinilimaError, match="No credits for this model family"):
        client(server, concurrency=1).reply_many(requests(60), ignore)
    assert server.received == 8
    with pytest.raises(MinilimaError, match="No credits for this model family"):
        client(server, concurrency=1).reply_many(requests(2), ignore)


@pytest.mark.parametrize(
    ("status", "error", "what", "words"),
    [
        (401, "You must be a member of an organization to use the API.", "refuses the key", "member of an organization"),
        (402, "Insufficient credits.", "asks for payment", "Insufficient credits"),
        (403, "Country, region, or territory not supported", "does not permit this request", "Country, region"),
        (404, "No endpoints found matching your data policy.", "answers 404", "data policy"),
        (405, "Method Not Allowed", "refuses the request", "Method Not Allowed"),
    ],
)
def test_what_the_whole_run_would_meet_ends_it_at_once_in_the_servers_words(
    server: ModelServer, status: int, error: str, what: str, words: str
) -> None:
    server.refuse = lambda body: (status, refused(error))
    with pytest.raises(MinilimaError, match=re.escape(words)) as caught:
        client(server, concurrency=1).reply_many(requests(5), ignore)
    assert (what in caught.value.what and f"({status})" in caught.value.what) or status == 404
    assert server.received == 1


def test_no_money_is_not_waited_for(server: ModelServer) -> None:
    words = "You exceeded your current quota, please check your plan and billing details."
    server.refuse = lambda body: (429, refused(words, code="insufficient_quota"))
    with pytest.raises(MinilimaError, match="exceeded your current quota"):
        client(server, concurrency=1).reply_many(requests(3), ignore)
    assert server.received == 1


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"error": {"message": "Provider returned error", "code": 502}}', "Provider returned error"),
        (b"<!doctype html><html><head><title>Sign in</title></head></html>", r"an HTML page \(Sign in\)"),
        (b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', "a stream of events"),
        (b'{"choices": [', "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"", "an empty reply"),
        (b'{"object": "list"}', "no chat completion"),
    ],
)  # fmt: skip
def test_what_is_no_completion_is_tried_again_and_named(server: ModelServer, raw: bytes, words: str) -> None:
    with pytest.raises(NoCompletionError, match=words):
        parse_completion(raw.decode(), None)
    server.raw_once = [raw]
    replies = client(server, concurrency=1).reply_many(requests(2), ignore)
    assert [reply.finish for reply in replies] == ["stop", "stop"] and replies[0].faults == ("malformed",)
    server.raw_once = [raw] * 9
    with pytest.raises(MinilimaError, match=words):
        client(server, concurrency=1, max_retries=0).reply_many(requests(1), ignore)


@pytest.mark.parametrize(
    "broken",
    [
        b"HTP/9 nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 9_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nnot a chunk\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
    ],
)
def test_a_broken_http_reply_is_a_fault_like_others(server: ModelServer, broken: bytes) -> None:
    server.broken = [broken, broken]
    replies = client(server, concurrency=2, max_retries=4).reply_many(requests(6), ignore)
    assert {reply.finish for reply in replies} == {"stop"} and sum(len(reply.faults) for reply in replies) == 2


def test_a_key_that_a_server_repeats_is_masked(server: ModelServer) -> None:
    server.refuse = lambda body: (401, refused(f"Incorrect API key provided: {VALID_KEY}."))
    with pytest.raises(MinilimaError, match=r"provided: \$TEST_KEY") as caught:
        client(server).reply_many(requests(1), ignore)
    assert VALID_KEY not in str(caught.value)


KEY = "sk-proj/Ab+12-cdEF_9z"
SPELT = (
    KEY, f"Bearer {KEY}", quote(KEY), quote(KEY, safe=""), quote_plus(KEY), html.escape(KEY), KEY.replace("/", r"\/"),
    "".join(rf"\u{ord(letter):04x}" for letter in KEY), "".join(f"&#{ord(letter)};" for letter in KEY), f"{KEY[:7]}\n  {KEY[7:]}",
    *(base64.b64encode(f"{before}{KEY}{after}".encode()).decode() for before in ("", ":", "me:", "user") for after in ("", "!!")),
    base64.urlsafe_b64encode(KEY.encode()).decode(), f"{KEY[:12]}…", f"{KEY[:12]}...",
)  # fmt: skip


@pytest.mark.parametrize("spelt", SPELT)
def test_a_key_is_masked_however_it_is_written(spelt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    for said in (f"wrong key {spelt}", f'{{"key": "{spelt}", "x": 1}}'):
        shown = masked(said, "TEST_KEY")
        assert "$TEST_KEY" in shown
        left = set(re.findall(r"[\w+/%&;#\\-]{8,}", shown.replace("$TEST_KEY", " ")))
        assert not any(part in spelt for part in left), shown


@pytest.mark.parametrize("spelt", [spelt for spelt in SPELT if spelt != f"Bearer {KEY}"])
def test_the_password_of_a_proxy_is_masked_as_a_key_is(spelt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:{quote(KEY, safe='')}@proxy.example.com:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://[no address")
    shown = masked(f"cannot reach me:{spelt}", "TEST_KEY")
    assert "$http_proxy" in shown and KEY[:8] not in shown


def test_words_that_are_no_key_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "The model is not there: none of test, sk-proj and 12 others."
    for key in (KEY, "", "no", "absent-key"):
        monkeypatch.setenv("TEST_KEY", key)
        assert masked(said, "TEST_KEY") == said


@pytest.mark.parametrize("status", [400, 503])
def test_a_key_that_is_cut_where_words_are_cut_is_masked(
    server: ModelServer, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    for length in range(380, 400, 3):
        server.refuse = lambda body, length=length: (status, refused("x" * length + KEY))  # type: ignore[misc]
        with pytest.raises(MinilimaError) as caught:
            client(server, max_retries=0).reply_many(requests(1), ignore)
        assert KEY[:4] not in str(caught.value)


def test_a_stream_with_other_separators_of_lines_in_it_is_read_whole() -> None:
    events = [{"choices": [{"delta": {"content": text}}]} for text in ("one\u2028", "two\x85\u2029three")]
    lines = [json.dumps(event, ensure_ascii=False) for event in (*events, {"choices": [{"delta": {}, "finish_reason": "stop"}]})]
    assert parse_completion("".join(f"data: {line}\n\n" for line in lines), None).text == "one\u2028two\x85\u2029three"


@pytest.mark.parametrize(
    ("given", "base", "query"),
    [
        ("http://h:1/v1/chat/completions", "http://h:1/v1", {}),
        ("http://h:1/v1/", "http://h:1/v1", {}),
        (
            "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "https://x.openai.azure.com/openai/deployments/d", {"api-version": "2024-10-21"},
        ),
    ],
)  # fmt: skip
def test_an_address_that_was_copied_whole_is_understood(given: str, base: str, query: dict[str, str]) -> None:
    address = address_of(EndpointConfig(base_url=given, api_key_env="TEST_KEY"))
    assert (address.base_url, dict(address.query)) == (base, query)
    assert dict(address.headers) == ({"api-key": VALID_KEY} if "azure" in given else {})


def test_a_query_in_the_address_goes_with_each_request(server: ModelServer) -> None:
    client(server, base_url=f"{server.url}/chat/completions?api-version=2024-10-21").reply_many(requests(1), ignore)
    assert server.paths == ["/v1/chat/completions?api-version=2024-10-21"]


@pytest.mark.parametrize("key", ["“sk-1234”", "sk-1234\n", " sk-1234", "sk-12\u200b34", '"sk-1234"', "sk 1234"])
def test_a_key_with_a_quote_or_a_line_break_is_found_before_it_is_sent(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = EndpointConfig(base_url="http://127.0.0.1:1/v1", api_key_env="TEST_KEY")
    assert key_problem(endpoint) is None
    monkeypatch.setenv("TEST_KEY", key)
    assert key_problem(endpoint) and key.strip() not in str(key_problem(endpoint))
    assert check_endpoint("judge", endpoint, "m", [], None).level == "fail"


def test_doctor_names_a_socks_proxy_and_an_organisation(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = EndpointConfig(base_url="http://127.0.0.1:1/v1", api_key_env="TEST_KEY")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    assert "OPENAI_ORG_ID" in check_endpoint("judge", endpoint, "m", [], "HTTP status 401").says
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert "SOCKS" in check_endpoint("judge", endpoint, "m", ["m"], None).says


@pytest.mark.parametrize(
    ("status", "headers", "body", "seconds"),
    [
        (429, {"retry-after-ms": "250"}, "", 0.25),
        (429, {"retry-after": "7"}, "", 7.0),
        (429, {"retry-after": "7s"}, "", 7.0),
        (429, {}, '{"error": {"details": [{"retryDelay": "34s"}]}}', 34.0),
        (429, {}, "Rate limit reached. Please try again in 1m7.5s.", 67.5),
        (503, {}, "Overloaded, retry after 120ms.", 0.12),
    ],
)
def test_a_pause_that_a_server_asks_for_in_a_header_or_in_words_is_kept(
    status: int, headers: dict[str, str], body: str, seconds: float
) -> None:
    response: Any = httpx.Response(status, headers=headers, text=body, request=httpx.Request("POST", "http://h/v1"))
    error = openai.APIStatusError("refused", response=response, body=None)
    assert pause_after(error, 0) == seconds


@pytest.mark.parametrize(
    ("status", "words", "what"),
    [
        (400, "Your credit balance is too low to access the API.", "asks for payment (400)"),
        (403, "Your account balance is insufficient: insufficient balance", "asks for payment (403)"),
        (400, "API key not valid. Please pass a valid API key.", "refuses the key in $TEST_KEY (400)"),
        (400, "Incorrect API key provided: xai-1234", "refuses the key in $TEST_KEY (400)"),
        (400, "Invalid model: writer-small", "answers 400"),
        (422, "Model Not Exist", "answers 422"),
    ],
)
def test_a_400_that_means_key_money_or_model_ends_the_run_at_once_as_what_it_is(
    server: ModelServer, status: int, words: str, what: str
) -> None:
    server.refuse = lambda body: (status, refused(words))
    with pytest.raises(MinilimaError) as caught:
        client(server, concurrency=1).reply_many(requests(5), ignore)
    assert what in caught.value.what and server.received == 1


@pytest.mark.parametrize("status", [408, 409, 423, 424, 425, 449, 498, 499, 520, 524, 529])
def test_a_status_that_passes_is_tried_again(server: ModelServer, status: int) -> None:
    refusals = iter([(status, refused("capacity"))])
    server.refuse = lambda body: next(refusals, None)
    (reply,) = client(server, concurrency=1).reply_many(requests(1), ignore)
    assert reply.finish == "stop" and server.received == 2


def test_a_quota_that_is_renewed_soon_is_waited_for(server: ModelServer) -> None:
    words = "You exceeded your current quota. Please retry in 0.2s."
    refusals = iter([(429, refused(words))])
    server.refuse = lambda body: next(refusals, None)
    (reply,) = client(server, concurrency=1).reply_many(requests(1), ignore)
    assert reply.finish == "stop" and server.received == 2


@pytest.mark.parametrize("finish", ["error", "network_error", "abort", "insufficient_system_resource"])
def test_a_reply_that_the_server_broke_off_is_asked_for_again(server: ModelServer, finish: str) -> None:
    server.raw_once = [completion({"content": "half of an"}, finish).encode()]
    (reply,) = client(server, concurrency=1).reply_many(requests(1), ignore)
    assert (reply.finish, reply.text, reply.faults) == ("stop", "Output (a)", ("broken_off",))


def sent_instead(status: int, headers: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n".encode() + body


def test_an_address_that_sends_requests_elsewhere_stops_at_once_and_is_named(server: ModelServer) -> None:
    server.broken = [sent_instead(301, "Location: /other/v1/chat/completions\r\n")]
    with pytest.raises(MinilimaError) as stopped:
        client(server).reply_many(requests(1), ignore)
    assert "sends requests elsewhere (301)" in stopped.value.what
    assert stopped.value.fix.endswith(f"base_url={server.url.removesuffix('/v1')}/other/v1") and server.received == 1
    server.broken = [sent_instead(308, "Location: /v1/chat/completions\r\n")]
    (reply,) = client(server).reply_many(requests(1), ignore)
    assert reply.text == "Output (a)", "308 keeps what is asked"


def test_a_page_is_quoted_without_its_tags_and_a_byte_order_mark_is_no_matter(server: ModelServer) -> None:
    page = b"<html><head><title>413 Request Entity Too Large</title><style>a{}</style></head><body><hr>nginx</body></html>"
    server.broken = [sent_instead(413, "Content-Type: text/html\r\n", page)]
    with pytest.raises(MinilimaError, match=r"It says: 413 Request Entity Too Large nginx\."):
        client(server).reply_many(requests(1), ignore)
    whole = json.dumps({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]})
    assert parse_completion(f"\ufeff{whole}", None).text == "fine"


def test_errors_of_encrypted_connections_say_what_to_do() -> None:
    for words, fix in (("CERTIFICATE_VERIFY_FAILED] self-signed", "SSL_CERT_FILE"), ("[SSL: WRONG_VERSION_NUMBER]", "http://")):
        finding = check_endpoint("judge", EndpointConfig(base_url="https://h/v1", api_key_env="TEST_KEY"), "m", [], words)
        assert fix in finding.fix and words in finding.says
        assert fix in (tls_fix(words) or "")


def test_a_gateway_with_an_api_version_gets_azures_header() -> None:
    address = address_of(
        EndpointConfig(base_url="https://gateway.example/openai/v1?api-version=2025-01-01", api_key_env="TEST_KEY")
    )
    assert address.headers == {"api-key": VALID_KEY} and address.query == {"api-version": "2025-01-01"}
    assert not address_of(EndpointConfig(base_url="https://gateway.example/v1", api_key_env="TEST_KEY")).headers


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("gpt-5-mini", "on 2026-12-11; it names gpt-6.1-terra instead."),
        ("gpt-4o-mini-2024-07-18", "on 2027-01-14; it names gpt-6-luna instead."),
        ("gpt-6-luna", None),
        ("no-such", None),
    ],
)
def test_the_announced_end_of_a_model_is_known(monkeypatch: pytest.MonkeyPatch, model: str, said: str | None) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    note = shutdown_note(model, EndpointConfig())
    assert (note or "").endswith(said) if said else note is None
    assert shutdown_note(model, EndpointConfig(base_url="http://localhost/v1")) is None, "another host's model of that name"


def test_a_list_of_ten_thousand_models_is_shown_by_its_nearest(server: ModelServer) -> None:
    server.models = ("Vendor/Writer-Small", *(f"vendor/model-{number}" for number in range(10_000)))
    with pytest.raises(MinilimaError, match="It offers: Vendor/Writer-Small, ") as caught:
        client(server).reply_many(requests(1), ignore)
    assert "9,989 others" in caught.value.why and len(caught.value.why) < 500
    finding = check_endpoint("generator", EndpointConfig(base_url=server.url), "writer-small", server.models, None)
    assert "Vendor/Writer-Small" in finding.fix and len(finding.fix) < 500


def test_a_call_of_a_tool_is_no_answer_and_named_so(server: ModelServer) -> None:
    server.raw_once = [completion({"content": None, "tool_calls": [{"function": {"arguments": "x"}}]}, "tool_calls").encode()]
    (reply,) = client(server).reply_many(requests(1), ignore)
    assert (reply.finish, reply.faults) == ("stop", ("tool_call",))
