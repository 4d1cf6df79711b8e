"""End to end: the real command, killed in every stage and started again; and the quickstart on the embedded model."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from minilima.models.packaged import is_fetched
from tests.generate.test_pool import writer
from tests.server import VALID_KEY, ModelServer

SCORED = ["minilima_verifiable_base", "minilima_verifiable_tuned"]
STAGES = ["pool", "dataset", "model", "base_answers", "answers", *SCORED, "verdicts"]
SMALL = [
    "+experiment=quickstart", "dataset.size=12", "sft.batch_size=4", "compute.checkpoint_seconds=0", "eval_set.size=3",
    "eval.max_tokens=12", "benchmark.size=4", "benchmark.max_tokens=6",
]  # fmt: skip
WRITTEN_HERE = [
    "data.instructions=2", "data.requests_per_round=2", "data.max_rounds=2", "data.must_ask=false",
    "data.instruction_tokens=40", "data.instance_tokens=20", "compute.checkpoint_seconds=900",
]  # fmt: skip
WRITTEN_THERE = [
    "generator=openai", "generator.model=writer-small", "generator.json_schema=false", "data.instructions=6",
    "data.requests_per_round=2", "data.instructions_per_request=3", "judge.embedding_weight=0",
]  # fmt: skip
FETCHED = is_fetched("smollm2_135m") and is_fetched("all_minilm_l6_v2")

pytestmark = pytest.mark.slow


SITE = """
import os, sys
if "STOP_IN" in os.environ:
    import json, pathlib, signal, threading, time
    jobs = pathlib.Path("outputs/store/.work")

    def reached(job):
        return json.loads(job.read_text())["role"] == os.environ["STOP_IN"] and list(job.parent.glob(os.environ["STOP_AT"]))

    def watch():
        while not any(reached(job) for job in jobs.glob("*/scratch/job.json")):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGSTOP)

    def begin():
        threading.Thread(target=watch, daemon=True).start()

    if "minilima.run.worker" in sys.orig_argv:
        begin()
    if "minilima.run.fork" in sys.orig_argv:
        os.register_at_fork(after_in_child=begin)
"""
"""Stops the worker of one stage from within, a moment into its work, so that it cannot be done before it is killed."""


def start(folder: Path, settings: Sequence[str], **variables: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "minilima", *SMALL, *settings]
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join([str(folder / "site"), os.environ["PYTHONPATH"]])
    environment = {**os.environ, "WANDB_MODE": "offline", "OPENAI_API_KEY": VALID_KEY, "PYTHONPATH": path, **variables}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment)


def kill_in(stage: str, folder: Path, settings: Sequence[str]) -> list[str]:
    """Starts the command, kills it with SIGKILL a moment into `stage`, and returns the stages it built before."""
    # The worker has its job; the training has a checkpoint.
    process = start(folder, settings, STOP_IN=stage, STOP_AT="checkpoints/*/complete" if stage == "model" else "worker.lock")
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith(f"{stage}: started"):
            break
    parent = psutil.Process(process.pid)
    while not any(child.status() == psutil.STATUS_STOPPED for child in parent.children(recursive=True)):
        assert process.poll() is None, "".join(seen)
        time.sleep(0.1)
    workers = parent.children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for worker in workers:
        worker.resume()
    _, alive = psutil.wait_procs(workers, timeout=600)
    assert alive == [], "a worker must not outlive its parent"
    return [line.split()[0] for line in seen if " built in " in line]


def test_the_command_survives_a_kill_in_every_stage_and_computes_nothing_twice(
    tmp_path: Path, tiny_model: Path, server: ModelServer
) -> None:
    server.answer = writer
    settings = [*WRITTEN_THERE, f"model.path={tiny_model}", f"endpoints.generator.base_url={server.url}", "tracking=none"]
    for number, stage in enumerate(STAGES):
        built = kill_in(stage, tmp_path, settings)
        assert built == STAGES[max(0, number - 1) : number], "only the stage that was killed last is built again"
    output = ended(start(tmp_path, settings))
    assert "verdicts           built in" in output
    assert output.count(" built in ") == 1
    asked = [json.dumps(body, sort_keys=True) for body in server.requests]
    assert len(asked) == len(set(asked)), "what was answered is not asked again"
    told = told_by(tmp_path)
    assert told["results"]["win_rate"]["judged"] == 3
    model = next(tmp_path.glob("outputs/store/model-*"))
    assert len((model / "training_log.jsonl").read_text().splitlines()) == 3 == told["stages"][2]["metrics"]["steps"]
    assert list(tmp_path.glob("outputs/store/.work/*")) == []


@pytest.mark.skipif(not FETCHED, reason="`minilima fetch` first")
def test_the_quickstart_killed_while_it_unpacks_its_model_ends_with_its_figures(tmp_path: Path) -> None:
    assert kill_in("base", tmp_path, WRITTEN_HERE) == []
    output = ended(start(tmp_path, WRITTEN_HERE))
    assert output.count(" built in ") == 1 + len(STAGES)
    assert "Win rate" in output and "against its base" in output
    assert "no judge" in output
    assert "wandb sync" in output
    told = told_by(tmp_path)
    assert told["results"]["win_rate"]["judged"] == 3
    assert told["results"]["loss_change"]["change"]["value"] < 0, "the reference answers become less surprising"
    with sqlite3.connect(tmp_path / "outputs" / "cache" / "replies.sqlite") as database:
        (replies,) = database.execute("SELECT count(*) FROM replies").fetchone()
    assert replies > 6
    assert "Everything was reused" in ended(start(tmp_path, WRITTEN_HERE))


def ended(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def told_by(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(next(folder.glob("outputs/runs/*/run.json")).read_text())
    return told
