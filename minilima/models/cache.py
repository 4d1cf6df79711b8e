"""Every reply is kept the moment it arrives: a stage that is killed and started again asks nothing twice.

One SQLite file (write-ahead log) serves all runs and processes. The key covers the model, the messages, the sampling
and the sample's number; the address of the endpoint, time-outs and retries are left out. Empty and filtered replies are
not kept. WAL needs a local disk (https://sqlite.org/wal.html); on a network file system the rollback journal is kept, which
is slower and as safe as that file system's locks.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from minilima.environment import network_filesystem
from minilima.errors import MinilimaError
from minilima.formats.records import Usage
from minilima.models.chat import FAILED, ChatModel, OnReply, Reply, Request

UNUSABLE = "unusable"
"""What a reply counts as that came whole and could not be used."""
ASK_AGAIN = 2
"""How often a request is repeated whose reply could not be used."""

_KEYS_A_QUERY = 500
_LOG_PAGES = 10_000
"""Pages of 4 KiB in the log before it is merged: a merge into a large file is slow, and holds up all replies meanwhile."""


def open_database(file: Path) -> sqlite3.Connection:
    """The database of replies and costs, in write-ahead mode on a local disk; made where there is none.

    Raises:
        MinilimaError: the file is no such database.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        database = sqlite3.connect(file, timeout=30.0, isolation_level=None)
        journal = "TRUNCATE" if network_filesystem(file.parent) else "WAL"
        database.execute(f"PRAGMA journal_mode={journal}")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
    except sqlite3.DatabaseError as error:
        raise MinilimaError(
            f"The reply cache {file} cannot be used.",
            f"SQLite says: {error}.",
            f"Move it away (mv {file} {file}.broken) and run again; its replies are then asked anew.",
        ) from None
    return database


class CachedModel:
    """A model whose replies are looked up before it is asked, and stored when it answers."""

    def __init__(self, model: ChatModel, file: Path) -> None:
        self.model = model
        self.usage = Usage()
        self._database = open_database(file)
        self._database.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")

    @property
    def name(self) -> str:
        return self.model.name

    def reply_many(
        self,
        requests: Sequence[Request],
        on_reply: OnReply = lambda index, reply: None,
        usable: Callable[[Reply], bool] = lambda reply: True,
    ) -> list[Reply]:
        """Replies from the cache, and from the model for those that are not in it.

        What `usable` refuses is kept, counted as `unusable`, and asked again, at most ASK_AGAIN times.
        """
        replies = self._reply_once(requests, on_reply)
        for attempt in range(1, ASK_AGAIN + 1):
            places = [place for place, reply in enumerate(replies) if reply.finish != FAILED and not usable(reply)]
            if not places:
                break
            self.usage += Usage(faults={UNUSABLE: len(places)})
            again = self._reply_once([replace(requests[place], attempt=attempt) for place in places], lambda index, reply: None)
            for place, reply in zip(places, again, strict=True):
                replies[place] = reply
        return replies

    def _reply_once(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        keys = [request.key(self.name) for request in requests]
        replies = self._stored(keys)
        for index, key in enumerate(keys):
            if key in replies:
                self.usage += Usage(cached=1)
                on_reply(index, replies[key])
        missing = [index for index, key in enumerate(keys) if key not in replies]

        def keep(position: int, reply: Reply) -> None:
            index = missing[position]
            self.usage += reply.usage()
            self._store(keys[index], reply)
            on_reply(index, reply)

        answered = self.model.reply_many([requests[index] for index in missing], keep) if missing else []
        fresh = dict(zip(missing, answered, strict=True))
        return [replace(fresh[index] if index in fresh else replies[key], key=key) for index, key in enumerate(keys)]

    def _stored(self, keys: Sequence[str]) -> dict[str, Reply]:
        found = {}
        for start in range(0, len(keys), _KEYS_A_QUERY):
            part = keys[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(part))
            rows = self._database.execute(f"SELECT key, reply FROM replies WHERE key IN ({marks})", part)  # noqa: S608 (only ?)
            found.update({key: _reply(text) for key, text in rows})
        return found

    def _store(self, key: str, reply: Reply) -> None:
        if (reply.text.strip() or reply.logprobs or reply.reasoning) and reply.finish not in ("content_filter", FAILED):
            values = {name: value for name, value in asdict(reply).items() if name not in ("faults", "key")}
            if values["reasoning"] is None:
                del values["reasoning"]
            row = (key, json.dumps(values, ensure_ascii=False))
            self._database.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", row)


def _reply(text: str) -> Reply:
    values = json.loads(text)
    return Reply(**{**values, "faults": ()})
