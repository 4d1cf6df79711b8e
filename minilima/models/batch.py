"""OpenAI's Batch API: half the price, replies within a day. Batches are noted as they are sent, and collected after a restart.

    requests ─> reserve budget ─> file ─> batch ─(hours)─> output file ─> replies, settle
Each request is known to the endpoint by its key in the reply cache, so it does not matter which process collects it.
"""

import io
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai

from minilima.config.schema import EndpointConfig
from minilima.errors import MinilimaError
from minilima.models.budget import Budget, Spend, worst_case
from minilima.models.cache import open_database
from minilima.models.chat import FAILED, TEXT, OnReply, Reply, Request
from minilima.models.openai_api import chat_call, explain, is_whole, open_client, parse_completion

MOST_REQUESTS, MOST_BYTES = 50_000, 90_000_000
"""OpenAI takes 50,000 requests and 100 MB a file."""

_ENDED = ("completed", "failed", "expired", "cancelled")


class BatchModel:
    """A model behind an endpoint's Batch API. `database` notes which request was sent in which batch."""

    def __init__(self, model: str, endpoint: EndpointConfig, budget: Budget, database: Path) -> None:
        self.name = model
        self.endpoint = endpoint
        self.budget = budget
        self._client = open_client(endpoint)
        self._database = open_database(database)
        self._database.execute("CREATE TABLE IF NOT EXISTS batched (request TEXT PRIMARY KEY, batch TEXT, ticket INT)")

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        """Sends what was not sent yet, waits, and collects; what failed is sent again, `endpoint.max_retries` times.

        Raises:
            MinilimaError: the key, the model or a whole batch is refused, or the budget does not cover the requests.
        """
        places: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            places.setdefault(request.key(self.name), []).append(index)
        waiting = {key: requests[indices[0]] for key, indices in places.items()}
        replies: dict[str, Reply] = {}
        faults: dict[str, tuple[str, ...]] = {}
        try:
            for _ in range(self.endpoint.max_retries + 1):
                if not waiting:
                    break
                self._send({key: request for key, request in waiting.items() if self._batch_of(key) is None})
                for key, (reply, fault) in self._collect(waiting).items():
                    request = waiting[key]
                    if reply is None:
                        faults[key] = (*faults.get(key, ()), fault)
                    else:
                        replies[key] = replace(reply, faults=faults.get(key, ()))
                        del waiting[key]
                        for index in places[key]:
                            on_reply(index, replies[key])
                    # Only now, when the reply is kept: a kill in between collects the batch again instead of paying twice.
                    self._forget(key, request, reply)
        except openai.OpenAIError as error:
            raise explain(error, self.name, self.endpoint) from None
        lost = Reply(text="", finish=FAILED, prompt_tokens=0, completion_tokens=0)
        for key in waiting:
            replies[key] = replace(lost, faults=(*faults.get(key, ()), "given_up"))
        return [replies[request.key(self.name)] for request in requests]

    def _batch_of(self, key: str) -> str | None:
        row = self._database.execute("SELECT batch FROM batched WHERE request = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _send(self, requests: dict[str, Request]) -> None:
        """Sends requests in as many batches as the endpoint's limits ask for."""
        lines: dict[str, bytes] = {}
        size = 0
        for key, request in requests.items():
            path, body = chat_call(self.name, request)
            line = json.dumps({"custom_id": key, "method": "POST", "url": f"/v1{path}", "body": body}).encode() + b"\n"
            if len(lines) == MOST_REQUESTS or size + len(line) > MOST_BYTES:
                self._submit(lines, requests)
                lines, size = {}, 0
            lines[key], size = line, size + len(line)
        if lines:
            self._submit(lines, requests)

    def _submit(self, lines: dict[str, bytes], requests: dict[str, Request]) -> None:
        tickets: dict[str, int] = {}
        for key in lines:
            ticket = self.budget.reserve(worst_case(requests[key], self.budget.price))
            if ticket is None:
                self._release(tickets, requests)
                raise self.budget.exhausted()
            tickets[key] = ticket
        # A step's requests are all of one kind, and a batch has one address.
        texts = all(requests[key].messages[0].role == TEXT for key in lines)
        try:
            file = self._client.files.create(file=("requests.jsonl", io.BytesIO(b"".join(lines.values()))), purpose="batch")
            batch = self._client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/completions" if texts else "/v1/chat/completions",
                completion_window="24h",
            )
        except openai.OpenAIError:
            self._release(tickets, requests)
            raise
        self._database.execute("BEGIN")
        rows = [(key, batch.id, ticket) for key, ticket in tickets.items()]
        self._database.executemany("INSERT OR REPLACE INTO batched VALUES (?, ?, ?)", rows)
        self._database.execute("COMMIT")

    def _release(self, tickets: dict[str, int], requests: dict[str, Request]) -> None:
        for key, ticket in tickets.items():
            self.budget.settle(ticket, worst_case(requests[key], self.budget.price), Spend())

    def _collect(self, waiting: dict[str, Request]) -> dict[str, tuple[Reply | None, str]]:
        """(reply or None, what went wrong) of every waiting request by its key, once its batch has ended."""
        found: dict[str, tuple[Reply | None, str]] = {}
        for batch in dict.fromkeys(self._batch_of(key) for key in waiting):
            if batch is not None:
                found.update(self._ended(batch))
        return {key: found.get(key, (None, "expired")) for key in waiting}

    def _ended(self, identity: str) -> dict[str, tuple[Reply | None, str]]:
        """Waits for a batch to end, and reads what came of each of its requests."""
        while (batch := self._client.batches.retrieve(identity)).status not in _ENDED:
            time.sleep(self.endpoint.poll_seconds)
        if batch.status == "failed":
            why = "; ".join(str(item.message) for item in (batch.errors.data or [])) if batch.errors else "no reason given"
            raise MinilimaError(f"The batch {identity} was refused.", why, "Mend the settings, and run the same command again.")
        found: dict[str, tuple[Reply | None, str]] = {}
        for file in (batch.output_file_id, batch.error_file_id):
            for line in self._client.files.content(file).text.splitlines() if file else []:
                row = json.loads(line)
                found[row["custom_id"]] = self._read(row)
        return found

    def _read(self, row: dict[str, Any]) -> tuple[Reply | None, str]:
        response = row.get("response") or {}
        if row.get("error") or response.get("status_code") != 200:
            return None, "server_error"
        try:
            reply = parse_completion(json.dumps(response["body"]), self.budget.price)
        except (KeyError, ValueError):
            return None, "malformed"
        return (reply, "") if is_whole(reply) else (None, "empty")

    def _forget(self, key: str, request: Request, reply: Reply | None) -> None:
        """Books what a request took, and forgets its batch, so that a failed one is sent again."""
        row = self._database.execute("SELECT ticket FROM batched WHERE request = ?", (key,)).fetchone()
        if row is not None:
            actual = Spend(requests=1)
            if reply is not None:
                actual = Spend(requests=1, tokens=reply.prompt_tokens + reply.completion_tokens, usd=reply.usd or 0.0)
            self.budget.settle(int(row[0]), worst_case(request, self.budget.price), actual)
            self._database.execute("DELETE FROM batched WHERE request = ?", (key,))
