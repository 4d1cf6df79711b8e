"""A real HTTP server on loopback that speaks OpenAI's chat completions, with faults to order: the double for OpenAI."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

VALID_KEY = "valid-key"
MODELS = ("writer-small", "writer-large")


class ModelServer:
    """Answers with `answer(request body)`; before that, each entry of `faults` spoils one request.

    A fault is an HTTP status to send, or "drop" to close the connection without a word.
    """

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], str] = lambda body: "Output (a)"
        self.faults: list[int | str] = []
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

            def send(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self.send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    fault = server.faults.pop(0) if server.faults else None
                    if fault is None:
                        server.requests.append(body)
                if fault == "drop":
                    self.close_connection = True
                    self.connection.close()
                elif isinstance(fault, int):
                    self.send(fault, {"error": {"message": "injected"}}, {"Retry-After": "0"})
                elif self.headers.get("Authorization") != f"Bearer {VALID_KEY}":
                    self.send(401, {"error": {"message": "bad key"}})
                elif body["model"] not in MODELS:
                    self.send(404, {"error": {"message": "no such model"}})
                else:
                    self.send(200, _completion(server.answer(body)))

        return Handler


def _completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
