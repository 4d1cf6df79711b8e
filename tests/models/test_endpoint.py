"""The endpoint client against a real HTTP server: faults are retried, refusals explained, replies kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from minilima.config.schema import BudgetConfig, EndpointConfig
from minilima.errors import MinilimaError
from minilima.models.budget import Budget, missing_key, price_of
from minilima.models.cache import CachedModel
from minilima.models.chat import Reply, Request, Sampling, ask, continue_text
from minilima.models.endpoint import EndpointModel, connect
from minilima.models.openai_api import parse_completion
from minilima.models.pacing import Throttle
from tests.server import VALID_KEY, ModelServer


def requests(count: int) -> list[Request]:
    return [Request(messages=ask(f"question {n}"), sampling=Sampling(temperature=0.0, max_tokens=5)) for n in range(count)]


def endpoint(server: ModelServer, **changes: object) -> EndpointConfig:
    settings: dict[str, object] = {"base_url": server.url, "api_key_env": "TEST_KEY", "timeout_seconds": 5.0, "max_retries": 4}
    return EndpointConfig(**{**settings, **changes})  # type: ignore[arg-type]


def plain(server: ModelServer, **changes: object) -> EndpointModel:
    """The client without reply cache and without caps."""
    settings = endpoint(server, **changes)
    return EndpointModel("writer-small", settings, Budget(Path(":memory:"), "test", settings.budget, None))


def cached(server: ModelServer, folder: Path, **changes: object) -> CachedModel:
    return connect("generator.model", "writer-small", endpoint(server, **changes), folder / "c.sqlite", "pool-1")


def ignore(index: int, reply: Reply) -> None:
    """Nobody listens."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", VALID_KEY)


def test_replies_come_in_the_order_of_the_requests(server: ModelServer) -> None:
    server.answer = lambda body: body["messages"][0]["content"].upper()
    replies = plain(server).reply_many(requests(40), ignore)
    assert [reply.text for reply in replies] == [f"QUESTION {n}" for n in range(40)]
    assert replies[0].usage().prompt_tokens == 10


def test_busy_failing_and_broken_answers_are_tried_again(server: ModelServer) -> None:
    server.faults = [429, 500, "drop", 503, 429]
    replies = plain(server).reply_many(requests(6), ignore)
    assert len(replies) == 6 == len(server.requests)


def test_a_wrong_key_is_explained_at_once(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "wrong-secret")
    with pytest.raises(MinilimaError, match=r"refuses the key in \$TEST_KEY") as caught:
        plain(server).reply_many(requests(3), ignore)
    assert "wrong-secret" not in str(caught.value)


def test_an_unknown_model_is_explained_with_those_on_offer(server: ModelServer, tmp_path: Path) -> None:
    with pytest.raises(MinilimaError, match="writer-large, writer-small"):
        connect("generator.model", "no-such", endpoint(server), tmp_path / "c.sqlite", "s").reply_many(requests(1))


def test_an_endpoint_that_stays_down_is_explained(server: ModelServer) -> None:
    server.faults = [500] * 50
    with pytest.raises(MinilimaError, match="still fails \\(500\\), after 1 retry"):
        plain(server, max_retries=1).reply_many(requests(1), ignore)


def test_nothing_is_asked_twice_also_after_a_failure(server: ModelServer, tmp_path: Path) -> None:
    server.answer = lambda body: "fine"
    asked = requests(8)
    model = cached(server, tmp_path, concurrency=1, max_retries=0)
    model.reply_many(asked[:5])
    server.faults = [500] * 9
    with pytest.raises(MinilimaError):
        model.reply_many(asked)
    again = cached(server, tmp_path)
    again.reply_many(asked)
    contents = [body["messages"][0]["content"] for body in server.requests]
    assert sorted(contents) == sorted(request.messages[0].content for request in asked)
    assert again.usage.cached == 8 - again.usage.calls


def test_half_a_character_in_a_reply_is_replaced_and_kept(server: ModelServer, tmp_path: Path) -> None:
    server.answer = lambda body: "a \ud83d half, a whole \U0001f600"
    for _ in ("asked", "from the cache"):
        [reply] = cached(server, tmp_path).reply_many(requests(1))
        assert reply.text == "a \ufffd half, a whole \U0001f600"
    assert len(server.requests) == 1


def test_an_empty_reply_is_not_kept(server: ModelServer, tmp_path: Path) -> None:
    model = cached(server, tmp_path)
    server.answer = lambda body: "  "
    model.reply_many(requests(1))
    server.answer = lambda body: "now"
    assert model.reply_many(requests(1))[0].text == "now"


def test_equal_requests_are_told_apart_by_their_sample_number(server: ModelServer, tmp_path: Path) -> None:
    one, two = (Request(messages=ask("q"), sampling=Sampling(temperature=1.0, max_tokens=5), sample=n) for n in (0, 1))
    cached(server, tmp_path).reply_many([one, two, one])
    assert len(server.requests) >= 2
    assert one.key("m") != two.key("m") != two.key("other model")


def test_a_file_that_is_no_cache_is_named(tmp_path: Path, server: ModelServer) -> None:
    (tmp_path / "c.sqlite").write_text("this is no database, but long enough to be taken for one" * 20)
    with pytest.raises(MinilimaError, match="cannot be used"):
        cached(server, tmp_path)


def test_openai_itself_needs_a_key_and_a_server_of_ones_own_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_key(EndpointConfig())
    assert not missing_key(EndpointConfig(base_url="http://127.0.0.1:1"))
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert not missing_key(EndpointConfig())


def test_every_kind_of_fault_is_survived_and_counted(server: ModelServer, tmp_path: Path) -> None:
    server.fault_share, server.hang_seconds, server.answer = 0.3, 6.0, lambda body: body["messages"][0]["content"].upper()
    # On a loaded machine an answer may take a second.
    model = cached(server, tmp_path, concurrency=64, timeout_seconds=3.0, max_retries=8)
    asked = requests(400)
    replies = model.reply_many(asked)
    cut = {place for place, reply in enumerate(replies) if reply.finish == "length"}
    assert all(reply.text == f"QUESTION {place}" for place, reply in enumerate(replies) if place not in cut)
    assert len(cut) == server.injected["truncated"], "a cut reply is passed on, marked as such"
    told = {
        "busy": ("429", "429-after"), "server_error": ("500",), "connection": ("drop",), "timeout": ("hang",),
        "empty": ("empty",), "filtered": ("filtered",), "malformed": ("malformed",),
    }  # fmt: skip
    assert model.usage.faults == {fault: sum(server.injected[kind] for kind in kinds) for fault, kinds in told.items()}
    again = cached(server, tmp_path)
    assert [reply.text for reply in again.reply_many(asked)] == [reply.text for reply in replies]
    assert again.usage.calls == 0, "all of them were kept"


@pytest.mark.parametrize("header", ["7200", "Fri, 31 Dec 2100 23:59:59 GMT", "inf", "1e30"])
def test_a_pause_longer_than_the_setting_stops_the_run_and_says_until_when(server: ModelServer, header: str) -> None:
    server.faults, server.retry_after = ["429-after"], header
    with pytest.raises(MinilimaError, match=r"asks to wait [\d,]+ seconds, until \d{4}-.*longest_wait_seconds=600"):
        plain(server).reply_many(requests(1), ignore)
    assert server.received == 1


@pytest.mark.parametrize("header", ["0", "-5", "nan", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_pause_that_is_over_or_no_pause_is_no_reason_to_stop(server: ModelServer, header: str) -> None:
    server.faults, server.retry_after = ["429-after"], header
    assert plain(server).reply_many(requests(1), ignore)[0].finish == "stop"


@pytest.mark.parametrize("tokens", [-7, 10**30, float("inf")])
def test_a_usage_that_is_no_amount_counts_as_not_known(server: ModelServer, tmp_path: Path, tokens: float) -> None:
    server.tokens = (tokens, tokens)  # type: ignore[assignment]
    model = cached(server, tmp_path, budget=BudgetConfig(tokens=10_000))
    assert model.reply_many(requests(1))[0].prompt_tokens == 0
    assert model.model.budget.spent.tokens > 5, "the worst case is booked"  # type: ignore[attr-defined]


def test_one_request_that_always_fails_is_marked_and_counted(server: ModelServer) -> None:
    server.faults = ["drop"]
    model = plain(server, concurrency=1, max_retries=0)
    server.faults = []
    model.reply_many(requests(1), ignore)
    server.faults = [500]
    replies = model.reply_many(requests(3), ignore)
    assert [reply.finish for reply in replies] == ["failed", "stop", "stop"]
    assert replies[0].usage().faults == {"server_error": 1, "given_up": 1}


def test_a_reply_that_cannot_be_used_is_asked_for_again_and_never_twice(server: ModelServer, tmp_path: Path) -> None:
    server.answer = lambda body: "bad" if len(server.requests) <= 3 else "good"
    first = cached(server, tmp_path).reply_many(requests(2), usable=lambda reply: reply.text == "good")
    assert [reply.text for reply in first] == ["good", "good"] and len(server.requests) == 5
    again = cached(server, tmp_path)
    assert again.reply_many(requests(2), usable=lambda reply: reply.text == "good") == first
    assert again.usage.calls == 0


@pytest.mark.parametrize(("cap", "value"), [("requests", 40), ("tokens", 2000), ("usd", 0.002)])
def test_a_cap_is_never_passed(server: ModelServer, tmp_path: Path, cap: str, value: float) -> None:
    server.fault_share, server.hang_seconds, server.tokens = 0.3, 2.0, (20, 5)
    caps = {cap: value, "usd_per_million_prompt_tokens": 40.0, "usd_per_million_completion_tokens": 80.0}
    budget = BudgetConfig(**caps)  # type: ignore[arg-type]
    for _ in range(2):
        model = cached(server, tmp_path, concurrency=64, timeout_seconds=1.0, max_retries=8, budget=budget)
        with pytest.raises(MinilimaError, match="budget is used up"):
            model.reply_many(requests(400))
    billed = {"requests": server.received, "tokens": sum(server.billed), "usd": server.billed[0] * 4e-5 + server.billed[1] * 8e-5}
    assert 0.3 * value < billed[cap] <= value


def test_what_was_answered_before_the_budget_ended_is_kept(server: ModelServer, tmp_path: Path) -> None:
    with pytest.raises(MinilimaError, match="budget is used up"):
        cached(server, tmp_path, concurrency=8, budget=BudgetConfig(requests=10)).reply_many(requests(25))
    cached(server, tmp_path, budget=BudgetConfig(requests=25)).reply_many(requests(25))
    assert len(server.requests) == 25


def test_a_cap_in_dollars_needs_a_price(server: ModelServer, tmp_path: Path) -> None:
    with pytest.raises(MinilimaError, match="price of this model is not known"):
        cached(server, tmp_path, budget=BudgetConfig(usd=1.0))


def test_prices_are_known_for_openai_only_and_never_guessed() -> None:
    price = price_of("gpt-4o-mini-2024-07-18", EndpointConfig())
    assert price is not None and price.as_of and price.usd(1_000_000, 1_000_000) == pytest.approx(0.75)
    assert price_of("gpt-4o-mini", EndpointConfig(base_url="http://127.0.0.1:1")) is None
    assert price_of("gpt-4o-mega", EndpointConfig()) is None


def test_fewer_requests_are_in_flight_while_the_endpoint_is_busy() -> None:
    throttle = Throttle(64)
    throttle.busy(10.0)
    throttle.busy(10.1)
    assert throttle.limit == 32, "requests refused together count once"
    throttle.busy(11.5)
    assert throttle.limit == 16
    for _ in range(5000):
        throttle.answered()
    assert throttle.limit == 64


def test_an_endpoint_without_json_schemas_is_asked_without(server: ModelServer) -> None:
    server.refuses_schema = True
    schema = '{"type": "object", "properties": {}, "additionalProperties": false}'
    asked = [replace(request, schema=schema) for request in requests(3)]
    assert [reply.finish for reply in plain(server, concurrency=1).reply_many(asked, ignore)] == ["stop"] * 3
    server.refuses_schema = False
    plain(server).reply_many(asked[:1], ignore)
    assert server.requests[-1]["response_format"]["json_schema"]["strict"] is True


def test_a_batch_is_sent_collected_and_its_failures_sent_again(server: ModelServer, tmp_path: Path) -> None:
    server.answer = lambda body: body["messages"][0]["content"].upper()
    model = cached(server, tmp_path, batch=True, poll_seconds=0.01)
    replies = model.reply_many(requests(7))
    assert [reply.text for reply in replies] == [f"QUESTION {n}" for n in range(7)]
    assert len(server.batches) == 2 and model.usage.faults == {"server_error": 2}
    assert server.received == 0, "nothing went the dear way"
    again = cached(server, tmp_path, batch=True)
    assert again.reply_many(requests(7)) == [replace(reply, faults=()) for reply in replies]


def test_a_batch_on_its_way_is_collected_by_another_process(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.batch_polls = 10_000

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as waits, pytest.raises(KeyboardInterrupt):
        waits.setattr("minilima.models.batch.time.sleep", interrupted)
        cached(server, tmp_path, batch=True, poll_seconds=60.0).reply_many(requests(2))
    server.batches[0] = (server.batches[0][0], 0)
    later = cached(server, tmp_path, batch=True, poll_seconds=0.01)
    assert [reply.finish for reply in later.reply_many(requests(2))] == ["stop", "stop"]
    assert len(server.batches) == 1, "it was not sent again"


def test_a_batch_that_ended_is_not_paid_again_where_its_replies_could_not_be_kept(server: ModelServer, tmp_path: Path) -> None:
    server.answer = lambda body: body["messages"][0]["content"].upper()

    def dies(index: int, reply: Reply) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(server, tmp_path, batch=True, poll_seconds=0.01).reply_many(requests(2), dies)
    later = cached(server, tmp_path, batch=True, poll_seconds=0.01)
    assert [reply.text for reply in later.reply_many(requests(2))] == ["QUESTION 0", "QUESTION 1"]
    assert len(server.batches) == 1


def test_texts_to_be_continued_go_in_batches_too(server: ModelServer, tmp_path: Path) -> None:
    asked = Request(messages=continue_text("Once upon"), sampling=Sampling(temperature=0.0, max_tokens=5))
    assert cached(server, tmp_path, batch=True, poll_seconds=0.01).reply_many([asked])[0].text == "Output (a)"
    (sent,) = (json.loads(file) for name, file in server.files.items() if name.startswith("file"))
    assert sent["url"] == "/v1/completions"
    assert server.batch_addresses == ["/v1/completions"]


def test_a_batch_that_the_budget_does_not_cover_is_not_sent(server: ModelServer, tmp_path: Path) -> None:
    with pytest.raises(MinilimaError, match="budget is used up"):
        cached(server, tmp_path, batch=True, budget=BudgetConfig(requests=3)).reply_many(requests(4))
    assert server.batches == []
    cached(server, tmp_path, batch=True, poll_seconds=0.01, budget=BudgetConfig(requests=3)).reply_many(requests(2))


def test_batches_cost_half() -> None:
    one, half = price_of("gpt-4o", EndpointConfig()), price_of("gpt-4o", EndpointConfig(batch=True))
    assert one is not None and half is not None and half.prompt == one.prompt / 2


def test_reasoning_is_kept_apart_in_the_cache_and_is_no_part_of_the_text(server: ModelServer, tmp_path: Path) -> None:
    server.answer = lambda body: "<think>\nTwo and two.\n</think>\n\nFour."
    model = cached(server, tmp_path)
    (first,) = model.reply_many(requests(1), ignore)
    assert (first.text, first.reasoning, first.finish) == ("Four.", "Two and two.", "stop")
    assert cached(server, tmp_path).reply_many(requests(1), ignore) == [first]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("message", "finish", "expected"),
    [
        ({"content": "Four.", "reasoning_content": "Two and two."}, "stop", ("Four.", "Two and two.", "stop")),
        ({"content": "Four.", "reasoning": "Two and two."}, "stop", ("Four.", "Two and two.", "stop")),
        ({"content": "Two and two.</think>Four."}, "stop", ("Four.", "Two and two.", "stop")),
        ({"content": "<think>Two and"}, "length", ("", "Two and", "length")),
        ({"content": "<think>Two and"}, "stop", ("", "Two and", "length")),
        ({"content": "Blocks begin with <think>."}, "stop", ("Blocks begin with <think>.", None, "stop")),
        ({"content": None, "reasoning_content": "Two and"}, "length", ("", "Two and", "length")),
    ],
)
def test_every_form_of_reasoning_is_taken_apart(
    message: dict[str, str], finish: str, expected: tuple[str, str | None, str]
) -> None:
    body = json.dumps({"choices": [{"message": message, "finish_reason": finish}]})
    reply = parse_completion(body, None)
    assert (reply.text, reply.reasoning, reply.finish) == expected


def test_kept_reasoning_is_text_however_a_server_gives_it() -> None:
    request = replace(requests(1)[0], thinking="keep")
    for message in ({"content": "Four.", "reasoning_content": "Two."}, {"content": "<think>\nTwo.\n</think>\n\nFour."}):
        reply = parse_completion(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}), None, request)
        assert (reply.text, reply.reasoning) == ("<think>\nTwo.\n</think>\n\nFour.", None)
