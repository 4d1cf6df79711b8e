"""Training on several machines: the right commands in the right places, and one result."""

import os
from pathlib import Path

import pytest

from minilima.config.schema import ComputeConfig
from minilima.errors import MinilimaError
from minilima.formats.files import read_jsonl
from minilima.run.hosts import Machine, machines, processes_each, read_hostfile, torchrun
from tests.train.ranks import free_port
from tests.train.test_sft import launch, train


def program(folder: Path, name: str, script: str) -> None:
    """Puts a program of that name on the test's path."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_a_hostfile_is_read_as_deepspeed_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# ours\ngpu1 slots=8\n\ngpu2 slots=8  # the old one\n")
    assert read_hostfile(file) == [Machine(name="gpu1", slots=8), Machine(name="gpu2", slots=8)]
    assert processes_each(read_hostfile(file), here=1) == 8
    for line in ("gpu1 slots=", "gpu1 8", "gpu1 slots=0", "-oProxyCommand=x slots=1"):
        file.write_text(line + "\n")
        with pytest.raises(MinilimaError, match="Line 1"):
            read_hostfile(file)


def test_machines_that_are_missing_or_unlike_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    with pytest.raises(MinilimaError, match=r"compute\.hostfile"):
        machines(ComputeConfig(nodes=2))
    hosts = tmp_path / "hosts"
    hosts.write_text("gpu1 slots=8\ngpu2 slots=4\n")
    with pytest.raises(MinilimaError, match="asks for more"):
        machines(ComputeConfig(nodes=3, hostfile=str(hosts)))
    with pytest.raises(MinilimaError, match="different numbers of slots"):
        processes_each(machines(ComputeConfig(nodes=None, hostfile=str(hosts))), here=1)
    assert machines(ComputeConfig(nodes=1, hostfile=str(hosts))) == []


def test_in_a_slurm_job_srun_starts_torchrun_on_every_node(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(path, "scontrol", 'echo "node-1"; echo "node-2"')
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node-[1-2]")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    compute = ComputeConfig(nodes=None)
    commands = torchrun(machines(compute), 4, compute, ["-m", "minilima.run.worker", "job.json"], {})
    assert commands.others == ()
    text = " ".join(commands.first)
    assert text.startswith("srun --nodes=2 --ntasks=2 --ntasks-per-node=1")
    assert "--nnodes=2" in text and "--nproc-per-node=4" in text and "--rdzv-endpoint=node-1:29500" in text
    assert text.endswith("-m minilima.run.worker job.json")


def test_no_secret_is_told_to_another_machine(tmp_path: Path) -> None:
    hosts = [Machine(name="a"), Machine(name="b")]
    environment = {"OPENAI_API_KEY": "sk-1", "HF_TOKEN": "hf-2", "NCCL_DEBUG": "INFO", "PYTHONPATH": "/x y"}
    commands = torchrun(hosts, 1, ComputeConfig(hostfile="hosts"), ["job.json"], environment)
    (other,) = commands.others
    assert other[:4] == ["ssh", "-o", "BatchMode=yes", "b"]
    assert "NCCL_DEBUG=INFO" in other[-1] and "'PYTHONPATH=/x y'" in other[-1]
    assert "sk-1" not in other[-1] and "hf-2" not in other[-1]


def test_two_machines_learn_what_one_learns(path: Path, tiny_model: Path) -> None:
    program(path, "ssh", 'shift 3; exec sh -c "$1"')
    hosts = path / "hosts"
    hosts.write_text("127.0.0.1\nlocalhost\n")
    _, one = train(path / "one", tiny_model)
    meeting = f"compute.rendezvous=127.0.0.1:{free_port()}"
    settings = (f"compute.hostfile={hosts}", "compute.nodes=null", meeting, "compute.zero_stage=1")
    outcome, two = launch(path / "two", tiny_model, *settings)
    assert outcome.metrics["processes"] == 2
    losses = [[row["loss"] for row in read_jsonl(work / "training_log.jsonl")] for work in (one, two)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_a_machine_that_cannot_be_reached_stops_the_training(path: Path, tiny_model: Path) -> None:
    program(path, "ssh", 'echo "ssh: connect to host b port 22: No route to host" >&2; exit 255')
    hosts = path / "hosts"
    hosts.write_text("127.0.0.1\nb\n")
    with pytest.raises(MinilimaError, match="No route to host"):
        launch(path, tiny_model, f"compute.hostfile={hosts}", "compute.nodes=2", f"compute.rendezvous=127.0.0.1:{free_port()}")
