"""A server on loopback that passes each request on to another one and notes what became of it; for benchmarks."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

_NOT_PASSED_ON = {"host", "connection", "transfer-encoding", "content-length"}


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request, and what the server behind answered."""

    sent: Mapping[str, Any]
    status: int
    answer: str

    @property
    def choice(self) -> Mapping[str, Any] | None:
        """Of a chat completion; None where it is none."""
        if self.status != 200:
            return None
        choice: Mapping[str, Any] = json.loads(self.answer)["choices"][0]
        return choice


@dataclass(kw_only=True)
class Recorder:
    """The proxy; open within `with`."""

    address: str
    """Of the server behind, as in its base_url."""
    exchanges: list[Exchange] = field(default_factory=list)
    in_flight: int = 0

    @property
    def url(self) -> str:
        host, port = self._proxy.server_address[:2]
        return f"http://{host!s}:{port}{urlsplit(self.address).path}"

    def __enter__(self) -> Self:
        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._proxy.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.shutdown()
        self._proxy.server_close()
        self._thread.join()


def _handler(recorder: Recorder) -> type[BaseHTTPRequestHandler]:
    behind = urlsplit(recorder.address)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass_on(b"")

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            recorder.in_flight += 1
            try:
                status, answer = self._pass_on(content)
            finally:
                recorder.in_flight -= 1
            recorder.exchanges.append(Exchange(sent=json.loads(content), status=status, answer=answer))

        def _pass_on(self, content: bytes) -> tuple[int, str]:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
            connection = HTTPConnection(behind.hostname or "", behind.port, timeout=600)
            connection.request(self.command, self.path, content or None, headers)
            response = connection.getresponse()
            answer = response.read()
            connection.close()
            try:
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in _NOT_PASSED_ON:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            except OSError:  # whoever asked was killed
                self.close_connection = True
            return response.status, answer.decode()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    return Handler
