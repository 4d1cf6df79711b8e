"""A real HTTP server on loopback that speaks OpenAI's chat completions, with faults to order: the double for OpenAI.

In tests it runs in a thread; `python -m tests.server --latency 0.2` runs it alone, for benchmarks, and prints its address.
"""

import argparse
import asyncio
import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

from minilima.run.probe import TEXT

VALID_KEY = "valid-key"
MODELS = ("writer-small", "writer-large")
FAULTS = ("429", "429-after", "500", "drop", "hang", "empty", "filtered", "malformed", "truncated")


class ModelServer:
    """Answers with `answer(request body)`; before that, each entry of `faults` spoils one request.

    A fault is an HTTP status to send, or one of: drop (close the connection), hang (answer after `hang_seconds`), empty,
    filtered, malformed (no JSON), truncated (finish_reason length), 429-after (with Retry-After).
    `fault_share` spoils that share of all requests with faults in turn, at random.
    """

    def __init__(self, latency: float = 0.0) -> None:
        self.answer: Callable[[dict[str, Any]], str] = lambda body: "Output (a)"
        self.logprobs: Callable[[dict[str, Any]], dict[str, float]] | None = None
        """The likeliest first tokens with their log-probabilities, for requests that ask for them; None = told to nobody."""
        self.models: tuple[str, ...] = MODELS
        self.keys: tuple[str, ...] = (VALID_KEY,)
        self.faults: list[int | str] = []
        self.fault_share = 0.0
        self.fault_kinds: tuple[str, ...] = FAULTS
        self.latency = latency
        self.hang_seconds = 3.0
        self.retry_after = "0.2"
        self.hold_after: int | None = None
        """Requests after so many wait until this is None again, and are dropped then: whoever asks cannot end before that."""
        self.wait_after: int | None = None
        """Requests after so many wait until this is None again, and are answered then."""
        self.requests: list[dict[str, Any]] = []
        self.received = 0
        self.probes: list[dict[str, Any]] = []
        """The small requests that come before a run."""
        self.injected: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.tokens = (10, 5)
        self.billed = [0, 0]
        """Prompt and completion tokens of all replies sent with usage."""
        self.refuses_schema = False
        self.keeps_schema = True
        """Whether a small request with a JSON schema is answered in JSON."""
        self.refuse: Callable[[dict[str, Any]], tuple[int, object] | None] = lambda body: None
        """What a request is refused with, by its body: a status and the body of the refusal."""
        self.reshapes: Callable[[dict[str, Any]], object] = lambda completion: completion
        """What is sent in place of a chat completion: JSON, or the bytes of a body."""
        self.counts: Callable[[dict[str, Any], str], tuple[int, int]] | None = None
        """Prompt and completion tokens by request and text; None = `tokens`."""
        self.raw: bytes | None = None
        """The body of every reply, whatever was asked."""
        self.raw_once: list[bytes] = []
        """The bodies of the next replies."""
        self.broken: list[bytes] = []
        """What the next connections are sent in place of an HTTP reply; each is closed after it."""
        self.paths: list[str] = []
        self.files: dict[str, bytes] = {}
        self.batches: list[tuple[str, int]] = []
        self.batch_addresses: list[str] = []
        self.batch_marks: list[dict[str, str]] = []
        self.batch_polls = 1
        self.batch_refusal: str | None = None
        """Why batches that are created from now on fail."""
        self.batch_faults: list[int | str | bytes] = []
        """Each spoils one request of the Batch API: a status, a body, drop, or lost (done, and the connection closed)."""
        self._loop = asyncio.new_event_loop()
        self._rng = random.Random(0)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=512))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def serve_forever(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(timeout=600)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=600)
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    method, path, _ = lines[0].split()
                    reply = _response(404, {"detail": "Not Found"}) if not path.startswith("/v1/") else None
                    reply = reply or self._spoiled_batch(method, path, content) or await self._reply(method, headers, content)
                finally:
                    self.in_flight -= 1
                if reply is None:
                    break
                self.paths += [path] if method == "POST" else []
                if self.broken and method == "POST":
                    writer.write(self.broken.pop(0))
                    await writer.drain()
                    break
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _reply(self, method: str, headers: dict[str, str], content: bytes) -> bytes | None:
        if method == "GET":
            if headers.get("authorization", "").removeprefix("Bearer ") not in self.keys:
                return _response(401, {"error": {"message": "bad key"}})
            return _response(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})
        body = json.loads(content)
        if TEXT in str(body.get("prompt") or body["messages"][-1]["content"]):
            return self._probed(headers, body)
        self.received += 1
        if self.hold_after is not None and self.received > self.hold_after:
            await self._released()
            return None
        while self.wait_after is not None and self.received > self.wait_after:
            await asyncio.sleep(0.005)
        if self.latency:
            await asyncio.sleep(self.latency)
        fault = self._fault()
        if fault is not None:
            return await self._spoiled(fault)
        if (refusal := self._refusal(headers, body)) is not None:
            return _response(*refusal)
        self.requests.append(body)
        if self.raw_once or self.raw is not None:
            return _response(200, None, raw=self.raw_once.pop(0) if self.raw_once else self.raw)
        return self._completion(self.answer(_in_texts(body)), body=body)

    def _refusal(self, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, object] | None:
        if (refusal := self.refuse(body)) is not None:
            return refusal
        if headers.get("authorization", "").removeprefix("Bearer ") not in self.keys:
            return 401, {"error": {"message": "bad key"}}
        if body["model"] not in self.models:
            return 404, {"error": {"message": "no such model"}}
        if self.refuses_schema and "response_format" in body:
            return 400, {"error": {"message": "response_format is not supported"}}
        return None

    def _probed(self, headers: dict[str, str], body: dict[str, Any]) -> bytes:
        """A probe meets what every request meets; it is counted apart, and uses up no fault that is ordered."""
        self.probes.append(body)
        if (refusal := self._refusal(headers, body)) is not None:
            return _response(*refusal)
        text = '{"word": "ready"}' if self.keeps_schema and "response_format" in body else "ready"
        return self._completion(text, body=body) if self.raw is None else _response(200, None, raw=self.raw)

    async def _released(self) -> None:
        while self.hold_after is not None:
            await asyncio.sleep(0.005)

    def _spoiled_batch(self, method: str, path: str, content: bytes) -> bytes | None:
        if not ("/files" in path or "/batches" in path) or not self.batch_faults:
            return self._batch(method, path, content)
        fault = self.batch_faults.pop(0)
        if fault == "lost":
            self._batch(method, path, content)
        if isinstance(fault, str):
            raise ConnectionError(fault)
        if isinstance(fault, bytes):
            return _response(200, None, raw=fault)
        return _response(fault, {"error": {"message": "injected"}})

    def _batch(self, method: str, path: str, content: bytes) -> bytes | None:
        """The Batch API: a batch is done after it was asked for `batch_polls` times; every third request of the first fails."""
        if method == "POST" and path.endswith("/files"):
            name = f"file-{len(self.files)}"
            self.files[name] = content[content.index(b'{"custom_id"') : content.rindex(b"}") + 1]
            return _response(
                200, {"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": "f", "purpose": "batch"}
            )
        if method == "POST" and path.endswith("/batches"):
            self.batches.append((json.loads(content)["input_file_id"], self.batch_polls))
            self.batch_addresses.append(json.loads(content)["endpoint"])
            self.batch_marks.append(json.loads(content).get("metadata") or {})
            return _response(200, self._batch_state(len(self.batches) - 1))
        if method == "GET" and "/batches/" not in path and "/batches" in path:
            latest_first = [self._batch_state(number, look=True) for number in reversed(range(len(self.batches)))]
            return _response(200, {"object": "list", "data": latest_first, "has_more": False})
        if "/batches/" in path:
            return _response(200, self._batch_state(int(path.rpartition("-")[2])))
        if "/files/" in path:
            return _response(200, None, raw=self.files[path.split("/")[-2]])
        return None

    def _batch_state(self, number: int, *, look: bool = False) -> dict[str, Any]:
        file, left = self.batches[number]
        self.batches[number] = (file, left - (not look))
        state = {
            "id": f"batch-{number}",
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": file,
            "completion_window": "24h",
            "created_at": 2_000_000_000,
            "metadata": self.batch_marks[number],
            "status": "in_progress",
        }
        if left > 0 or look:
            return state
        if self.batch_refusal is not None:
            errors = {"object": "list", "data": [{"code": "invalid", "message": self.batch_refusal}]}
            return {**state, "status": "failed", "errors": errors}
        rows = []
        for place, line in enumerate(self.files[file].split(b"\n")):
            row = json.loads(line)
            refusal = self.refuse(row["body"])
            failed = place % 3 == 2 and number == 0 and refusal is None
            if not (failed or refusal) and f"out-{number}" not in self.files:
                self.requests.append(row["body"])
            body = json.loads(self._completion(self.answer(row["body"]), body=row["body"]).split(b"\r\n\r\n", 1)[1])
            response = {"status_code": 500 if failed else 200, "body": {} if failed else body}
            if refusal is not None:
                response = {"status_code": refusal[0], "body": refusal[1]}
            told = {"id": "r", "custom_id": row["custom_id"], "response": response, "error": None}
            rows.append(json.dumps(told, ensure_ascii=False))
        self.files[f"out-{number}"] = "\n".join(rows).encode()
        return {**state, "status": "completed", "output_file_id": f"out-{number}"}

    def _fault(self) -> str | None:
        if self.faults:
            return str(self.faults.pop(0))
        return self._rng.choice(self.fault_kinds) if self.fault_share and self._rng.random() < self.fault_share else None

    async def _spoiled(self, fault: str) -> bytes | None:
        self.injected[fault] += 1
        if fault == "drop":
            return None
        if fault == "hang":
            await asyncio.sleep(self.hang_seconds)
            return None
        if fault == "429-after":
            return _response(429, {"error": {"message": "slow down"}}, f"Retry-After: {self.retry_after}\r\n")
        if fault.isdigit():
            return _response(int(fault), {"error": {"message": "injected"}})
        if fault == "malformed":
            return _response(200, None, raw=b'{"choices": [{"mess')
        if fault == "truncated":
            return self._completion("cut in the mid", "length")
        return self._completion("" if fault == "empty" else "part", "content_filter" if fault == "filtered" else "stop")

    def _completion(self, text: str, finish: str = "stop", body: dict[str, Any] | None = None) -> bytes:
        body = body or {}
        prompt, completion = self.counts(body, text) if self.counts else self.tokens
        self.billed[0] += prompt
        self.billed[1] += completion
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if "tools" in body:
            call = {"id": "call", "type": "function", "function": {"name": "tool", "arguments": text}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        said = {"text": text} if "prompt" in body else {"message": message}
        choice = {"index": 0, **said, "finish_reason": finish, "logprobs": self._logprobs(body)}
        whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        sent = self.reshapes(whole)
        return _response(200, None, raw=sent) if isinstance(sent, bytes) else _response(200, sent)

    def _logprobs(self, body: dict[str, Any]) -> dict[str, Any] | None:
        if self.logprobs is None or not body.get("logprobs"):
            return None
        tops = [{"token": token, "logprob": value, "bytes": None} for token, value in self.logprobs(body).items()]
        return {"content": [{**tops[0], "top_logprobs": tops}]}


def _in_texts(body: dict[str, Any]) -> dict[str, Any]:
    """The body with the content of each message as a text, where it is a list of parts."""
    if "messages" not in body or isinstance(body["messages"][0]["content"], str):
        return body
    texts = ["".join(part["text"] for part in message["content"]) for message in body["messages"]]
    return {**body, "messages": [{**message, "content": text} for message, text in zip(body["messages"], texts, strict=True)]}


def _response(status: int, body: object, extra: str = "", raw: bytes | None = None) -> bytes:
    data = json.dumps(body).encode() if raw is None else raw
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{extra}\r\n"
    return head.encode() + data


def main() -> None:
    """Serves until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    server = ModelServer(parser.parse_args().latency)
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
