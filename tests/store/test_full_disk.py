"""A full disk says so, whichever library meets it, and the same command resumes once there is room."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilima.errors import explain

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
