"""Work that is paid for while it is under way: a process that is asked to end finishes it first, so that nothing is paid twice.

with in_flight(): send, receive, keep        # many at once
is_stopping() ─> send nothing more           # asked by whoever sends
stop(seconds) ─> waits until nothing is in flight, or the time is up
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LAST_SECONDS = 45.0
"""So long replies in flight are awaited at the end of a process."""

_stopping = threading.Event()
_changed = threading.Condition()
_count = 0


@contextmanager
def in_flight() -> Iterator[None]:
    """For as long as one request and the keeping of its reply take."""
    global _count
    with _changed:
        _count += 1
    try:
        yield
    finally:
        with _changed:
            _count -= 1
            _changed.notify_all()


def is_stopping() -> bool:
    """Whether this process was asked to end."""
    return _stopping.is_set()


def stop(seconds: float, on_wait: Callable[[int], None] = lambda count: None) -> None:
    """Asks for the end, and waits until nothing is in flight, at most so long.

    Args:
        seconds: the longest wait.
        on_wait: called with how many are in flight, where some are.
    """
    _stopping.set()
    with _changed:
        if _count:
            on_wait(_count)
        _changed.wait_for(lambda: _count == 0, timeout=seconds)
