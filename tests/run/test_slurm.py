"""The job script for several machines, with stand-ins for Slurm's commands: what it runs, and that its dry run trains nothing."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_INS = {
    "scontrol": 'printf "gpu01\\ngpu02\\n"',
    "srun": 'for machine in gpu01 gpu02; do "${@:2}"; done',  # what stands after --ntasks-per-node=1
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a job of two nodes."""
    for name, script in STAND_INS.items():
        command = tmp_path / name
        command.write_text(f"#!/bin/bash\n{script}\n")
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NODELIST": "gpu[01-02]",
    }


def submit(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    script = ROOT / "experiments" / "slurm" / "multinode.sbatch"
    return subprocess.run(
        ["bash", str(script), *arguments], env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def test_a_dry_run_shows_machines_and_plan_and_trains_nothing(tmp_path: Path, slurm: dict[str, str]) -> None:
    arguments = ["+experiment=quickstart", "compute.zero_stage=3", "sft.epochs=2", f"paths.outputs={tmp_path}/new"]
    # quickstart chooses a group of compute itself; the script's choice, given later, wins.
    result = submit({**slurm, "DRY_RUN": "1"}, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "machines: gpu01 gpu02" in result.stdout
    assert result.stdout.count("has minilima") == 2
    assert "2 epochs" in " ".join(result.stdout.split())
    assert not (tmp_path / "new").exists()


def test_a_mistake_ends_the_job_with_its_paragraph(slurm: dict[str, str]) -> None:
    result = submit(slurm, "sft.epoch=2")
    assert result.returncode == 1 and "Did you mean sft.epochs" in result.stderr and "Traceback" not in result.stderr
