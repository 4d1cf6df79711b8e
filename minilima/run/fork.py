"""A process that has torch and transformers imported and forks for each stage: their import, seconds, is paid once a run.

    python -m minilima.run.fork FD      # started by `fork_worker`; FD is a socket to the process that asks

    job, environment, ends of pipes ─> fork ─> worker.main(job) ─> its exit status
A forked process begins as a fresh one would, for nothing is computed before the fork. It stops with whoever asked for it, as a
fresh one does. Where there may be a GPU nothing is forked: CUDA does not outlive it.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TextIO

from minilima.run.gpus import may_have_gpu

_PACKET_BYTES = 200_000
"""Below what Linux takes in one packet; a longer environment gets a process of its own."""


class Forked:
    """A forked process, with what launch.py uses of a Popen."""

    def __init__(self, pid: int, stdin: TextIO, stdout: TextIO, control: socket.socket) -> None:
        self.pid, self.stdin, self.stdout = pid, stdin, stdout
        self._control = control
        self._status: int | None = None

    def wait(self) -> int:
        """Its exit status; that of a SIGKILL where the process that forked it is gone."""
        if self._status is None:
            answer = self._control.recv(_PACKET_BYTES)
            self._status = int(answer) if answer else -signal.SIGKILL
        return self._status

    def kill(self) -> None:
        """Ends it at once."""
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class _Forker:
    """The process that forks, and our end of the socket to it."""

    def __init__(self, environment: Mapping[str, str], log: TextIO) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "minilima.run.fork", str(theirs.fileno())]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=[theirs.fileno()]
            )
        atexit.register(self.end)

    def end(self) -> None:
        atexit.unregister(self.end)
        self.control.close()
        self.process.wait()


_forker: _Forker | None = None


def can_fork() -> bool:
    """Whether stages may be forked here: Linux, no GPU."""
    return sys.platform == "linux" and not may_have_gpu()


def fork_worker(job_file: Path, environment: Mapping[str, str], log: TextIO, *, start: bool) -> Forked | None:
    """A process that builds the job; None where it needs one of its own.

    Args:
        job_file: of the worker.
        environment: all of it.
        log: where its standard error goes.
        start: whether to start the process that forks, where there is none yet.
    """
    global _forker
    request = json.dumps([str(job_file.absolute()), dict(environment)]).encode()
    if len(request) > _PACKET_BYTES or (_forker is None and not start):
        return None
    if _forker is None:
        _forker = _Forker(environment, log)
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    stdin, stdout = os.fdopen(ours_in, "w"), os.fdopen(ours_out)
    try:
        socket.send_fds(_forker.control, [request], [theirs_in, theirs_out, log.fileno()])
        pid = _forker.control.recv(_PACKET_BYTES)
    except OSError:
        pid = b""
    finally:
        os.close(theirs_in)
        os.close(theirs_out)
    if pid:
        return Forked(int(pid), stdin, stdout, _forker.control)
    stdin.close()
    stdout.close()
    end()  # it was killed, or could not import: a process of the stage's own says why
    return None


def end() -> None:
    """Ends the process that forks, if there is one."""
    global _forker
    if _forker is not None:
        _forker.end()
        _forker = None


def _serve(control: socket.socket) -> None:
    """Forks for each request until whoever asks is gone; one at a time."""
    # Ctrl-C at a terminal reaches this process too: who asks decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import minilima.models.local
    import minilima.run.worker  # noqa: F401

    while True:
        request, ends, _, _ = socket.recv_fds(control, _PACKET_BYTES, 3)
        if not request:
            return
        job_file, environment = json.loads(request)
        if (pid := os.fork()) == 0:
            control.close()
            _become_worker(job_file, environment, ends)
        for end_of_pipe in ends:
            os.close(end_of_pipe)
        with suppress(BrokenPipeError):
            control.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):
            control.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become_worker(job_file: str, environment: dict[str, str], ends: list[int]) -> NoReturn:
    """Builds the job in this process, and ends it."""

    def build() -> int:
        for number, end_of_pipe in enumerate(ends):
            os.dup2(end_of_pipe, number)
            os.close(end_of_pipe)
        os.environ.clear()
        os.environ.update(environment)
        from minilima.run.worker import main

        return main(job_file)

    end_with(build)


def end_with(build: Callable[[], int]) -> NoReturn:
    """Ends this forked process with the status that `build` returns; with 1 and a traceback where it raises."""
    status = 1
    try:
        status = build()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as asked_through:
        _serve(asked_through)
