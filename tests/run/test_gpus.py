"""GPU leases: one holder a GPU, all or nothing, freed by a kill."""

import json
import multiprocessing
import os
import signal
import stat
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import pytest

from minilima.config.schema import ComputeConfig
from minilima.errors import MinilimaError
from minilima.run import gpus
from minilima.run.gpus import leased, visible_gpus
from minilima.run.launch import training_processes


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpus, "_LOOK_SECONDS", 0.02)


def _hold(folder: Path, count: int, begun: int) -> None:
    """Keeps its GPUs until so many jobs have had some, however long those take to begin."""
    tempfile.tempdir = str(folder)
    gpus._LOOK_SECONDS = 0.02
    with leased(count, ["0", "1", "2", "3"]) as held:
        started = time.monotonic()
        (folder / f"started-{os.getpid()}").write_text(" ".join(held))
        while len(list(folder.glob("started-*"))) < begun:
            time.sleep(0.01)
        (folder / f"ended-{os.getpid()}").write_text(json.dumps([held, started, time.monotonic()]))


def test_jobs_beside_each_other_never_share_a_gpu_and_a_killed_one_frees_its_own(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    killed = context.Process(target=_hold, args=(tmp_path, 2, 1_000_000))
    killed.start()
    while not list(tmp_path.glob("started-*")):
        time.sleep(0.01)
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    jobs = [context.Process(target=_hold, args=(tmp_path, 2, 3)) for _ in range(6)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(timeout=600)
    told = [json.loads(file.read_text()) for file in tmp_path.glob("ended-*")]
    spans = sorted((gpu, start, end) for held, start, end in told for gpu in held)
    assert len(spans) == 12 and {gpu for gpu, _, _ in spans} == {"0", "1", "2", "3"}
    for (gpu, _, end), (other, start, _) in pairwise(spans):
        assert gpu != other or end <= start


def test_a_wait_is_told_and_too_many_are_refused() -> None:
    class ToldError(Exception):
        """Cuts the wait short."""

    def on_progress() -> None:
        raise ToldError

    with leased(2, ["0", "1"]), pytest.raises(ToldError), leased(1, ["0", "1"], on_progress):
        pass
    with leased(1, ["0"]), leased(1, ["0", "1"], on_progress) as other:
        assert other == ["1"]
    with pytest.raises(MinilimaError, match=r"compute\.gpus=3, but this process may use 2"), leased(3, ["0", "1"]):
        pass


@pytest.mark.parametrize(("value", "seen"), [("0,1", ["0", "1"]), ("", []), ("-1", []), ("3,-1,2", ["3"]), ("GPU-a", ["GPU-a"])])
def test_the_gpus_of_the_environment_are_those_that_count(monkeypatch: pytest.MonkeyPatch, value: str, seen: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == seen


def test_without_the_variable_nvidia_smi_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert visible_gpus() == [] or Path("/dev/nvidia0").exists()
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: GPU-1)'\necho 'GPU 1: H100 (UUID: GPU-2)'\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    assert visible_gpus() == ["0", "1"]
    assert training_processes(ComputeConfig()) == 2
    assert training_processes(ComputeConfig(gpus=1)) == 1
