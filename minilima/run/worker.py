"""The process in which one stage is built: it reads a job, does the work, and reports in JSON lines.

    python -m minilima.run.worker JOB.json          # started by launch.py; under torchrun for several training processes

Standard output carries only events (`{"progress": …}`, `{"outcome": …}`, `{"error": …}`); whatever libraries print goes
to the stage's log. When the parent ends or dies, standard input closes and the worker stops, so that two never build in one
directory; replies in flight are awaited before.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TextIO

from filelock import FileLock

from minilima.errors import explain
from minilima.models.in_flight import LAST_SECONDS, stop
from minilima.run.stages import spec_of
from minilima.store.job import Job

RANK = int(os.environ.get("RANK", "0"))


def main(job_file: str) -> int:
    """Builds the job's stage; returns the exit status (1: an error that the user can fix was reported)."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Ctrl-C at a terminal reaches this process too: its parent decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def emit(kind: str, value: object) -> None:
        if RANK == 0:
            content = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            with suppress(OSError):  # the parent may be gone
                _write_line(events, {kind: content})

    threading.Thread(target=_stop_with_parent, args=(emit,), daemon=True).start()
    job = Job.from_json(Path(job_file).read_text(encoding="utf-8"))
    try:
        if RANK == 0:
            # An orphaned worker may need a moment to notice that its parent has died.
            FileLock(job.scratch / "worker.lock").acquire(timeout=LAST_SECONDS + 15)
        outcome = spec_of(job.kind).build(job, lambda progress: emit("progress", progress))
    except Exception as error:
        if (mistake := explain(error)) is None:
            raise
        emit("error", {"what": mistake.what, "why": mistake.why, "fix": mistake.fix})
        return 1
    except KeyboardInterrupt:  # asked to end, and nothing is in flight any more
        return 1
    emit("outcome", outcome)
    return 0


def _write_line(events: TextIO, event: dict[str, object]) -> None:
    events.write(json.dumps(event, ensure_ascii=False) + "\n")
    events.flush()


def _stop_with_parent(emit: Callable[[str, object], None]) -> None:
    while os.read(0, 1024):
        pass
    stop(LAST_SECONDS, lambda count: emit("in_flight", count))
    os._exit(1)


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stderr.flush()
    # Skips the interpreter's tear-down, in which torch and DeepSpeed may abort a finished process.
    os._exit(status)
