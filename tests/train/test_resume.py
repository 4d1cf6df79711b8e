"""A killed training resumes as if nothing had happened."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from minilima.run.launch import run_stage
from minilima.store.job import Job
from minilima.train.callbacks import mark_complete, newest_checkpoint
from tests.train.test_sft import job_of, losses, train

SETTINGS = ("sft.residual_dropout=0.3", "compute.checkpoint_seconds=0")
DIVIDED = ("sft=lora", "sft.batch_size=4", "sft.lora_dropout=0.1", "compute.processes=2", "compute.zero_stage=2")


WORKER = """
import os, signal, sys
from pathlib import Path
from minilima.train import callbacks

plain = callbacks.mark_complete

def mark_complete(checkpoint):
    plain(checkpoint)
    if checkpoint.name == "checkpoint-4":
        os.kill(os.getpid(), signal.SIGSTOP)

callbacks.mark_complete = mark_complete
from minilima.run.worker import main
os._exit(main(sys.argv[1]))
"""
"""Stops by itself at the first checkpoint of the second epoch, so that it cannot be done before it is killed."""


def kill_in_second_epoch(job: Job) -> Path:
    """Starts the training, kills it once the second epoch has a checkpoint, and returns the newest."""
    file, program = job.scratch / "job.json", job.scratch / "worker.py"
    file.write_text(job.to_json())
    program.write_text(WORKER)
    processes = job.config.compute.processes or 1
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *torchrun, str(program), str(file)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = psutil.Process(worker.pid)
    while not any(process.status() == psutil.STATUS_STOPPED for process in [started, *started.children(recursive=True)]):
        assert worker.poll() is None, "the training ended before it could be killed"
        time.sleep(0.1)
    everyone = [*started.children(recursive=True), started]
    for process in everyone:
        process.kill()
    worker.wait()
    psutil.wait_procs(everyone, timeout=600)
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
    run_stage(job, lambda progress: None)
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


def test_older_checkpoints_are_removed_once_a_newer_one_is_whole(tmp_path: Path) -> None:
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"x")
        mark_complete(tmp_path / f"checkpoint-{step}")
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-4"]
