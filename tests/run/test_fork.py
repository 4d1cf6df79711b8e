"""Workers forked from one process: each has its own environment and log, and ends as a process of its own would."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from minilima.config.compose import load_config
from minilima.run import fork
from minilima.run.sources import resolve
from minilima.store.job import SCRATCH, Job

pytestmark = pytest.mark.skipif(not fork.can_fork(), reason="nothing is forked here")


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    fork.end()


def job_in(folder: Path) -> Job:
    """The stage that makes a data set, without the pool that it is made from."""
    (folder / SCRATCH).mkdir(parents=True)
    config = load_config(["+experiment=quickstart"])
    inputs = {"pool": folder / "nothing"}
    job = Job(
        kind="dataset", role="dataset", key="k", work=folder, inputs=inputs, config=config, sources=resolve(config),
        cache=folder / "cache.sqlite",
    )  # fmt: skip
    (job.scratch / "job.json").write_text(job.to_json())
    return job


def begun(job: Job, **variables: str) -> fork.Forked:
    with (job.scratch / "log.txt").open("w") as log:
        process = fork.fork_worker(job.scratch / "job.json", {**os.environ, **variables}, log, start=True)
    assert process is not None
    return process


def test_workers_of_one_process_have_their_own_environment_and_log_and_end_alone(tmp_path: Path) -> None:
    first, second, third = (job_in(tmp_path / name) for name in ("first", "second", "third"))
    with FileLock(first.scratch / "worker.lock"):  # it waits for it
        process = begun(first, MINE="first")
        forker = psutil.Process(process.pid).parent()
        assert forker is not None
        process.kill()
        assert process.wait() == -signal.SIGKILL
    process = begun(second, MINE="second")
    assert psutil.Process(process.pid).ppid() == forker.pid, "what forked the first, which was killed, forks the second"
    assert process.stdout.read() == "" and process.wait() == 1
    assert "nothing" in (second.scratch / "log.txt").read_text(), "the log says why, as a fresh process's does"
    with FileLock(third.scratch / "worker.lock"):
        process = begun(third)
        process.stdin.close()
        assert process.wait() == 1, "it stops with whoever asked for it"
    fork.end()
    assert not forker.is_running()


def test_where_the_process_that_forks_was_killed_a_stage_gets_one_of_its_own(tmp_path: Path) -> None:
    job = job_in(tmp_path / "first")
    with FileLock(job.scratch / "worker.lock"):
        process = begun(job)
        forker = psutil.Process(process.pid).parent()
        assert forker is not None
        forker.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdin.close()
    with (tmp_path / "log").open("w") as log:
        assert fork.fork_worker(job.scratch / "job.json", os.environ, log, start=True) is None
