"""OpenAI's Batch API: half the price, replies within a day. Batches are noted as they are sent, and collected after a restart.

    requests ─> reserve budget, note a mark ─> file ─> batch with that mark ─(hours)─> output file ─> replies, settle
Each request is known to the endpoint by its key in the reply cache, so it does not matter which process collects it. A kill
before the batch's name is noted leaves the mark: the endpoint is asked which batch carries it, and that one is collected.
"""

import io
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import openai
from filelock import FileLock
from openai.types import Batch

from minilima.config.schema import EndpointConfig
from minilima.errors import MinilimaError
from minilima.models.address import address_text, open_client
from minilima.models.batch_answers import MALFORMED, SILENT, Collected, batch_in, file_in, is_row, lines_of, named_in, rows_in
from minilima.models.batch_notes import Notes
from minilima.models.budget import Budget, Spend, worst_case
from minilima.models.chat import FAILED, TEXT, UNKNOWN_USAGE, OnReply, Reply, Request
from minilima.models.dialects import Dialects
from minilima.models.openai_api import chat_call, is_whole, named, parse_completion
from minilima.models.refusals import explain, fault_of, quoted

MOST_REQUESTS, MOST_BYTES = 50_000, 90_000_000
"""OpenAI takes 50,000 requests and 100 MB a file."""

_ENDED = ("completed", "failed", "expired", "cancelled")
_MOST_SILENT_POLLS = 60
"""So often in a row a batch may be asked for in vain (503, no connection) before the run ends: half an hour by default."""
_DOWNLOADS = 3
"""So often a file of replies is fetched while a line of it cannot be read: a proxy may have cut it."""
_MARK = "minilima"
"""Name in a batch's metadata under which it says what was noted before it was created."""
_CLOCKS_DIFFER_SECONDS = 86_400

REFUSED = "refused"
"""Fault of a request that the endpoint would refuse again."""
_LOST = Reply(text="", finish=FAILED, prompt_tokens=0, completion_tokens=0)

Value = TypeVar("Value")


class BatchModel:
    """A model behind an endpoint's Batch API. The budget's database notes which request was sent in which batch."""

    def __init__(
        self, model: str, endpoint: EndpointConfig, budget: Budget, database: Path, extra: Mapping[str, Any] | None = None
    ) -> None:
        self.model, self._extra = model, dict(extra or {})
        self.name = named(model, self._extra)
        self.endpoint = endpoint
        self.budget = budget
        self._client = open_client(endpoint).with_options(max_retries=0)
        self._notes = Notes(budget.database)
        self._dialects = Dialects(budget.database)
        self._dialect = self._dialects.load(address_text(endpoint), model)
        self._unsaid = self._dialect.words()
        # Whoever holds it is about to create batches: a mark that is seen while it is free belongs to a process that died.
        self._creating = FileLock(database.with_name(f"{database.name}.batches.lock"))

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        """Sends what was not sent yet, waits, and collects; what failed is sent again, `endpoint.max_retries` times.

        Raises:
            MinilimaError: the key, the model or a whole batch is refused, or the budget does not cover the requests.
        """
        indices: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            indices.setdefault(request.key(self.name), []).append(index)
        waiting = {key: requests[of_key[0]] for key, of_key in indices.items()}
        replies: dict[str, Reply] = {}
        faults: dict[str, tuple[str, ...]] = {}
        try:
            for _ in range(self.endpoint.max_retries + 1):
                if not waiting:
                    break
                self._send_unsent(waiting)
                for key, (reply, fault) in self._collect(waiting).items():
                    request = waiting[key]
                    if reply is None:
                        faults[key] = (*faults.get(key, ()), fault)
                    if reply is None and fault == REFUSED:  # it would be refused again
                        replies[key] = replace(_LOST, faults=(*faults[key], "given_up"))
                        del waiting[key]
                    elif reply is not None:
                        before, self._unsaid = self._unsaid, []
                        replies[key] = replace(reply, faults=(*before, *faults.get(key, ()), *reply.faults))
                        del waiting[key]
                        for index in indices[key]:
                            on_reply(index, replies[key])
                    # Only now, when the reply is kept: a kill in between collects the batch again instead of paying twice.
                    self._forget(key, request, reply)
        except openai.OpenAIError as error:
            raise explain(error, self.model, self.endpoint) from None
        for key in waiting:
            replies[key] = replace(_LOST, faults=(*faults.get(key, ()), "given_up"))
        return [replies[request.key(self.name)] for request in requests]

    def _send_unsent(self, waiting: dict[str, Request]) -> None:
        """Sends requests in as many batches as the endpoint's limits ask for, once it is clear what became of marks."""
        with self._creating:
            for mark in {batch for batch in map(self._notes.batch_of, waiting) if batch is not None and _is_mark(batch)}:
                if (batch := self._patiently(lambda mark=mark: self._find(mark))) is not None:  # type: ignore[misc]
                    self._notes.rename(mark, batch.id)
                else:
                    self._release(mark)
            lines: dict[str, bytes] = {}
            size = 0
            for key, request in waiting.items():
                if self._notes.batch_of(key) is not None:
                    continue
                path, body = self._call(request)
                line = json.dumps({"custom_id": key, "method": "POST", "url": f"/v1{path}", "body": body}).encode() + b"\n"
                if len(lines) == MOST_REQUESTS or size + len(line) > MOST_BYTES:
                    self._submit(lines, waiting)
                    lines, size = {}, 0
                lines[key], size = line, size + len(line)
            if lines:
                self._submit(lines, waiting)

    def _submit(self, lines: dict[str, bytes], requests: dict[str, Request]) -> None:
        """Reserves and notes the mark in one transaction, then creates the batch; a refusal takes both back."""
        mark = f"{_MARK}-{int(time.time())}-{secrets.token_hex(8)}"
        worst = [worst_case(requests[key], self.budget.price) for key in lines]
        if self.budget.reserve_all(worst, lambda tickets: self._notes.add(list(lines), mark, tickets)) is None:
            raise self.budget.exhausted()
        # A step's requests are all of one kind, and a batch has one address.
        texts = all(requests[key].messages[0].role == TEXT for key in lines)
        try:
            file = self._upload(b"".join(lines.values()))
            batch = self._create(file, "/v1/completions" if texts else "/v1/chat/completions", mark)
        except (openai.APIConnectionError, openai.InternalServerError):
            raise  # it may be there all the same: the mark stays, and the next command looks for it
        except openai.OpenAIError:
            self._release(mark)
            raise
        self._notes.rename(mark, batch.id)

    def _upload(self, content: bytes) -> str:
        """The name of a new file of requests. One that is sent twice costs nothing."""
        files = self._client.with_options(max_retries=self.endpoint.max_retries).files
        for attempt in range(self.endpoint.max_retries + 1):
            try:
                return named_in(files.create(file=("requests.jsonl", io.BytesIO(content)), purpose="batch"))
            except MALFORMED as error:
                if attempt == self.endpoint.max_retries:
                    raise self._no_answer(attempt + 1, error) from None
            time.sleep(min(self.endpoint.poll_seconds, 2.0**attempt))
        raise AssertionError("the last attempt returns or raises")

    def _create(self, file: str, address: Any, mark: str) -> Batch:
        """Creates a batch once: where it is not known whether that worked, the endpoint is asked before it is tried again."""
        for attempt in range(self.endpoint.max_retries + 1):
            try:
                return batch_in(
                    self._client.batches.create(
                        input_file_id=file, endpoint=address, completion_window="24h", metadata={_MARK: mark}
                    )
                )
            except SILENT as error:
                if attempt == self.endpoint.max_retries:
                    raise error if isinstance(error, openai.OpenAIError) else self._no_answer(attempt + 1, error) from None
            time.sleep(min(self.endpoint.poll_seconds, 2.0**attempt))
            if (batch := self._patiently(lambda: self._find(mark))) is not None:
                return batch
        raise AssertionError("the last attempt returns or raises")

    def _find(self, mark: str) -> Batch | None:
        """The batch that carries the mark; the endpoint lists the latest first."""
        noted = int(mark.split("-")[1])
        for batch in self._client.batches.list(limit=100):
            if isinstance(batch.metadata, Mapping) and batch.metadata.get(_MARK) == mark:
                return batch_in(batch)
            if isinstance(batch.created_at, int | float) and batch.created_at < noted - _CLOCKS_DIFFER_SECONDS:
                break
        return None

    def _release(self, batch: str) -> None:
        """Forgets a batch that the endpoint does not work on, and frees what was reserved for its requests."""
        for ticket in self._notes.tickets(batch):
            self.budget.settle(ticket, Spend(), Spend())
        self._notes.remove(batch)

    def _collect(self, waiting: dict[str, Request]) -> Collected:
        """What came of every waiting request, once its batch has ended."""
        collected: Collected = {}
        for batch in dict.fromkeys(self._notes.batch_of(key) for key in waiting):
            if batch is not None:
                collected.update(self._ended(batch, waiting))
        return {key: collected.get(key, (None, "expired")) for key in waiting}

    def _ended(self, name: str, waiting: Mapping[str, Request]) -> Collected:
        """Waits for a batch to end, and reads what came of each of its requests."""
        while (batch := self._patiently(lambda: self._state(name))).status not in _ENDED:
            time.sleep(self.endpoint.poll_seconds)
        if batch.status == "failed":
            self._release(name)
            why = "; ".join(str(item.message) for item in (batch.errors.data or [])) if batch.errors else "no reason given"
            raise MinilimaError(
                f"The batch {name} was refused.",
                f"The endpoint says: {quoted(why, self.endpoint)}.",
                "Nothing was billed. Fix the settings and run the same command again: a new batch is sent.",
            )
        collected: Collected = {}
        for file in (batch.output_file_id, batch.error_file_id):
            if file:
                collected.update(rows_in(self._download(file), partial(self._read, waiting)))
        return collected

    def _download(self, file: str) -> bytes:
        """A file of replies; what of it stays broken is left to whoever reads it."""
        for attempt in range(_DOWNLOADS):
            content = self._patiently(lambda: file_in(self._client.files.content(file).content))
            if all(map(is_row, lines_of(content))):
                break
            if attempt < _DOWNLOADS - 1:
                time.sleep(self.endpoint.poll_seconds)
        return content

    def _state(self, name: str) -> Batch:
        try:
            batch = self._client.batches.retrieve(name)
        except openai.NotFoundError:
            raise MinilimaError(
                f"{self.endpoint.base_url or 'OpenAI'} does not know the batch {name}.",
                "It was sent from here before, with another address or key, or is so old that it was deleted.",
                "Use the address and key with which it was sent; with batch=false its requests are asked and paid one by one.",
            ) from None
        return batch_in(batch)

    def _patiently(self, call: Callable[[], Value]) -> Value:
        """What the endpoint answers; a while in which it does not is waited through, for the batch goes on meanwhile."""
        for failures in range(1, _MOST_SILENT_POLLS + 1):
            try:
                return call()
            except SILENT as error:
                last: Exception = error
            if failures < _MOST_SILENT_POLLS:
                time.sleep(self.endpoint.poll_seconds)
        raise self._no_answer(_MOST_SILENT_POLLS, last)

    def _no_answer(self, times: int, last: Exception) -> MinilimaError:
        return MinilimaError(
            f"{self.endpoint.base_url or 'OpenAI'} was asked for its batches and gave no answer, {times} times in a row.",
            f"The last error was {type(last).__name__}: {quoted(' '.join(str(last).split()), self.endpoint)}.",
            "Run the same command again later: what was sent is noted, and is collected then.",
        )

    def _call(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Path and body of a request, as this server takes it."""
        path, body = chat_call(self.model, request)
        return path, self._dialect.applied({**body, **self._extra})

    def _read(self, waiting: Mapping[str, Request], row: dict[str, Any]) -> tuple[Reply | None, str]:
        """The reply in a row, or None and what went wrong; a refused parameter is left out when it is sent again."""
        response, request = row.get("response") or {}, waiting.get(str(row["custom_id"]))
        status = response.get("status_code")
        if row.get("error") or status != 200:
            body = response.get("body") or row.get("error")
            if request is None or not isinstance(status, int) or status >= 500 or status in (408, 409, 429):
                return None, "server_error"
            # Whole, as it was before anything was left out: another row of the batch may have been read before.
            whole = {**chat_call(self.model, request)[1], **self._extra}
            if learned := self._dialect.learn(whole, status, body):
                self._dialects.save(address_text(self.endpoint), self.model, self._dialect)
            return None, learned or (REFUSED if learned is None else "server_error")
        try:
            reply = parse_completion(json.dumps(response["body"]), self.budget.price, request)
        except (KeyError, ValueError, RecursionError):
            return None, "malformed"
        return (reply, "") if is_whole(reply) else (None, fault_of(reply, None))

    def _forget(self, key: str, request: Request, reply: Reply | None) -> None:
        """Books what a request took, and forgets its batch, so that a failed one is sent again."""
        ticket = self._notes.ticket_of(key)
        if ticket is not None:
            worst, actual = worst_case(request, self.budget.price), Spend(requests=1)
            if reply is not None and UNKNOWN_USAGE in reply.faults:
                actual = worst
            elif reply is not None:
                actual = Spend(requests=1, tokens=reply.prompt_tokens + reply.completion_tokens, usd=reply.usd or 0.0)
            self.budget.settle(ticket, worst, actual)
            self._notes.remove_request(key)


def _is_mark(batch: str) -> bool:
    return batch.startswith(f"{_MARK}-")
