"""End to end: the real command on the embedded model, killed in every stage and started again."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from minilima.models.packaged import is_fetched

STAGES = ["base", "pool", "dataset", "model", "base_answers", "answers", "verdicts"]
SMALL = [
    "+experiment=quickstart", "data.instructions=2", "data.requests_per_round=2", "data.max_rounds=1", "dataset.size=12",
    "sft.batch_size=4", "compute.checkpoint_seconds=0", "eval_set.size=3", "eval.max_tokens=12",
]  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (is_fetched("smollm2_135m") and is_fetched("all_minilm_l6_v2")), reason="`minilima fetch` first"),
]


def start(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "minilima", *SMALL]
    environment = {**os.environ, "WANDB_MODE": "offline"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment)


def kill_in(stage: str, folder: Path) -> list[str]:
    """Starts the command, kills it with SIGKILL a moment into `stage`, and returns the stages it built before."""
    process = start(folder)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith(f"{stage}: started"):
            break
    work = folder / "outputs" / "store" / ".work"
    deadline = time.monotonic() + 60
    # A moment into the work: the worker has its job; the training has a checkpoint.
    sign = "scratch/checkpoints/*/complete" if stage == "model" else "scratch/worker.lock"
    while not list(work.glob(f"*/{sign}")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == [], "a worker must not outlive its parent"
    return [line.split()[0] for line in seen if " built in " in line]


def test_the_command_survives_a_kill_in_every_stage_and_computes_nothing_twice(tmp_path: Path) -> None:
    for number, stage in enumerate(STAGES):
        built = kill_in(stage, tmp_path)
        assert built == STAGES[max(0, number - 1) : number], "only the stage that was killed last is built again"
    process = start(tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "verdicts           built in" in output
    assert output.count(" built in ") == 1
    assert "Win rate of the tuned model against its base:" in output
    assert "no judge involved" in output
    assert "wandb sync" in output

    told = json.loads(next(tmp_path.glob("outputs/runs/*/run.json")).read_text())
    results = told["results"]
    assert results["win_rate"]["judged"] == 3
    assert results["loss_change"]["change"]["value"] < 0, "the reference answers become less surprising"
    model = next(tmp_path.glob("outputs/store/model-*"))
    assert len((model / "training_log.jsonl").read_text().splitlines()) == 3 == told["stages"][3]["metrics"]["steps"]
    with sqlite3.connect(tmp_path / "outputs" / "cache" / "replies.sqlite") as database:
        (replies,) = database.execute("SELECT count(*) FROM replies").fetchone()
    assert replies > 6
    assert list(tmp_path.glob("outputs/store/.work/*")) == []

    again = start(tmp_path)
    output, _ = again.communicate(timeout=60)
    assert "Everything was reused" in output
