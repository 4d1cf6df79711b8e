"""The Batch API when something goes wrong: no batch is lost or paid twice, and none holds back money for nothing."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from minilima.config.schema import BudgetConfig, EndpointConfig
from minilima.errors import MinilimaError
from minilima.models.budget import Budget
from minilima.models.cache import CachedModel
from minilima.models.chat import Request, Sampling, ask
from minilima.models.endpoint import connect
from tests.personalities import refuses
from tests.server import VALID_KEY, ModelServer


def requests(count: int) -> list[Request]:
    return [Request(messages=ask(f"question {n}"), sampling=Sampling(temperature=0.0, max_tokens=5)) for n in range(count)]


def model(server: ModelServer, folder: Path, **changes: object) -> CachedModel:
    settings = {"base_url": server.url, "api_key_env": "TEST_KEY", "batch": True, "poll_seconds": 0.01, "max_retries": 4}
    endpoint = EndpointConfig(**{**settings, **changes})  # type: ignore[arg-type]
    return connect("generator.model", "writer-small", endpoint, folder / "c.sqlite", "pool-1")


def spent(folder: Path) -> Budget:
    return Budget(folder / "c.sqlite", "pool-1", BudgetConfig(), None)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", VALID_KEY)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\r"])
def test_a_reply_with_any_separator_of_lines_is_read_whole(server: ModelServer, tmp_path: Path, mark: str) -> None:
    server.answer = lambda body: f"one{mark}two"
    replies = model(server, tmp_path).reply_many(requests(2))
    assert [reply.text for reply in replies] == [f"one{mark}two"] * 2
    assert len(server.batches) == 1


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"[]", b"null", b'{"id": 7, "status": ["x"], "data": 5}', b"[" * 5000])
@pytest.mark.parametrize("before", range(4))
def test_a_page_in_place_of_an_answer_of_the_batch_api_is_no_answer(
    server: ModelServer, tmp_path: Path, body: bytes, before: int
) -> None:
    """A file is sent, a batch created and looked at, and its replies are fetched: each of the four may meet the page."""
    asked, spoiled = model(server, tmp_path), server._spoiled_batch
    calls = 0

    def one_page(method: str, path: str, content: bytes) -> bytes | None:
        nonlocal calls
        server.batch_faults = [body] if calls == before else []
        calls += 1
        return spoiled(method, path, content)

    server._spoiled_batch = one_page  # type: ignore[method-assign]
    assert [reply.finish for reply in asked.reply_many(requests(2))] == ["stop", "stop"]
    assert len(server.batches) == 1 and calls > 4


def test_a_refused_batch_frees_its_money_and_is_sent_again_by_the_next_command(server: ModelServer, tmp_path: Path) -> None:
    caps = BudgetConfig(requests=2)
    server.batch_refusal = "the model has no batches"
    for _ in range(3):
        with pytest.raises(MinilimaError, match=r"was refused\. The endpoint says: the model has no batches\. "):
            model(server, tmp_path, budget=caps).reply_many(requests(2))
        assert spent(tmp_path).spent.requests == 0
    server.batch_refusal = None
    replies = model(server, tmp_path, budget=caps).reply_many(requests(2))
    assert [reply.finish for reply in replies] == ["stop", "stop"]
    assert len(server.batches) == 4 and spent(tmp_path).spent.requests == 2


@pytest.mark.parametrize("fault", [503, 500, 429, "drop"])
def test_an_endpoint_that_is_away_while_a_batch_goes_on_is_waited_for(
    server: ModelServer, tmp_path: Path, fault: int | str
) -> None:
    server.batch_polls = 3
    asked = model(server, tmp_path)
    original = server._batch_state

    def away_afterwards(number: int, *, look: bool = False) -> dict[str, object]:
        server._batch_state = original  # type: ignore[method-assign]
        server.batch_faults = [fault] * 12
        return original(number, look=look)

    server._batch_state = away_afterwards  # type: ignore[method-assign]
    assert [reply.finish for reply in asked.reply_many(requests(2))] == ["stop", "stop"]
    assert len(server.batches) == 1 and server.batch_faults == []


@pytest.mark.parametrize("fault", ["lost", "drop", 503])
def test_a_batch_of_which_nobody_heard_back_is_looked_for_before_it_is_sent_again(
    server: ModelServer, tmp_path: Path, fault: int | str
) -> None:
    asked = model(server, tmp_path)
    original = server._batch

    def after_the_file(method: str, path: str, content: bytes) -> bytes | None:
        server._batch = original  # type: ignore[method-assign]
        server.batch_faults = [fault]
        return original(method, path, content)

    server._batch = after_the_file  # type: ignore[method-assign]
    assert [reply.finish for reply in asked.reply_many(requests(2))] == ["stop", "stop"]
    assert len(server.batches) == 1


_KILLED = """
import os, signal, sys
from pathlib import Path
import minilima.models.batch as batch
from minilima.config.schema import EndpointConfig
from minilima.models.endpoint import connect
from tests.models.test_batch import requests

def dies(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(batch.BatchModel if sys.argv[3] == "_create" else batch.Notes, sys.argv[3], dies)
endpoint = EndpointConfig(base_url=sys.argv[1], api_key_env="TEST_KEY", batch=True, poll_seconds=0.01)
connect("generator.model", "writer-small", endpoint, Path(sys.argv[2]) / "c.sqlite", "pool-1").reply_many(requests(2))
"""


@pytest.mark.parametrize("moment", ["_create", "rename", "remove_request"])
def test_a_kill_around_the_creation_of_a_batch_neither_loses_it_nor_sends_it_twice(
    server: ModelServer, tmp_path: Path, moment: str
) -> None:
    """`_create`: reserved and marked, not created; `rename`: created, its name not noted; `remove_request`: collected."""
    killed = subprocess.run([sys.executable, "-c", _KILLED, server.url, str(tmp_path), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    caps = BudgetConfig(requests=2)
    replies = model(server, tmp_path, budget=caps).reply_many(requests(2))
    assert [reply.finish for reply in replies] == ["stop", "stop"]
    assert len(server.batches) == 1 and spent(tmp_path).spent.requests == 2


def test_a_batch_that_the_address_does_not_know_is_not_sent_again(server: ModelServer, tmp_path: Path) -> None:
    model(server, tmp_path)
    with spent(tmp_path).database as database:
        for request in requests(2):
            database.execute("INSERT INTO batched VALUES (?, 'batch_of_another_account', 1)", (request.key("writer-small"),))
    server.batch_faults = [404]
    with pytest.raises(MinilimaError, match=r"does not know the batch batch_of_another_account"):
        model(server, tmp_path).reply_many(requests(2))
    assert server.batches == []


def test_a_parameter_that_a_batch_was_refused_for_is_left_out_of_the_next_and_of_those_of_other_processes(
    server: ModelServer, tmp_path: Path
) -> None:
    server.refuse = refuses("temperature", 400, "Unsupported parameter: 'temperature' is not supported with this model.")
    replies = model(server, tmp_path).reply_many(requests(2))
    assert [reply.finish for reply in replies] == ["stop", "stop"] and len(server.batches) == 2
    assert {fault for reply in replies for fault in reply.faults} == {"temperature left out", "server_error"}
    later = model(server, tmp_path).reply_many([replace(request, sample=1) for request in requests(2)])
    assert len(server.batches) == 3 and [reply.faults for reply in later] == [("temperature left out",), ()]


def test_a_prompt_that_a_batch_was_refused_for_is_not_sent_again(server: ModelServer, tmp_path: Path) -> None:
    server.refuse = lambda body: (400, {"error": {"message": "content policy"}}) if "question 1" in str(body) else None
    first, second = model(server, tmp_path).reply_many(requests(2))
    assert (first.finish, second.finish, second.faults) == ("stop", "failed", ("refused", "given_up"))
    assert len(server.batches) == 1
