"""The server of `minilima view`: the page, what it shows as JSON, and the reports of the folder; on loopback alone.

GET /               the page, which asks for the rest        GET /runs/NAME/report.html, /sweeps/NAME/…  files
GET /state.json     runs, sweeps, builds                     GET /compare.json?run=A&run=B               paired figures
Other hosts' names are refused, so that no page of another site can read it through a name that points here.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from minilima.errors import MinilimaError
from minilima.report.render import legible, render
from minilima.report.view import Library

_TYPES = {".html": "text/html; charset=utf-8", ".svg": "image/svg+xml", ".png": "image/png"}
_FOLDERS = ("runs", "sweeps")


def open_server(outputs: Path, port: int) -> ThreadingHTTPServer:
    """A server that is bound and not started; port 0 chooses a free one.

    Raises:
        MinilimaError: the port is taken.
    """
    library = Library(outputs=outputs)
    page = render("view.html.j2", scripts=("table.js", "view.js"), live=True, outputs=str(outputs))

    class Handler(_Handler):
        pass

    Handler.library, Handler.page = library, page
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise MinilimaError(
            f"The port {port} cannot be used.",
            f"{getattr(error, 'strerror', None) or error}.",
            "Choose another one: minilima view --port 8099",
        ) from None


class _Handler(BaseHTTPRequestHandler):
    library: Library
    page: str

    def do_GET(self) -> None:
        """Answers a request."""
        host = self.headers.get("Host", "").rpartition(":")[0]
        address = urlsplit(self.path)
        if host not in ("127.0.0.1", "localhost"):
            self._send(403, b"Only 127.0.0.1 and localhost are served.", "text/plain")
        elif address.path == "/":
            self._send(200, self.page.encode(), _TYPES[".html"])
        elif address.path == "/state.json":
            self._send_json(self.library.state())
        elif address.path == "/compare.json":
            self._compare(parse_qs(address.query).get("run", []))
        else:
            self._send_file(unquote(address.path))

    def _compare(self, names: list[str]) -> None:
        try:
            self._send_json(self.library.compared(names))
        except MinilimaError as error:
            self._send_json({"error": str(error)}, status=400)

    def _send_file(self, path: str) -> None:
        root = self.library.outputs.resolve()
        file = (root / path.lstrip("/")).resolve()
        inside = any(file.is_relative_to(root / folder) for folder in _FOLDERS)
        if inside and file.suffix in _TYPES and file.is_file():
            self._send(200, file.read_bytes(), _TYPES[file.suffix])
        else:
            self._send(404, b"There is no such page.", "text/plain")

    def _send_json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(_without_nan(value), ensure_ascii=True).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN; texts get their invisible characters shown."""
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, str):
        return legible(value)
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list | tuple) else value
