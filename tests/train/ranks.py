"""Ranks of a training as torchrun starts them, forked from one process that has imported torch: each import takes seconds.

python -m tests.train.ranks         # started by `Ranks`, once for all tests of a process

job, world, last checkpoint ─> fork for each rank ─> worker.main(job) ─> exit statuses
"""

import json
import os
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NoReturn

from minilima.run.fork import end_with
from minilima.run.launch import _environment, _events
from minilima.store.job import Job, Outcome


def free_port() -> int:
    """One that nobody uses just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


class Ranks:
    """The ranks of one training; `stop_at` names the checkpoint at which each stops itself, so that it can be killed there."""

    def __init__(self, job: Job, stop_at: str = "") -> None:
        self._events = job.scratch / "events"
        file = job.scratch / "job.json"
        file.write_text(job.to_json())
        world = job.config.compute.processes or 1
        self._server = _server()
        assert self._server.stdin is not None and self._server.stdout is not None
        request = {"job": str(file), "world": world, "stop_at": stop_at, "environment": _environment(job)}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        self.pids: list[int] = json.loads(self._server.stdout.readline())

    def wait(self) -> list[int]:
        """Their exit statuses."""
        assert self._server.stdout is not None
        statuses: list[int] = json.loads(self._server.stdout.readline())
        return statuses

    def outcome(self) -> Outcome:
        """What rank 0 said in the end; raises what it raised."""
        statuses = self.wait()
        events = list(_events(self._events.read_text().splitlines()))
        for event in events:
            if isinstance(event, Exception):
                raise event
        assert set(statuses) == {0}, self._events.with_name("log.txt").read_text()
        assert isinstance(events[-1], Outcome)
        return events[-1]


@cache
def _server() -> "subprocess.Popen[str]":
    """Ends by itself with the process that asked for it."""
    command = [sys.executable, "-m", "tests.train.ranks"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print
    import deepspeed  # noqa: F401
    import transformers.integrations.deepspeed  # noqa: F401

    import minilima.run.worker
    import minilima.train.sft  # noqa: F401

    lives, ours = os.pipe()  # a worker ends when its standard input does
    for line in sys.stdin:
        request = json.loads(line)
        port, pids = free_port(), []
        for rank in range(request["world"]):
            if (pid := os.fork()) == 0:
                os.close(ours)
                os.dup2(lives, 0)
                _become(rank, port, request)
            pids.append(pid)
        answers.write(json.dumps(pids) + "\n")
        answers.write(json.dumps(_ended(pids)) + "\n")


def _ended(pids: list[int]) -> list[int]:
    """Their exit statuses; once one has failed, the others, which would wait half an hour for it, are killed."""
    statuses: dict[int, int] = {}
    while len(statuses) < len(pids):
        pid, status = os.wait()
        if pid in pids:
            statuses[pid] = os.waitstatus_to_exitcode(status)
        if statuses.get(pid):
            for other in set(pids) - set(statuses):
                os.kill(other, signal.SIGKILL)
    return [statuses[pid] for pid in pids]


def _become(rank: int, port: int, request: dict[str, object]) -> NoReturn:
    """Builds the job as that rank, and ends."""
    from minilima.run import worker
    from minilima.train import callbacks, trainer

    file, world = Path(str(request["job"])), str(request["world"])

    def mark_complete(checkpoint: Path) -> None:
        callbacks.mark_complete(checkpoint)
        if checkpoint.name == request["stop_at"]:
            os.kill(os.getpid(), signal.SIGSTOP)

    def build() -> int:
        for number, name in ((1, "events" if rank == 0 else "log.txt"), (2, "log.txt")):
            os.dup2(os.open(file.with_name(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
        os.environ.clear()
        os.environ.update(request["environment"])  # type: ignore[call-overload]
        if world != "1":
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
            os.environ.update(place, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
            worker.RANK = rank
        trainer.mark_complete = mark_complete  # type: ignore[attr-defined]
        return worker.main(str(file))

    end_with(build)


if __name__ == "__main__":
    _serve()
