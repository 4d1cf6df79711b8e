"""Network file systems are recognised by the mount that a folder lies on, and the plan and the reply cache heed them."""

import sqlite3
from pathlib import Path

import pytest

from minilima import environment, plan
from minilima.config.compose import load_config
from minilima.environment import network_filesystem
from minilima.models.database import open_database


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a space in its name that /proc/mounts says is NFS; what is mounted over a part of it is not."""
    folder = tmp_path / "on nfs"
    (folder / "local").mkdir(parents=True)
    escaped = str(folder).replace(" ", "\\040")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\n/dev/b {escaped}/local xfs rw 0 0\n")
    monkeypatch.setattr(environment, "MOUNTS", mounts)
    return folder


def test_the_innermost_mount_counts_also_for_a_folder_that_is_not_there_yet(shared: Path) -> None:
    assert network_filesystem(shared / "new" / "outputs") == "nfs4"
    assert network_filesystem(shared / "local" / "new") is None
    assert network_filesystem(shared.parent) is None


def test_nothing_is_said_where_mounts_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MOUNTS", tmp_path / "none")
    assert network_filesystem(tmp_path) is None


def test_a_plan_tells_what_to_know_there(shared: Path) -> None:
    def notes(folder: Path) -> str:
        return " ".join(plan(load_config(["+experiment=quickstart", f"paths.outputs='{folder}'"])).notes)

    assert "is on nfs4" in notes(shared) and "SQLite" in notes(shared)
    assert "is on nfs" not in notes(shared / "local") and "SQLite" not in notes(shared / "local")


def test_the_reply_cache_keeps_no_write_ahead_log_there(shared: Path) -> None:
    def journal(folder: Path) -> str:
        open_database(folder / "replies.sqlite").close()
        mode: str = sqlite3.connect(folder / "replies.sqlite").execute("PRAGMA journal_mode").fetchone()[0]
        return mode

    assert journal(shared / "local") == "wal"
    assert journal(shared) == "delete"  # a new connection's default: the log is not the file's own mode
