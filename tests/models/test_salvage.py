"""A damaged reply cache: one paragraph with the command that saves what was paid, row by row."""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from minilima import environment
from minilima.__main__ import main
from minilima.config.schema import BudgetConfig
from minilima.errors import MinilimaError
from minilima.models.budget import Budget, Spend
from minilima.models.cache import CachedModel
from minilima.models.chat import OnReply, Reply, Request, Sampling, ask
from minilima.models.salvage import find_damage, salvage

COUNT = 300


class Writer:
    """Answers of many lengths, so that replies fill parts of a page and several pages."""

    name = "writer"

    def __init__(self) -> None:
        self.asked = 0

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        self.asked += len(requests)
        replies = []
        for index, request in enumerate(requests):
            number = int(request.messages[0].content)
            text = f"reply {number} ünd \u2028 " + "x" * (number * number % 9_000)
            replies.append(Reply(text=text, finish="stop", prompt_tokens=7, completion_tokens=number))
            on_reply(index, replies[-1])
        return replies


def requests(count: int = COUNT) -> list[Request]:
    return [Request(messages=ask(str(n)), sampling=Sampling(temperature=0.0, max_tokens=5)) for n in range(count)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A cache with replies and bookings."""
    file = tmp_path / "cache" / "replies.sqlite"
    CachedModel(Writer(), file).reply_many(requests())
    budget = Budget(file, "pool-1", BudgetConfig(), None)
    worst = Spend(requests=1, tokens=100, usd=1.0)
    for number in range(4):
        ticket = budget.reserve(worst)
        assert ticket is not None
        if number:
            budget.settle(ticket, worst, Spend(requests=1, tokens=10, usd=0.25))
    return file


def asked_again(file: Path) -> int:
    """How many of the requests a new run would pay for; each reply is checked."""
    writer = Writer()
    replies = CachedModel(writer, file).reply_many(requests())
    assert [reply.text.split()[1] for reply in replies] == [str(n) for n in range(COUNT)]
    assert all(len(reply.text) == len(f"reply {n} ünd \u2028 ") + n * n % 9_000 for n, reply in enumerate(replies))
    return writer.asked


def merged(file: Path) -> None:
    """Puts what is in the log into the file."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def test_all_of_a_whole_file_and_of_its_log_would_be_saved(file: Path) -> None:
    assert file.with_name("replies.sqlite-wal").stat().st_size > 0
    assert find_damage(file) is None
    saved = salvage(file)
    assert (saved.replies, saved.bookings) == (COUNT, 4)
    assert asked_again(file) == 0
    assert Budget(file, "pool-1", BudgetConfig(), None).spent == Spend(requests=4, tokens=130, usd=1.75)


def test_a_destroyed_header_loses_no_reply_that_lies_elsewhere(file: Path) -> None:
    merged(file)
    content = bytearray(file.read_bytes())
    content[:4096] = random.Random(0).randbytes(4096)
    file.write_bytes(content)
    with pytest.raises(MinilimaError, match=r"cannot be used.*doctor --repair"):
        CachedModel(Writer(), file).reply_many(requests())
    saved = salvage(file)
    assert (saved.replies, saved.bookings) == (COUNT, 4)
    assert saved.kept.read_bytes() == bytes(content), "the damaged file is kept"
    assert find_damage(file) is None and asked_again(file) == 0


@pytest.mark.parametrize("seed", range(5))
def test_destroyed_pages_cost_only_their_own_replies(file: Path, seed: int) -> None:
    merged(file)
    rng = random.Random(seed)
    content = bytearray(file.read_bytes())
    for page in rng.sample(range(1, len(content) // 4096), 5):
        content[page * 4096 : (page + 1) * 4096] = rng.randbytes(4096)
    file.write_bytes(content)
    assert find_damage(file) is not None
    saved = salvage(file)
    # A page holds at most 4,096 bytes of replies, the shortest of which takes some 200.
    assert COUNT - saved.replies <= 5 * 20
    assert asked_again(file) == COUNT - saved.replies
    assert find_damage(file) is None


def test_a_cut_file_is_saved_up_to_the_cut(file: Path) -> None:
    merged(file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2 + 100])
    assert find_damage(file) is not None
    assert 50 < salvage(file).replies < COUNT
    assert asked_again(file) > 0


def test_a_single_damaged_reply_is_asked_for_again_and_the_others_are_kept(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        keys = [request.key("writer") for request in requests(4)]
        for key, damage in zip(keys, ('{"text": ', "[]", '{"text": 5, "finish": "stop"}', "{}"), strict=True):
            database.execute("UPDATE replies SET reply = ? WHERE key = ?", (damage, key))
        database.commit()
    assert find_damage(file) is not None
    assert asked_again(file) == 4
    assert find_damage(file) is None and asked_again(file) == 0


def test_another_schema_and_a_newer_version_are_named(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 99")
        database.commit()
    with pytest.raises(MinilimaError, match=r"written by a newer minilima.*Update minilima"):
        CachedModel(Writer(), file)
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 0")
        database.execute("ALTER TABLE replies RENAME COLUMN reply TO answer")
        database.commit()
    with pytest.raises(MinilimaError, match=r"table replies has the columns answer, key"):
        CachedModel(Writer(), file)
    assert salvage(file).replies == COUNT
    assert asked_again(file) == 0


def test_a_file_that_somebody_locks_for_long_is_named_as_that(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilima.models.database.WAIT_SECONDS", 0.1)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(MinilimaError, match=r"is locked by another process") as caught:
            CachedModel(Writer(), file).reply_many([*requests(), *requests(COUNT + 1)[-1:]])
    assert "repair" not in caught.value.fix


def test_the_command_that_is_named_repairs(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "torch_facts", lambda deepspeed: {"torch": "2", "gpus": 0, "bf16": False, "nccl": None})
    merged(file)
    with file.open("r+b") as damaged:
        damaged.write(b"damaged!" * 20)
    with pytest.raises(MinilimaError) as caught:
        CachedModel(Writer(), file)
    command = caught.value.fix.partition("minilima ")[2].split()
    assert main([argument for argument in command if argument != "--repair"]) == 1
    assert "cannot be used" in " ".join(capfd.readouterr().out.split())
    assert main(command) == 0
    assert f"{COUNT} replies and 4 bookings of costs were saved" in " ".join(capfd.readouterr().out.split())
    assert asked_again(file) == 0


def test_a_kill_while_a_cache_is_repaired_loses_nothing(file: Path) -> None:
    merged(file)
    with file.open("r+b") as damaged:
        damaged.write(b"damaged!" * 20)
    code = (
        "import os, signal, sys; from pathlib import Path; from minilima.models import salvage\n"
        "steps = {'_keep': salvage, 'replace': Path}\n"
        "setattr(steps[sys.argv[2]], sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))\n"
        "salvage.salvage(Path(sys.argv[1]))"
    )
    for step in ("_keep", "replace"):
        assert subprocess.run([sys.executable, "-c", code, str(file), step], check=False).returncode == -9
    assert salvage(file).replies == COUNT
    assert asked_again(file) == 0
