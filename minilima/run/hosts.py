"""Training on several machines: which they are, and the commands that start torchrun on each of them.

Inside a Slurm job `srun` starts torchrun on every machine of it. With a hostfile this machine is the first one; the others
are reached by ssh, in the same folder and with the same Python, and see the same outputs/. Either way the first
process reports to the pipeline, which runs once.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minilima.config.schema import ComputeConfig
from minilima.errors import MinilimaError

PORT = 29500

# Environment variables that are sent to the other machines; none that may hold a secret.
_PASSED_ON = ("PYTHONPATH", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "MINILIMA_CACHE", "OMP_NUM_THREADS")
_PASSED_ON_PREFIXES = ("NCCL_", "GLOO_", "TORCH_", "PYTORCH_")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine. `slots`: its training processes, None where that was not said."""

    name: str
    slots: int | None = None


@dataclass(frozen=True, kw_only=True)
class Commands:
    """What to start: `first` here, whose output is read, and the `others`, which run for as long."""

    first: list[str]
    others: tuple[list[str], ...] = ()


def machines(compute: ComputeConfig) -> list[Machine]:
    """The machines that train together, this one first; empty where it trains alone.

    Raises:
        MinilimaError: several were asked for and are neither listed nor part of a Slurm job, or there are fewer.
    """
    if compute.nodes == 1:
        return []
    if compute.hostfile is not None:
        machines = read_hostfile(Path(compute.hostfile).expanduser())
    elif "SLURM_JOB_NODELIST" in os.environ:
        machines = [Machine(name=name) for name in _slurm_nodes(os.environ["SLURM_JOB_NODELIST"])]
    else:
        raise MinilimaError(
            "It is not known which machines train together.",
            f"compute.nodes={'null' if compute.nodes is None else compute.nodes} needs a Slurm job or a list of machines.",
            "Run it inside a Slurm job of several nodes, name a list with compute.hostfile=…, or set compute.nodes=1.",
        )
    if compute.nodes is not None and len(machines) < compute.nodes:
        raise MinilimaError(
            f"There are {len(machines)} machines, and compute.nodes={compute.nodes} asks for more.",
            f"They are: {', '.join(machine.name for machine in machines)}.",
            "Ask Slurm for more nodes, complete the list, or lower compute.nodes.",
        )
    chosen = machines[: compute.nodes]
    return chosen if len(chosen) > 1 else []


def read_hostfile(path: Path) -> list[Machine]:
    """A list in DeepSpeed's format: `name slots=8` a line; slots may be left out; # begins a comment."""
    if not path.is_file():
        raise MinilimaError(f"There is no file {path}.", "compute.hostfile names the machines that train.", "Correct the path.")
    machines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, *rest = words
        slots = rest[0].removeprefix("slots=") if len(rest) == 1 and rest[0].startswith("slots=") else None
        if (rest and (slots is None or not slots.isdecimal() or int(slots) < 1)) or name.startswith("-"):
            raise MinilimaError(
                f"Line {number} of {path} cannot be read: {line.strip()!r}.", "It must be `name slots=8`.", "Correct it."
            )
        machines.append(Machine(name=name, slots=int(slots) if slots else None))
    return machines


def processes_each(chosen: Sequence[Machine], here: int) -> int:
    """Training processes on each machine: what the list says, else as many as here.

    Raises:
        MinilimaError: the machines differ, with which the gradient of a step could not be divided evenly.
    """
    counts = {machine.slots or here for machine in chosen} or {here}
    if len(counts) > 1:
        raise MinilimaError(
            "The machines have different numbers of slots.",
            f"They have {', '.join(map(str, sorted(counts)))}; every machine takes the same share.",
            "Give all of them the same number of slots in the hostfile.",
        )
    return counts.pop()


def torchrun(
    chosen: Sequence[Machine], processes: int, compute: ComputeConfig, arguments: Sequence[str], environment: Mapping[str, str]
) -> Commands:
    """The commands that run `arguments` (after `python`) in `processes` processes on this machine or on each of several.

    Args:
        environment: of the first command; the other machines get the variables that concern them.
    """
    run = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    if not chosen:
        return Commands(first=[*run, "--standalone", *arguments])
    address, _, port = (compute.rendezvous or chosen[0].name).rpartition(":")
    address, port = (address, port) if address else (port, str(PORT))
    run.append(f"--nnodes={len(chosen)}")
    if compute.hostfile is None:
        srun = ["srun", f"--nodes={len(chosen)}", f"--ntasks={len(chosen)}", "--ntasks-per-node=1", "--overlap"]
        meet = ["--rdzv-backend=c10d", f"--rdzv-endpoint={address}:{port}", f"--rdzv-id={os.environ.get('SLURM_JOB_ID', '0')}"]
        return Commands(first=[*srun, "--kill-on-bad-exit=1", *run, *meet, *arguments])
    run += [f"--master-addr={address}", f"--master-port={port}"]
    passed = {name: value for name, value in environment.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)}
    others = []
    for rank, machine in enumerate(chosen[1:], start=1):
        there = ["env", *(f"{name}={value}" for name, value in passed.items()), *run, f"--node-rank={rank}", *arguments]
        text = f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join(there)}"
        others.append(["ssh", "-o", "BatchMode=yes", machine.name, text])
    return Commands(first=[*run, "--node-rank=0", *arguments], others=tuple(others))


def _slurm_nodes(nodelist: str) -> list[str]:
    """The names behind Slurm's short form (`gpu[01-04]`), by Slurm itself."""
    listed = subprocess.run(["scontrol", "show", "hostnames", nodelist], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        raise MinilimaError(
            "The machines of this Slurm job are not known.",
            f"`scontrol show hostnames {nodelist}` says: {listed.stderr.strip()}",
            "Name them in a file with compute.hostfile=…",
        )
    return listed.stdout.split()
