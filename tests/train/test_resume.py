"""A killed training resumes as if nothing had happened."""

import json
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from minilima.store.job import Job
from minilima.train.callbacks import mark_complete, newest_checkpoint
from tests.train.ranks import Ranks
from tests.train.test_sft import job_of, losses, train

SETTINGS = ("sft.residual_dropout=0.3", "compute.checkpoint_seconds=0")
DIVIDED = ("sft=lora", "sft.batch_size=4", "sft.lora_dropout=0.1", "compute.processes=2", "compute.zero_stage=2")


def kill_in_second_epoch(job: Job) -> Path:
    """Starts the training, kills it at the first checkpoint of its second epoch, and returns the newest."""
    ranks = Ranks(job, stop_at="checkpoint-4")
    processes = [psutil.Process(pid) for pid in ranks.pids]
    try:
        while (said := {process.status() for process in processes}) and psutil.STATUS_STOPPED not in said:
            assert psutil.STATUS_ZOMBIE not in said, "it ended before it could be killed"
            time.sleep(0.05)
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # the first to go takes the others along
                process.kill()
    assert set(ranks.wait()) == {-signal.SIGKILL}
    newest = newest_checkpoint(job.scratch / "checkpoints")
    assert newest is not None
    return Path(newest)


def same(one: Path, two: Path) -> bool:
    first, second = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (one, two))
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("settings", [SETTINGS, (*SETTINGS, *DIVIDED)], ids=["full", "adapters under ZeRO 2"])
def test_a_training_killed_in_its_second_epoch_ends_as_if_it_had_not_been(
    tmp_path: Path, tiny_model: Path, settings: tuple[str, ...]
) -> None:
    _, whole = train(tmp_path / "whole", tiny_model, *settings)
    job = job_of(tmp_path / "killed", tiny_model, *settings)
    newest = kill_in_second_epoch(job)
    # As a kill during a save leaves it: the next checkpoint is begun and its optimizer cut short.
    begun = newest.with_name("checkpoint-6")
    shutil.copytree(newest, begun)
    (begun / "complete").unlink()
    Ranks(job).outcome()
    assert losses(job.work) == losses(whole)
    assert same(whole, job.work)
    assert len(losses(whole)) == 6 and newest.name == "checkpoint-4", "it was killed in its second epoch"


def test_a_checkpoint_that_is_not_whole_is_not_taken(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "optimizer.pt").write_bytes(b"x" * 100)
        (folder / "complete").write_text(json.dumps({"optimizer.pt": 100}))
    (tmp_path / "checkpoint-8" / "complete").unlink()
    (tmp_path / "checkpoint-6" / "optimizer.pt").write_bytes(b"x" * 60)
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    assert not (tmp_path / "checkpoint-6").exists() and not (tmp_path / "checkpoint-8").exists()
    assert newest_checkpoint(tmp_path / "nothing") is None


def test_a_checkpoint_that_rank_0_is_removing_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    for step, names in ((2, ("optimizer.pt",)), (4, ("optimizer.pt", "global_step4/states.pt"))):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "optimizer.pt").write_bytes(b"x" * 100)
        (folder / "complete").write_text(json.dumps(dict.fromkeys(names, 100)))
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert (tmp_path / "checkpoint-4").is_dir()


def test_older_checkpoints_are_removed_once_a_newer_one_is_whole(tmp_path: Path) -> None:
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"x")
        mark_complete(tmp_path / f"checkpoint-{step}")
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-4"]
