"""Tasks that share the cards of a machine: processes that stay, as many at once as their memory holds, until a time is over.

    tasks ─> a process each while there is time ─> "12.3 s  what was done" a line, or failed.txt
A process takes ten seconds to start and a training a few, so that the processes serve one task after the other.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

_FEWEST = 2
FIRST_GUESS_SECONDS = 90.0
"""How long a task may take, before one has ended."""


def _at_start(threads: int, log: Path, started: "Synchronized[int]", cards: int) -> None:
    """Of a process of the pool, which gets the next card; what libraries print goes to a file."""
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    if cards > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number % cards)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import transformers

    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one process does at a time."""

    call: Callable[..., str]
    arguments: tuple[Any, ...]
    kind: str
    """Tasks of one kind take about as long."""


@dataclass(kw_only=True)
class Clock:
    """The time of one call."""

    ends: float
    longest: dict[str, float] = field(default_factory=dict)
    """Seconds that a task of each kind took at most."""

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()

    def has_room(self, task: Task) -> bool:
        """Whether a task would still come to its end."""
        return self.left > 1.2 * self.longest.get(task.kind, FIRST_GUESS_SECONDS / 1.2)

    def ended(self, task: Task, seconds: float) -> None:
        self.longest[task.kind] = max(self.longest.get(task.kind, 0.0), seconds)


def run_all(tasks: Sequence[Task], clock: Clock, workers: int, folder: Path) -> bool:
    """Runs tasks beside each other while there is time; returns whether all are done. A failed one is listed and passed over."""
    rest, done, failed = list(tasks), 0, 0
    threads = max(1, (os.cpu_count() or 1) // workers)
    os.environ |= {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    spawn = multiprocessing.get_context("spawn")
    how = (threads, folder / "workers.log", spawn.Value("i", 0), torch.cuda.device_count())
    with ProcessPoolExecutor(min(workers, max(1, len(tasks))), mp_context=spawn, initializer=_at_start, initargs=how) as pool:
        running: dict[Future[str], tuple[Task, float]] = {}
        while rest or running:
            while len(running) < workers and (task := next(filter(clock.has_room, rest), None)):
                rest.remove(task)
                running[pool.submit(task.call, *task.arguments)] = (task, time.monotonic())
            if not running:
                break
            ended, _ = wait(running, timeout=max(1.0, clock.left), return_when=FIRST_COMPLETED)
            if not ended:
                print(f"{len(running)} tasks have not ended in time and are stopped; they begin again in the next call.")
                for process in list((pool._processes or {}).values()):
                    process.kill()
                break
            for future in ended:
                task, started = running.pop(future)
                seconds = time.monotonic() - started
                clock.ended(task, seconds)
                try:
                    print(f"{seconds:6.1f} s  {future.result()}  ({clock.left:.0f} s left, {len(rest)} waiting)", flush=True)
                    done += 1
                except BrokenProcessPool:
                    print("A process died, most often for want of memory: fewer --workers.", flush=True)
                    return False
                except Exception as error:
                    if "memory" in str(error) and workers > _FEWEST:
                        workers -= 1
                        rest.append(task)
                        print(f"No memory was left; it is tried again, with {workers} at once.", flush=True)
                        continue
                    failed += 1
                    with (folder / "failed.txt").open("a") as file:
                        file.write(f"{task.arguments}\n{type(error).__name__}: {error}\n\n")
                    print(f"FAILED after {seconds:.1f} s: {error}", flush=True)
    print(f"{done} done, {failed} failed, {len(rest)} not begun.", flush=True)
    return not rest and not running
