"""The endpoint client against a real HTTP server: faults are retried, refusals explained, replies kept."""

from pathlib import Path

import pytest

from minilima.config import EndpointConfig
from minilima.errors import MinilimaError
from minilima.llm.cache import CachedModel
from minilima.llm.chat import Reply, Request, Sampling, ask
from minilima.llm.client import EndpointModel
from minilima.llm.keys import missing_key
from tests.server import VALID_KEY, ModelServer


def requests(count: int) -> list[Request]:
    return [Request(messages=ask(f"question {n}"), sampling=Sampling(temperature=0.0, max_tokens=5)) for n in range(count)]


def endpoint(server: ModelServer, **changes: object) -> EndpointConfig:
    settings: dict[str, object] = {"base_url": server.url, "api_key_env": "TEST_KEY", "timeout_seconds": 5.0, "max_retries": 4}
    return EndpointConfig(**{**settings, **changes})  # type: ignore[arg-type]


def ignore(index: int, reply: Reply) -> None:
    """Nobody listens."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", VALID_KEY)


def test_replies_come_in_the_order_of_the_requests(server: ModelServer) -> None:
    server.answer = lambda body: body["messages"][0]["content"].upper()
    replies = EndpointModel("writer-small", endpoint(server)).reply_many(requests(40), ignore)
    assert [reply.text for reply in replies] == [f"QUESTION {n}" for n in range(40)]
    assert replies[0].usage().prompt_tokens == 10


def test_busy_failing_and_broken_answers_are_tried_again(server: ModelServer) -> None:
    server.faults = [429, 500, "drop", 503, 429]
    replies = EndpointModel("writer-small", endpoint(server)).reply_many(requests(6), ignore)
    assert len(replies) == 6 == len(server.requests)


def test_a_wrong_key_is_explained_at_once(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "wrong-secret")
    with pytest.raises(MinilimaError, match=r"refuses the key in \$TEST_KEY") as caught:
        EndpointModel("writer-small", endpoint(server)).reply_many(requests(3), ignore)
    assert "wrong-secret" not in str(caught.value)


def test_an_unknown_model_is_explained_with_those_on_offer(server: ModelServer) -> None:
    with pytest.raises(MinilimaError, match="writer-large, writer-small"):
        EndpointModel("no-such", endpoint(server)).reply_many(requests(1), ignore)


def test_an_endpoint_that_stays_down_is_explained(server: ModelServer) -> None:
    server.faults = [500] * 50
    with pytest.raises(MinilimaError, match="did not answer, after 1 retries"):
        EndpointModel("writer-small", endpoint(server, max_retries=1)).reply_many(requests(1), ignore)


def test_nothing_is_asked_twice_also_after_a_failure(server: ModelServer, tmp_path: Path) -> None:
    server.answer = lambda body: "fine"
    asked = requests(8)
    model = CachedModel(EndpointModel("writer-small", endpoint(server, concurrency=1, max_retries=0)), tmp_path / "c.sqlite")
    model.reply_many(asked[:5])
    server.faults = [500]
    with pytest.raises(MinilimaError):
        model.reply_many(asked)
    again = CachedModel(EndpointModel("writer-small", endpoint(server)), tmp_path / "c.sqlite")
    again.reply_many(asked)
    contents = [body["messages"][0]["content"] for body in server.requests]
    assert sorted(contents) == sorted(request.messages[0].content for request in asked)
    assert again.usage.cached == 8 - again.usage.calls


def test_an_empty_reply_is_not_kept(server: ModelServer, tmp_path: Path) -> None:
    model = CachedModel(EndpointModel("writer-small", endpoint(server)), tmp_path / "c.sqlite")
    server.answer = lambda body: "  "
    model.reply_many(requests(1))
    server.answer = lambda body: "now"
    assert model.reply_many(requests(1))[0].text == "now"


def test_equal_requests_are_told_apart_by_their_sample_number(server: ModelServer, tmp_path: Path) -> None:
    one, two = (Request(messages=ask("q"), sampling=Sampling(temperature=1.0, max_tokens=5), sample=n) for n in (0, 1))
    CachedModel(EndpointModel("writer-small", endpoint(server)), tmp_path / "c.sqlite").reply_many([one, two, one])
    assert len(server.requests) >= 2
    assert one.key("m") != two.key("m") != two.key("other model")


def test_a_file_that_is_no_cache_is_named(tmp_path: Path, server: ModelServer) -> None:
    (tmp_path / "c.sqlite").write_text("this is no database, but long enough to be taken for one" * 20)
    with pytest.raises(MinilimaError, match="cannot be used"):
        CachedModel(EndpointModel("writer-small", endpoint(server)), tmp_path / "c.sqlite")


def test_openai_itself_needs_a_key_and_a_server_of_ones_own_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_key(EndpointConfig())
    assert not missing_key(EndpointConfig(base_url="http://127.0.0.1:1"))
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert not missing_key(EndpointConfig())
