"""What a person sees while a stage runs, and when they stop it: calm lines, a pace, what it costs, the command to resume."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from minilima import console
from minilima.config.schema import BudgetConfig
from minilima.console import StageLine, duration, pace
from minilima.formats.records import Progress
from minilima.models.budget import Budget, Spend, spent_usd
from minilima.models.chat import Reply, counted
from tests.server import ModelServer


def progress(done: int, total: int | None = 100, note: str = "") -> Progress:
    return Progress(done=done, total=total, unit="steps", note=note)


@pytest.mark.parametrize(
    ("done", "seconds", "expected"),
    [
        (0, 60, ()),
        (10, 1, ()),
        (10, 5, ("2/s", "45 s left")),
        (10, 600, ("1/min", "90 min left")),
        (10, 36_000, ("1/h", "90.0 h left")),
    ],
)
def test_a_pace_is_told_in_a_unit_one_can_picture(done: int, seconds: float, expected: tuple[str, ...]) -> None:
    assert pace(progress(done), done, seconds) == expected


def test_without_a_total_there_is_no_guess_of_the_end() -> None:
    assert pace(progress(10, total=None), 10, 5) == ("2/s",)
    assert pace(progress(100), 90, 5) == ("18/s",)


def test_what_was_there_before_a_stage_went_on_does_not_make_it_look_fast() -> None:
    assert pace(progress(90), 10, 10) == ("1/s", "10 s left")


def test_spans_of_time_are_written_for_people() -> None:
    assert [duration(seconds) for seconds in (40, 600, 7200)] == ["40 s", "10 min", "2.0 h"]


def lines(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(console, "_PLAIN_LINE_SECONDS", -1.0)
    line = StageLine("pool", lambda: 0.126)
    line.update(progress(1, note="loss \x1b[31m1.0"))
    line.finish()
    return capfd.readouterr().out.splitlines()


def test_without_a_terminal_there_are_plain_lines_with_the_cost(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert lines(capfd, monkeypatch) == ["pool: started", "pool: 0 s, 1 of 100 steps, 0.13 USD, loss  [31m1.0"]


def test_a_stage_that_reports_nothing_yet_is_not_silent(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(console, "_TICK_SECONDS", 0.001)
    monkeypatch.setattr(console, "_PLAIN_LINE_SECONDS", -1.0)
    printed = threading.Event()
    monkeypatch.setattr(console, "say", lambda text: printed.set() if text == "model: 0 s, starting" else None)
    line = StageLine("model")
    assert printed.wait(timeout=600)
    line.finish()


@pytest.mark.parametrize(
    ("done", "total", "expected"), [(3, 6, "3 of 6 steps"), (0, 6, "0 of 6 steps"), (3, None, "3 steps"), (0, None, "")]
)
def test_what_is_counted_is_told_in_words(done: int, total: int | None, expected: str) -> None:
    assert console.counted(progress(done, total=total)) == expected


def test_what_is_counted_is_told_before_the_first_reply_and_two_replies_make_a_verdict() -> None:
    told: list[Progress] = []
    on_reply = counted(told.append, 4, "verdicts", each=2)
    for number in range(4):
        on_reply(number, Reply(text="", finish="stop", prompt_tokens=0, completion_tokens=0))
    assert [console.counted(one) for one in told] == [f"{done} of 2 verdicts" for done in (0, 0, 1, 1, 2)]


def test_in_ci_a_stage_says_only_that_it_has_begun(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert lines(capfd, monkeypatch) == ["pool: started"]


def test_what_a_stage_has_cost_is_read_from_its_account(tmp_path: Path) -> None:
    file = tmp_path / "replies.sqlite"
    assert spent_usd(file, "key") is None
    budget = Budget(file, "key", BudgetConfig(), None)
    assert spent_usd(file, "key") is None
    worst, actual = Spend(requests=1, tokens=10, usd=0.5), Spend(requests=1, tokens=4, usd=0.125)
    tickets = [budget.reserve(worst) for _ in range(3)]
    assert spent_usd(file, "key") is None, "what is in flight has cost nothing yet"
    for ticket in tickets[:2]:
        assert ticket is not None
        budget.settle(ticket, worst, actual)
    assert spent_usd(file, "key") == 0.25 and spent_usd(file, "other") is None
    assert Budget(file, "key", BudgetConfig(), None).spent.usd == 0.75, "a cap counts it in full"


def test_ctrl_c_stops_with_the_line_that_goes_on(tmp_path: Path, server: ModelServer) -> None:
    server.faults = ["hang"] * 100
    arguments = [
        "until=pool", "generator=openai", f"endpoints.generator.base_url={server.url}", "generator.model=writer-small",
        "data.blocked_words=[image, draw]", f"paths.outputs={tmp_path / 'out'}", "endpoints.generator.probe=false",
    ]  # fmt: skip
    command = [sys.executable, "-m", "minilima", *arguments]
    # A shell lets what it runs in the background ignore Ctrl-C, and the tests may be such a thing.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    environment = {**os.environ, "CI": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True, preexec_fn=heed
    ) as run:
        assert run.stdout is not None
        told = [run.stdout.readline()]
        while told[-1] and "pool: started" not in told[-1]:
            told.append(run.stdout.readline())
        os.killpg(run.pid, signal.SIGINT)
        told += run.stdout.readlines()
    assert run.returncode == 130, told
    assert told[-2].endswith("to resume:\n")
    assert told[-1].endswith(f" -m minilima {shlex.join(arguments)}\n") and "'data.blocked_words=[image, draw]'" in told[-1]
