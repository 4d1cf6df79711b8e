"""Small real things that tests share: a tiny Llama with its tokenizer, and an OpenAI-compatible server on loopback."""

import gc
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import ModelServer
from tests.tiny import save_tiny_model

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first: at the end they would keep one process busy while the others have nothing left."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def _imported_for_good() -> None:
    """Every training ends with a collection of garbage, for which all that the tests have imported is looked through."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # A command in this process sets up Hydra's logging, which closes all handlers there are; absl's, which lm-eval, rouge and
    # others bring, would close with it the file that pytest captures what is printed in.
    monkeypatch.setattr(logging, "_handlerList", [])
    # Commands also run in other folders, where python would import what is installed instead of what is tested.
    here = str(Path(__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])))


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A server that answers chat completions; set `server.answer` and `server.faults`."""
    with ModelServer() as running:
        yield running


@pytest.fixture
def minilima_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The command as typed in a folder, in this process: what it prints and its exit status, without the seconds of a start."""
    from minilima.__main__ import main

    def typed(*arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        if cwd is not None:
            monkeypatch.chdir(cwd)
        capfd.readouterr()
        status = main(list(arguments))
        printed = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, status, printed.out, printed.err)

    return typed


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with a tokenizer trained on our seeds, saved as a folder."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def write_jsonl_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as JSONL below the test's folder and returns the path."""
    from minilima.formats.files import write_jsonl

    def write(name: str, *rows: dict[str, Any]) -> Path:
        path = tmp_path / name
        write_jsonl(path, rows)
        return path

    return write
