"""The evaluation set of the hub: fetched once from whatever HF_ENDPOINT names, then found without a network."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROWS = json.dumps([{"instruction": "Say hello", "output": "Hello.", "generator": "gpt4", "dataset": "helpful_base"}]).encode()
FILE = "/datasets/tatsu-lab/alpaca_eval/resolve/main/alpaca_eval_gpt4_baseline.json"


class Mirror(BaseHTTPRequestHandler):
    """Plays the hub for that one file."""

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(ROWS)

    def _answer(self, body: bytes) -> None:
        found = self.path == FILE
        self.send_response(200 if found else 404)
        if found:
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(ROWS).hexdigest()}"')
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(ROWS) if found else 0))
        self.end_headers()
        self.wfile.write(body if found else b"")

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def mirror() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def look(cache: Path, endpoint: str, *overrides: str, offline: bool = False) -> str:
    """What is found, in a process of its own: the hub's client reads its settings when it is imported."""
    told = {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
    settings = {**os.environ, **told, "HF_HUB_OFFLINE": "1"} if offline else {**os.environ, **told}
    if not offline:
        settings.pop("HF_HUB_OFFLINE", None)
    code = (
        "import sys; from minilima.config.compose import load_config; from minilima.run.sources import resolve\n"
        "try: found = resolve(load_config(sys.argv[1:])).eval_set; print(found.path and found.path.read_text(), found.missing)\n"
        "except Exception as error: print(error)"
    )
    command = [sys.executable, "-c", code, "eval_set=alpaca_eval", *overrides]
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=True, timeout=600).stdout


def test_the_mirror_is_asked_once(mirror: str, tmp_path: Path) -> None:
    assert "Say hello" in look(tmp_path, mirror)
    assert "Say hello" in look(tmp_path, "http://127.0.0.1:9", offline=True)


def test_a_name_that_the_hub_does_not_have_is_explained(mirror: str, tmp_path: Path) -> None:
    found = look(tmp_path, mirror, "eval_set.hub_file=tatsu-lab/alpaca_eval:nothing.json")
    assert "no file nothing.json" in found


def test_without_a_network_the_set_is_missing_and_the_plan_can_still_be_made(tmp_path: Path) -> None:
    assert "the file alpaca_eval_gpt4_baseline.json" in look(tmp_path, "http://127.0.0.1:9", offline=True)
    assert "the file alpaca_eval_gpt4_baseline.json" in look(tmp_path, "http://127.0.0.1:9")
