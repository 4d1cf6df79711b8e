"""GPUs of this machine, leased to one job at a time by a lock file each, so that jobs beside each other never share one.

    visible GPUs ─> locks in the temporary folder ─> CUDA_VISIBLE_DEVICES of the job's processes
The system frees a lock when its holder dies. Schedulers that give out GPUs themselves (Slurm, Ray) need no leases.
"""

import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from minilima.errors import MinilimaError

_LOOK_SECONDS = 0.5


def visible_gpus() -> list[str]:
    """Indices or names of the GPUs this process may use, without importing torch: $CUDA_VISIBLE_DEVICES, or nvidia-smi's."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        named = [item.strip() for item in visible.split(",")]
        # CUDA stops at the first entry that is none.
        return named[: next((index for index, item in enumerate(named) if item in ("", "-1")), len(named))]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(index) for index in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def may_have_gpu() -> bool:
    """Whether torch may see a GPU: one is listed, or a driver's device is there whose tools are not (containers, ROCm, WSL)."""
    if visible_gpus():
        return True
    hidden = "CUDA_VISIBLE_DEVICES" in os.environ
    return not hidden and any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))


@contextmanager
def leased(count: int, gpus: Sequence[str], on_wait: Callable[[], None] = lambda: None) -> Iterator[list[str]]:
    """Holds `count` of `gpus` until the block ends; yields which.

    Args:
        count: how many; nothing is held while fewer are free, so that two jobs never wait for each other.
        gpus: indices or names to choose from.
        on_wait: called once, before waiting.

    Raises:
        MinilimaError: there are not so many.
    """
    if count > len(gpus):
        raise MinilimaError(
            f"compute.gpus={count}, but this process may use {len(gpus)}.",
            "CUDA_VISIBLE_DEVICES and `nvidia-smi -L` show which.",
            f"Set compute.gpus={len(gpus)}, or run where there are more.",
        )
    folder = Path(tempfile.gettempdir()) / f"minilima-gpus-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    waiting = False
    while True:
        with ExitStack() as locks:
            held: list[str] = []
            for gpu in gpus:
                if len(held) < count and (lock := _taken(folder / f"{gpu.replace('/', '_')}.lock")):
                    locks.callback(lock.release)
                    held.append(gpu)
            if len(held) == count:
                yield held
                return
        if not waiting:
            on_wait()
            waiting = True
        time.sleep(_LOOK_SECONDS * random.uniform(0.5, 1.0))


def _taken(file: Path) -> FileLock | None:
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
