"""A hub on loopback that speaks as much of Hugging Face's protocol as `datasets` and its client ask for, for data sets."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit


@dataclass(kw_only=True)
class Repository:
    """A data set: its files by name, at one commit, and whom it is given to."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    gated: bool = False
    private: bool = False


@dataclass(kw_only=True)
class Hub:
    """What is on the hub, where it is, and the paths that it was asked for."""

    endpoint: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub for as long as the block lasts."""

    class Handler(_Handler):
        """Of this hub alone."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.hub = Hub(endpoint=f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Handler.hub
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(path)
        name = next((name for name in self.hub.repositories if f"datasets/{name}/" in f"{path}/"), None)
        if name is None or self.hub.repositories[name].private:
            return self._send(401, b"", "RepoNotFound")
        repository = self.hub.repositories[name]
        _, _, rest = path.partition(f"datasets/{name}")
        kind, _, rest = rest.strip("/").partition("/")
        revision, _, rest = rest.partition("/")
        if kind and revision not in ("main", repository.commit):
            return self._send(404, b"", "RevisionNotFound")
        if kind == "resolve":
            return self._send_file(repository, rest)
        return self._send_listing(name, repository, kind, rest, body)

    def _send_file(self, repository: Repository, name: str) -> None:
        if repository.gated:
            return self._send(403, b"", "GatedRepo")
        if name not in repository.files:
            return self._send(404, b"", "EntryNotFound")
        content = repository.files[name]
        return self._send(200, content, **{"X-Repo-Commit": repository.commit, "ETag": f'"{_digest(content)}"'})

    def _send_listing(self, name: str, repository: Repository, kind: str, below: str, body: bytes) -> None:
        files = [
            {"type": "file", "path": path, "size": len(content), "oid": _digest(content)}
            for path, content in repository.files.items()
        ]
        folders = {path.rpartition("/")[0] for path in repository.files} - {""}
        entries = [
            *files,
            *({"type": "directory", "path": folder, "size": 0, "oid": _digest(folder.encode())} for folder in folders),
        ]
        if kind == "tree":
            return self._send_json([entry for entry in entries if not below or str(entry["path"]).startswith(f"{below}/")])
        if kind == "paths-info":
            paths = json.loads(body)["paths"] if body.startswith(b"{") else []
            return self._send_json([entry for entry in entries if entry["path"] in paths])
        listed = [{"rfilename": path} for path in repository.files]
        facts = {
            "id": name,
            "sha": repository.commit,
            "private": False,
            "gated": repository.gated,
            "tags": [],
            "siblings": listed,
        }
        return self._send_json({**facts, "downloads": 0, "likes": 0, "disabled": False})

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode())

    def _send(self, status: int, content: bytes, code: str | None = None, **headers: str) -> None:
        self.send_response(status)
        for header, value in {**headers, **({"X-Error-Code": code} if code else {})}.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
