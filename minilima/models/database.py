"""The SQLite file in which replies, costs and batches are kept, and what to do where it cannot be used.

WAL needs a local disk (https://sqlite.org/wal.html); on a network file system the rollback journal is kept, which is slower
and as safe as that file system's locks.
"""

import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minilima.environment import network_filesystem
from minilima.errors import MinilimaError, disk_full, explain

VERSION = 0
"""PRAGMA user_version of the file; raised by hand when an earlier minilima could not read it any more."""
TABLES = {
    "replies": ("key", "reply"),
    "spent": ("ticket", "scope", "requests", "tokens", "usd"),
    "batched": ("request", "batch", "ticket"),
    "numbers": ("key", "numbers"),
    "accounts": ("scope", "requests", "tokens", "usd"),
    "dialects": ("address", "model", "dialect", "probed"),
}
"""Columns that each table has, where it is there."""

WAIT_SECONDS = 30.0
_LOG_PAGES = 10_000
"""Pages of 4 KiB in the log before it is merged: a merge into a large file is slow, and holds up all replies meanwhile."""


def cache_file(outputs: Path) -> Path:
    """The reply cache of all runs whose results are below `outputs`."""
    return outputs / "cache" / "replies.sqlite"


class Database(sqlite3.Connection):
    """A connection of which each refusal is the one error that a user sees."""

    file: Path

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As sqlite3's.

        Raises:
            MinilimaError: the file is damaged, locked, not writable, or the disk is full.
        """
        try:  # not `_explained`: it takes as long as a small query
            return super().execute(sql, parameters)
        except sqlite3.Error as error:
            raise unusable(self.file, error) from None

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        """As sqlite3's; raises what `execute` raises."""
        with self._explained():
            return super().executemany(sql, parameters)

    def rows(self, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; raises what `execute` raises, also where a later row cannot be read."""
        with self._explained():
            return super().execute(sql, parameters).fetchall()

    def join_turn(self, on_error: Callable[[Exception], None]) -> None:
        """Makes one transaction of all that is written until the running event loop turns: a commit takes longer than a row.

        What has to be kept before something else happens waits for the turn: `await asyncio.sleep(0)`.

        Args:
            on_error: called where the commit failed; nothing of the turn is kept then.
        """
        from asyncio import get_running_loop  # whoever only reads needs no event loop

        if not self.in_transaction:
            self.execute("BEGIN IMMEDIATE")
            get_running_loop().call_soon(self._end_turn, on_error)

    def _end_turn(self, on_error: Callable[[Exception], None]) -> None:
        try:
            if self.in_transaction:  # SQLite itself takes back what met a full disk
                self.execute("COMMIT")
        except MinilimaError as error:
            if self.in_transaction:
                self.execute("ROLLBACK")
            on_error(error)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise unusable(self.file, error) from None


def open_database(file: Path) -> Database:
    """The database, in write-ahead mode on a local disk; made where there is none.

    Raises:
        MinilimaError: the file is no such database, or one of a newer minilima.
    """
    if str(file) != ":memory:":
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()  # with the umask's mode: SQLite itself gives nobody but the owner the right to write
        except OSError as error:
            raise explain(error) or error from None
    try:
        database = sqlite3.connect(file, timeout=WAIT_SECONDS, isolation_level=None, factory=Database)
    except sqlite3.Error as error:
        raise unusable(file, error) from None
    database.file = file
    journal = "TRUNCATE" if network_filesystem(file.parent) else "WAL"
    database.execute(f"PRAGMA journal_mode={journal}")
    database.execute("PRAGMA synchronous=NORMAL")
    database.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
    check_schema(database)
    return database


def check_schema(database: Database) -> None:
    """Stops where the file is of a newer minilima or not one of ours.

    Raises:
        MinilimaError: it is.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise MinilimaError(
            f"The reply cache {database.file} was written by a newer minilima.",
            f"Its format is {version}; this version knows formats up to {VERSION}.",
            "Update minilima, or choose another folder with paths.outputs=…; the file is left as it is.",
        )
    for table, columns in TABLES.items():
        there = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        if there and not there.issuperset(columns):
            raise _broken(database.file, f"its table {table} has the columns {', '.join(sorted(there))}")


def unusable(file: Path, error: sqlite3.Error) -> MinilimaError:
    """What SQLite's refusal means for the reply cache, and what to type next."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return disk_full(str(file))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
        return MinilimaError(
            f"The reply cache {file} is locked by another process, for more than {WAIT_SECONDS:.0f} seconds.",
            "A run holds it for milliseconds; a backup, an SQLite browser or a stopped process may hold it for long.",
            f"End that one (fuser {shlex.quote(str(file))} names it), and run the same command again: nothing is lost.",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return MinilimaError(
            f"The reply cache {file} cannot be written.",
            f"SQLite says: {error}.",
            "Ask its owner for permission to write it and its folder, or choose a folder of your own: paths.outputs=…",
        )
    return _broken(file, f"SQLite says: {error}")


def _broken(file: Path, why: str) -> MinilimaError:
    command = f"minilima doctor --repair paths.outputs={shlex.quote(str(file.parent.parent))}"
    return MinilimaError(
        f"The reply cache {file} cannot be used: it is damaged, or not one of minilima's.",
        f"{why[0].upper()}{why[1:]}.",
        f"Save the replies that can still be read, and go on with them: {command}",
    )


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All that is written in the block, or nothing; no other process writes meanwhile. Part of a turn's where one is open."""
    is_open = database.in_transaction
    if is_open:
        yield
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if database.in_transaction:  # SQLite itself takes back what met a full disk
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
