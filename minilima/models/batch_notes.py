"""Which request was sent in which batch, in the database of replies: whichever process collects a batch finds its requests."""

import sqlite3
from collections.abc import Sequence


class Notes:
    """Which request was sent in which batch, with the ticket of its reservation."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("CREATE TABLE IF NOT EXISTS batched (request TEXT PRIMARY KEY, batch TEXT, ticket INT)")

    def add(self, keys: Sequence[str], batch: str, tickets: Sequence[int]) -> None:
        """Within a transaction of the caller's."""
        rows = [(key, batch, ticket) for key, ticket in zip(keys, tickets, strict=True)]
        self._database.executemany("INSERT OR REPLACE INTO batched VALUES (?, ?, ?)", rows)

    def rename(self, mark: str, batch: str) -> None:
        self._database.execute("UPDATE batched SET batch = ? WHERE batch = ?", (batch, mark))

    def batch_of(self, key: str) -> str | None:
        row = self._database.execute("SELECT batch FROM batched WHERE request = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def ticket_of(self, key: str) -> int | None:
        row = self._database.execute("SELECT ticket FROM batched WHERE request = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def tickets(self, batch: str) -> list[int]:
        return [int(row[0]) for row in self._database.execute("SELECT ticket FROM batched WHERE batch = ?", (batch,))]

    def remove(self, batch: str) -> None:
        self._database.execute("DELETE FROM batched WHERE batch = ?", (batch,))

    def remove_request(self, key: str) -> None:
        self._database.execute("DELETE FROM batched WHERE request = ?", (key,))
