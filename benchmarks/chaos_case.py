"""One experiment that is disturbed: its folder, its server, its commands, and whether it ended as an undisturbed one.

start ─> a disturbance (chaos.py) ─> heal: the same command, and what a paragraph names ─> compare: every file of the store
"""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from minilima.formats.files import sha256_file
from tests.generate.test_pool import writer
from tests.server import VALID_KEY, ModelServer

ROOT = Path(__file__).parent.parent
SECONDS = 300
"""Longest wait for one command."""
MOST_HEALED = 3
"""So many times a paragraph's command is followed in one case: a run may meet one damaged file after the other."""

SITE = """
import os, sys
if "KILL_AT" in os.environ and "minilima" in " ".join(sys.orig_argv):
    import signal
    who, at, when = os.environ["KILL_AT"].split(":")
    calls = 0
    def counted(name):
        plain = getattr(os, name)
        def call(*arguments, **settings):
            global calls
            calls += 1
            mine = calls == int(at)
            if mine and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = plain(*arguments, **settings)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        setattr(os, name, call)
    if (who == "worker") == ("minilima.run.worker" in sys.orig_argv):
        for name in ("fsync", "rename", "replace", "unlink", "link", "mkdir"):
            counted(name)
"""
"""Kills a process before or after its n-th operation that outlives it."""


class FailedError(Exception):
    """A case that did not end as it must."""


@dataclass(kw_only=True)
class Case:
    """One experiment in a folder of its own, with its server; `heals` counts paragraphs whose command was followed."""

    folder: Path
    server: ModelServer
    rng: random.Random
    settings: tuple[str, ...]
    heals: int = 0
    lost: int = 0
    """Requests that may have been on their way when a process was killed."""
    ran: list[str] = field(default_factory=list)

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    def command(self, *more: str) -> list[str]:
        address = f"endpoints.generator.base_url={self.server.url}"
        return [sys.executable, "-m", "minilima", *self.settings, address, f"paths.outputs={self.outputs}", *more]

    def start(self, *more: str, command: list[str] | None = None, **environment: str) -> "subprocess.Popen[str]":
        site = self.folder / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(SITE)
        known = {
            **os.environ, "OPENAI_API_KEY": VALID_KEY, "COLUMNS": "4000", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
            "MINILIMA_CACHE": str(self.folder / "user"), "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        }  # fmt: skip
        return subprocess.Popen(
            command or self.command(*more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**known, **environment}, cwd=self.folder,
        )  # fmt: skip

    def end(self, process: "subprocess.Popen[str]") -> tuple[int, str]:
        """Exit status and what was printed; nothing of it may be a traceback."""
        try:
            said = process.communicate(timeout=SECONDS)[0]
        except subprocess.TimeoutExpired:
            kill(process)
            raise FailedError(f"it did not end within {SECONDS} seconds") from None
        self.ran.append(f"exit status {process.returncode}: {said[-1500:]}")
        if "Traceback (most recent call last)" in said:
            raise FailedError("a traceback was printed")
        return process.returncode, said

    def heal(self) -> None:
        """The same command until it succeeds; where it ends with a paragraph, what that says is done first."""
        for _ in range(MOST_HEALED + 1):
            status, said = self.end(self.start())
            if status == 0:
                return
            if status != 1 or self.heals == MOST_HEALED:
                raise FailedError(f"the same command ended with exit status {status}")
            self.heals += 1
            self.follow(said)

    def follow(self, said: str) -> None:
        """Does what a paragraph names."""
        if match := re.search(r"rm -r (\S+)", said):
            path = Path(shlex.split(match[1])[0].rstrip(".)"))
            if not path.is_relative_to(self.folder):
                raise FailedError(f"it names {path} to be removed")
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif match := re.search(r"minilima (doctor --repair \S+)", said):
            self.end(self.start(command=[sys.executable, "-m", "minilima", *shlex.split(match[1])]))
        elif "same command" not in said and "Run its command again" not in said:
            raise FailedError("the paragraph names no next command")


def kill(process: "subprocess.Popen[str]", *, everyone: bool = True) -> None:
    """Kills a command, and waits until its workers have noticed."""
    try:
        workers = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        workers = []
    process.kill()
    for worker in workers if everyone else []:
        worker.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=SECONDS)
    if alive:
        raise FailedError("a worker outlives its command")


_OF_TIMES = ("training_log.jsonl", "training_args.bin")
"""They tell how long steps took and where they were run."""


def _results(outputs: Path) -> dict[str, str]:
    """sha256 of every file of the store; a manifest's times and places are left out."""
    hashes = {}
    for file in sorted(outputs.glob("store/*-*/**/*")):
        if file.name == "manifest.json":
            manifest = json.loads(file.read_text(encoding="utf-8"))
            kept = {name: manifest[name] for name in ("stage", "key", "recipe", "inputs", "files", "metrics")}
            hashes[str(file.relative_to(outputs))] = json.dumps(_timeless(kept), sort_keys=True)
        elif file.is_file() and file.name not in _OF_TIMES:
            hashes[str(file.relative_to(outputs))] = sha256_file(file)
    return hashes


def _timeless(manifest: dict[str, Any]) -> dict[str, Any]:
    files = {
        name: sha for name, sha in dict(manifest["files"]).items() if name not in ("training_log.jsonl", "training_args.bin")
    }
    # How long and how fast the training was, and how it was cut into runs.
    metrics = {} if manifest["stage"] == "model" else manifest["metrics"]
    return {**manifest, "files": files, "metrics": metrics}


_WHOLE: dict[tuple[str, ...], dict[str, str]] = {}


def compare(case: Case) -> None:
    results, whole = _results(case.outputs), _WHOLE[_kind_of(case.settings)]
    if results.keys() != whole.keys():
        raise FailedError(f"other files: {sorted(results.keys() ^ whole.keys())[:4]}")
    if different := [name for name, text in whole.items() if results[name] != text]:
        raise FailedError(f"other contents: {different[:4]}")


def _kind_of(settings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(item for item in settings if not item.startswith("endpoints."))


def run_whole(settings: tuple[str, ...]) -> None:
    """The undisturbed run that the others are compared with."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, ModelServer() as server:
        server.answer = writer
        case = Case(folder=Path(folder), server=server, rng=random.Random(0), settings=settings)
        status, said = case.end(case.start())
        if status != 0:
            raise FailedError(said)
        _WHOLE[_kind_of(settings)] = _results(case.outputs)
