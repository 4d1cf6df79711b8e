"""The account of a stage: its caps hold for all processes together, and nothing that an endpoint says makes it richer."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from minilima.config.schema import BudgetConfig
from minilima.models.budget import Budget, Spend
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
