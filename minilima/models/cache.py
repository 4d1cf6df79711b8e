"""Every reply is kept the moment it arrives: a stage that is killed and started again asks nothing twice.

One SQLite file (see database.py) serves all runs and processes. The key covers the model, the messages, the sampling and the
sample's number; the address of the endpoint, time-outs and retries are left out. Empty and filtered replies are not kept.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from minilima.formats.records import Usage
from minilima.models.chat import FAILED, BatchedModel, ChatModel, OnReply, Reply, Request
from minilima.models.database import Database, open_database

UNUSABLE = "unusable"
"""What a reply counts as that came whole and could not be used."""
ASK_AGAIN = 2
"""How often a request is repeated whose reply could not be used."""

_KEYS_A_QUERY = 500
_FIELDS = {field.name for field in fields(Reply)}

REPLIES = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)"


class CachedModel:
    """A model whose replies are looked up before it is asked, and stored when it answers."""

    def __init__(self, model: ChatModel, file: Path) -> None:
        self.model = model
        self.usage = Usage()
        # A model behind an endpoint books its costs in the same file, and may have begun to when its reply is to be kept: by
        # one connection, since two would wait for each other.
        books: Any = getattr(model, "database", None)
        shared = books is not None and books.file.resolve() == file.resolve()
        self._database: Database = books if shared else open_database(file)
        self._database.execute(REPLIES)

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def arithmetic(self) -> dict[str, Any]:
        """For a manifest: under `arithmetic` what the digits of a local model's replies depend on; empty for others."""
        known = getattr(self.model, "arithmetic", None)
        return {"arithmetic": known} if known is not None else {}

    def reply_many(
        self,
        requests: Sequence[Request],
        on_reply: OnReply = lambda index, reply: None,
        usable: Callable[[Reply], bool] = lambda reply: True,
    ) -> list[Reply]:
        """Replies from the cache, and from the model for those that are not in it.

        What `usable` refuses is kept, counted as `unusable`, and asked again, at most ASK_AGAIN times; but not of a model on this
        machine that takes the likeliest tokens, which would say the same again.
        """
        replies = self._reply_once(requests, on_reply)
        asked = list(range(len(requests)))
        for attempt in range(1, ASK_AGAIN + 1):
            refused = [index for index in asked if replies[index].finish != FAILED and not usable(replies[index])]
            if refused:
                self.usage += Usage(faults={UNUSABLE: len(refused)})
            asked = [index for index in refused if requests[index].sampling.temperature or not self.arithmetic]
            if not asked:
                break
            again = self._reply_once([replace(requests[index], attempt=attempt) for index in asked], lambda index, reply: None)
            for index, reply in zip(asked, again, strict=True):
                replies[index] = reply
        return replies

    def _reply_once(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        keys = [request.key(self.name) for request in requests]
        replies = self._stored(keys)
        for index, key in enumerate(keys):
            if key in replies:
                self.usage += Usage(cached=1)
                on_reply(index, replies[key])
        missing = [index for index, key in enumerate(keys) if key not in replies]

        def keep(index: int, reply: Reply) -> None:
            self.usage += reply.usage()
            self._store(keys[index], reply)
            # Of requests that are equal the reply that came first counts, which is the one that is kept.
            first.setdefault(keys[index], reply)
            on_reply(index, reply)

        fresh: dict[int, Reply] = {}
        first: dict[str, Reply] = {}
        if replies and missing and isinstance(self.model, BatchedModel):
            kept = {index: replies[key] for index, key in enumerate(keys) if key in replies}
            fresh = dict(enumerate(self.model.reply_beside(requests, kept, keep)))
        elif missing:
            answered = self.model.reply_many([requests[at] for at in missing], lambda number, reply: keep(missing[number], reply))
            fresh = dict(zip(missing, answered, strict=True))
        known = {**replies, **{keys[index]: reply for index, reply in fresh.items()}, **first}
        return [replace(known[key], key=key) for key in keys]

    def _stored(self, keys: Sequence[str]) -> dict[str, Reply]:
        stored = {}
        for start in range(0, len(keys), _KEYS_A_QUERY):
            part = keys[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(part))
            for key, text in self._database.rows(f"SELECT key, reply FROM replies WHERE key IN ({marks})", part):  # noqa: S608 (only ?)
                if (reply := parse_reply(text)) is None:
                    self._database.execute("DELETE FROM replies WHERE key = ?", (key,))
                else:
                    stored[key] = reply
        return stored

    def _store(self, key: str, reply: Reply) -> None:
        if (reply.text.strip() or reply.logprobs or reply.reasoning) and reply.finish not in ("content_filter", FAILED):
            values = {name: value for name, value in vars(reply).items() if name not in ("faults", "key")}
            if values["reasoning"] is None:
                del values["reasoning"]
            row = (key, json.dumps(values, ensure_ascii=False))
            self._database.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", row)


def parse_reply(text: Any) -> Reply | None:
    """A reply as it is kept; None where it is damaged, so that it is asked for again."""
    try:
        values = {name: value for name, value in json.loads(text).items() if name in _FIELDS}
        reply = Reply(**{**values, "faults": ()})
        texts, counts = (reply.text, reply.finish), (reply.prompt_tokens, reply.completion_tokens)
        usd, logprobs = reply.usd, reply.logprobs
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    whole = all(isinstance(value, str) for value in texts) and all(isinstance(value, int) for value in counts)
    return reply if whole and isinstance(usd, float | int | None) and isinstance(logprobs, dict | None) else None
