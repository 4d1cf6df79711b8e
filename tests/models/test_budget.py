"""The account of a stage: its caps hold for all processes together, and nothing that an endpoint says makes it richer."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from minilima.config.schema import BudgetConfig, EndpointConfig
from minilima.errors import MinilimaError, disk_full
from minilima.models.budget import Budget, Spend
from minilima.models.chat import Request, Sampling, ask
from minilima.models.database import Database
from minilima.models.endpoint import EndpointModel, connect
from minilima.models.wire import Wire
from tests.server import VALID_KEY, ModelServer

_RUN = """
import sys
from pathlib import Path
from minilima.config.schema import BudgetConfig, EndpointConfig
from minilima.errors import MinilimaError
from minilima.models.chat import Request, Sampling, ask
from minilima.models.endpoint import connect

url, folder, name, cap = sys.argv[1:]
endpoint = EndpointConfig(base_url=url, api_key_env="TEST_KEY", concurrency=8, budget=BudgetConfig(requests=int(cap)))
model = connect("generator.model", "writer-small", endpoint, Path(folder) / "c.sqlite", "pool-1")
sampling = Sampling(temperature=0.0, max_tokens=5)
print("ready", flush=True)
sys.stdin.readline()
try:
    model.reply_many([Request(messages=ask(f"{name} {number}"), sampling=sampling) for number in range(100)])
except MinilimaError as error:
    print(error.what)
"""


def test_two_runs_of_one_account_keep_its_cap_together(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", VALID_KEY)
    server.latency = 0.01
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _RUN, server.url, str(tmp_path), name, cap],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name, cap in (("one", "60"), ("two", "61"))
    ]  # fmt: skip
    assert [run.stdout.readline() for run in runs if run.stdout] == ["ready\n"] * 2
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    said = [run.communicate()[0] for run in runs]
    assert ["budget is used up" in text for text in said] == [True, True]
    assert 60 <= server.received <= 61
    assert Budget(tmp_path / "c.sqlite", "pool-1", BudgetConfig(), None).spent.requests == server.received


def test_another_process_s_reservations_are_seen_at_once(tmp_path: Path) -> None:
    file, caps = tmp_path / "c.sqlite", BudgetConfig(requests=3)
    one, two = (Budget(file, "pool-1", caps, None) for _ in range(2))
    worst = Spend(requests=1, tokens=10)
    tickets = [one.reserve(worst), two.reserve(worst), one.reserve(worst)]
    assert None not in tickets and two.reserve(worst) is None and one.reserve(worst) is None
    assert tickets[0] is not None
    one.settle(tickets[0], worst, Spend())
    assert two.reserve(worst) is not None and one.spent == Spend(requests=3, tokens=30)
    assert two.reserve_all([worst, worst]) is None
    assert Budget(file, "another", caps, None).spent == Spend()


@pytest.mark.parametrize("tokens", [-7, 10**30])
def test_a_usage_that_is_no_amount_counts_as_the_worst_case(tmp_path: Path, tokens: int) -> None:
    budget = Budget(tmp_path / "c.sqlite", "pool-1", BudgetConfig(tokens=25), None)
    worst = Spend(requests=1, tokens=10)
    for _ in range(2):
        ticket = budget.reserve(worst)
        assert ticket is not None
        budget.settle(ticket, worst, Spend(requests=1, tokens=tokens))
    assert budget.reserve(worst) is None and budget.spent.tokens == 20


def test_an_account_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "c.sqlite")
    old.execute("CREATE TABLE spent (ticket INTEGER PRIMARY KEY, scope TEXT, requests INT, tokens INT, usd REAL)")
    old.executemany("INSERT INTO spent (scope, requests, tokens, usd) VALUES (?, 1, 10, 0.5)", [("a",), ("a",), ("b",)])
    old.commit()
    budget = Budget(tmp_path / "c.sqlite", "a", BudgetConfig(), None)
    assert budget.spent == Spend(requests=2, tokens=20, usd=1.0)
    old.execute("UPDATE spent SET tokens = 4 WHERE ticket = 1")  # by a process of the earlier version
    old.commit()
    assert budget.spent.tokens == 14


def test_a_request_is_booked_before_it_is_sent_and_its_reply_kept_before_the_next(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another process sees it, each time that one is sent; many are booked and kept by one commit."""
    monkeypatch.setenv("TEST_KEY", VALID_KEY)
    server.latency = 0.02  # so that several come together
    file, sent, commits = tmp_path / "c.sqlite", [0], [0]
    model = connect("generator.model", "writer-small", _endpoint(server), file, "pool-1")
    post, execute = Wire.post, Database.execute

    async def looking(self: Wire, path: str, body: dict[str, Any]) -> str:
        with closing(sqlite3.connect(file)) as database:
            (booked,) = database.execute("SELECT requests FROM accounts").fetchone()
            (kept,) = database.execute("SELECT count(*) FROM replies").fetchone()
        sent[0] += 1
        assert sent[0] <= booked
        assert kept >= sent[0] - 8, "each of eight workers sends its next request once its reply is kept"
        return await post(self, path, body)

    def counting(self: Database, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        commits[0] += sql == "COMMIT"
        return execute(self, sql, parameters)

    monkeypatch.setattr(Wire, "post", looking)
    monkeypatch.setattr(Database, "execute", counting)
    assert all(reply.finish == "stop" for reply in model.reply_many(_requests(80)))
    assert sent[0] == 80 > commits[0]


def test_nothing_is_sent_that_could_not_be_booked(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", VALID_KEY)
    model = connect("generator.model", "writer-small", _endpoint(server), tmp_path / "c.sqlite", "pool-1")
    execute = Database.execute

    def full(self: Database, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql == "COMMIT":
            raise disk_full("c.sqlite")
        return execute(self, sql, parameters)

    monkeypatch.setattr(Database, "execute", full)
    with pytest.raises(MinilimaError, match="disk is full"):
        model.reply_many(_requests(80))
    assert server.requests == []
    monkeypatch.undo()
    monkeypatch.setenv("TEST_KEY", VALID_KEY)
    assert isinstance(model.model, EndpointModel)
    assert model.model.budget.spent == Spend() and model.model.budget.in_flight == 0
    assert len(model.reply_many(_requests(80))) == 80


def _endpoint(server: ModelServer) -> EndpointConfig:
    return EndpointConfig(base_url=server.url, api_key_env="TEST_KEY", concurrency=8)


def _requests(count: int) -> list[Request]:
    return [Request(messages=ask(f"question {n}"), sampling=Sampling(temperature=0.0, max_tokens=5)) for n in range(count)]
