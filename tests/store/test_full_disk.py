"""A full disk says so, whichever library meets it, and the same command resumes once there is room."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilima.__main__ import main
from minilima.errors import MinilimaError, explain
from minilima.formats.files import write_atomic
from minilima.models.database import cache_file, open_database
from minilima.store.entries import Store
from minilima.store.job import Outcome, Stage

FULL = (
    OSError(28, "No space left on device", "/x"),
    OSError(122, "Disk quota exceeded", "/x"),
    OSError(27, "File too large", "/x"),
    RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"),
    sqlite3.OperationalError("database or disk is full"),
)


@pytest.mark.parametrize("error", FULL)
def test_every_way_to_say_that_the_disk_is_full_is_understood(error: Exception) -> None:
    mistake = explain(error)
    assert mistake is not None and mistake.what.startswith("The disk is full") and "minilima store gc" in mistake.fix


def test_a_name_that_is_too_long_is_named_as_that(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        (tmp_path / ("x" * 300)).touch()
    mistake = explain(caught.value)
    assert mistake is not None and "too long" in mistake.what


def test_permission_a_read_only_disk_and_a_file_where_a_folder_belongs_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "outputs").touch()
    said = [str(explain(OSError(number, os.strerror(number), str(tmp_path / "outputs")))) for number in (1, 13, 17, 20, 30)]
    assert [text.partition(" ")[0] for text in said] == ["This", "This", *[str(tmp_path / "outputs")] * 3]
    assert all("no permission to write" in text and "belongs to" in text for text in said[:2])
    assert all("A file has the name of a folder." in text for text in said[2:4])
    assert "mounted read-only" in said[4] and "paths.outputs=" in said[4]


def test_a_store_on_a_disk_that_became_read_only_is_read_and_says_why_nothing_is_written(small_disk: Path) -> None:
    def fill(work: Path) -> Outcome:
        (work / "text.txt").write_text("x")
        return Outcome(metrics={})

    def stage(number: int) -> Stage:
        return Stage(name="pool", version=1, recipe={"n": number})

    outputs = f"paths.outputs={small_disk}"
    path = Store(small_disk / "store").get_or_build(stage(0), fill).path
    open_database(cache_file(small_disk)).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    found = Store(small_disk / "store").get_or_build(stage(0), fill)
    assert (found.path, found.how) == (path, "reused")
    assert main(["store", "ls", outputs]) == main(["store", "verify", outputs]) == 0
    for write in (
        lambda: Store(small_disk / "store").get_or_build(stage(1), fill),
        lambda: open_database(cache_file(small_disk)),
        lambda: write_atomic(small_disk / "memory.json", "{}"),
    ):
        with pytest.raises((OSError, MinilimaError)) as caught:
            write()
        assert "mounted read-only" in str(explain(caught.value)), caught.value
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert Store(small_disk / "store").get_or_build(stage(1), fill).how == "built"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", str(folder)]
    if os.getuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


_STAGE = """
import sys
from dataclasses import replace
from pathlib import Path
import minilima.run.launch as launch
from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.run.sources import resolve
from minilima.store.job import SCRATCH, Job

work = Path(sys.argv[1])
(work / SCRATCH).mkdir(parents=True, exist_ok=True)
config = load_config(["+experiment=quickstart"])
job = Job(kind="dataset", role="dataset", key="k", work=work, inputs={}, config=config, sources=resolve(config), cache=work / "c")
launch._commands = lambda job, file: launch.Commands(first=[sys.executable, "-c", sys.argv[2], str(work)])
try:
    launch.run_stage(job, lambda progress: None)
except MinilimaError as error:
    print(error)
"""

_FILLS = """
import sys
from pathlib import Path
file = open(Path(sys.argv[1]) / "weights", "wb", buffering=0)
try:
    while file.write(b"x" * 65536): pass
except OSError:
    raise RuntimeError("iostream error")
"""


def test_a_stage_whose_library_only_says_iostream_error_died_of_the_full_disk(small_disk: Path) -> None:
    command = [sys.executable, "-c", _STAGE, str(small_disk / "work"), _FILLS]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("The disk is full"), said


def test_replies_up_to_the_full_disk_are_kept_and_the_same_command_goes_on(small_disk: Path) -> None:
    from minilima.errors import MinilimaError
    from minilima.models.cache import CachedModel
    from tests.models.test_salvage import Writer, requests

    file = small_disk / "cache" / "replies.sqlite"
    block = small_disk / "block"
    block.write_bytes(b"x" * 15_000_000)
    with pytest.raises(MinilimaError, match="The disk is full"):
        CachedModel(Writer(), file).reply_many(requests())
    block.unlink()
    again = Writer()
    assert len(CachedModel(again, file).reply_many(requests())) == 300
    assert 0 < again.asked < 300
