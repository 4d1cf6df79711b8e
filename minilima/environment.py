"""What `doctor` asks of this machine: packages, GPUs, disk, hub, endpoints. Thin, each probe with a time limit, no opinion.

python -m minilima.environment      # what needs torch, in a process of its own: one JSON object
"""

import contextlib
import http.client
import json
import os
import platform
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

HUB = "https://huggingface.co"
ENDPOINT_SECONDS, HUB_SECONDS, ANSWER_SECONDS, TORCH_SECONDS = 5.0, 4.0, 4.0, 60.0
PACKAGE = Path(__file__).parent
"""This package's folder; no other module counts folders from its own file."""
ROOT = PACKAGE.parent
"""The checkout, or the site-packages that an installed wheel lies in."""
CONSTRAINTS = ROOT / "constraints.txt"
DOCS = next((folder for folder in (PACKAGE / "docs", ROOT / "docs") if (folder / "index.md").is_file()), ROOT / "docs")
"""The documentation: within an installed package, beside it in a checkout."""


def installed() -> dict[str, str]:
    """Every installed package and its version."""
    return {str(item.metadata["Name"]).lower().replace("_", "-"): item.version for item in metadata.distributions()}


def requirements() -> list[str]:
    """What minilima needs, as its metadata say: `torch>=2.11`, extras left out; empty where it is not installed."""
    try:
        lines = metadata.requires("minilima") or []
    except metadata.PackageNotFoundError:
        return []
    return [line for line in lines if "extra ==" not in line]


def pins() -> dict[str, str]:
    """The versions that are tested together, from constraints.txt; empty where minilima is not a checkout."""
    if not CONSTRAINTS.is_file():
        return {}
    lines = [line.partition("==") for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if "==" in line]
    return {name.strip().lower(): version.split("#")[0].strip() for name, _, version in lines}


def gpus() -> list[str] | None:
    """`name, memory, driver` of each GPU; None where nvidia-smi is missing or silent."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout
    except (subprocess.SubprocessError, OSError):
        return None
    return [line.strip() for line in answer.splitlines() if line.strip()]


def cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16; without them it is many times slower than float32."""
    path = Path("/proc/cpuinfo")
    flags = path.read_text() if path.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def torch_facts(*, deepspeed: bool) -> dict[str, Any]:
    """What torch and, if asked, DeepSpeed say of themselves, from a process of its own; `error` where it failed."""
    command = [sys.executable, "-m", "minilima.environment", *(["deepspeed"] if deepspeed else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=TORCH_SECONDS, check=False, env=environment)
        facts: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {TORCH_SECONDS:.0f} s"}
    except (ValueError, IndexError):
        return {"error": (answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"])[-1][:300]}
    return facts


def hub() -> tuple[str, str | None]:
    """Address of the hub, $HF_ENDPOINT or the usual one, and why it does not answer (None: it does)."""
    address = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return address, "HF_HUB_OFFLINE is set"
    _, problem = _get(f"{address}/api/models?limit=1", {}, HUB_SECONDS)
    return address, problem


def endpoint_models(address: str | None, api_key_env: str) -> tuple[list[str], str | None]:
    """The models that an endpoint lists, and the problem, if there is one; no address means OpenAI. Costs nothing."""
    base = address or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    key = os.environ.get(api_key_env) or "none"
    answer, problem = _get(f"{base.rstrip('/')}/models", {"Authorization": f"Bearer {key}"}, ENDPOINT_SECONDS)
    try:
        return ([str(row["id"]) for row in json.loads(answer)["data"]] if problem is None else []), problem
    except (ValueError, KeyError, TypeError):
        return [], "it does not list its models"


def answers(address: str) -> bool:
    """Whether anything answers there, be it with a refusal."""
    _, problem = _get(address, {}, ANSWER_SECONDS)
    return problem is None or problem.startswith("HTTP status")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key is sent to the address that was set and to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _get(address: str, headers: dict[str, str], seconds: float) -> tuple[str, str | None]:
    if not address.startswith(("http://", "https://")):
        return "", f"{address} is not a web address"
    request = urllib.request.Request(address, headers={"User-Agent": "minilima", **headers})  # noqa: S310
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds) as reply:
            return reply.read(2_000_000).decode("utf-8", errors="replace"), None
    except urllib.error.HTTPError as error:
        return "", f"HTTP status {error.code}"
    except (urllib.error.URLError, OSError, http.client.HTTPException, ssl.SSLError, ValueError) as error:
        return "", str(getattr(error, "reason", error)) or type(error).__name__


def disk(path: Path) -> tuple[Path, int, bool]:
    """The nearest folder that exists, the bytes free there, and whether it can be written."""
    nearest = path.absolute()
    while not nearest.is_dir() and nearest != nearest.parent:
        nearest = nearest.parent
    return nearest, shutil.disk_usage(nearest).free, os.access(nearest, os.W_OK)


def free_bytes(path: Path) -> int:
    """What can still be written to the disk that `path` is on; 0 where it has no room for another file."""
    room = os.statvfs(path)
    return 0 if room.f_files > 0 and room.f_favail == 0 else room.f_bavail * room.f_frsize


def _ask_torch(*, deepspeed: bool) -> dict[str, Any]:
    import torch

    cuda = torch.cuda.is_available()
    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "built_for": torch.version.cuda,
        "gpus": torch.cuda.device_count() if cuda else 0,
        "bf16": cuda and torch.cuda.is_bf16_supported(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cuda else None,  # type: ignore[no-untyped-call]
    }
    if deepspeed:
        try:
            from deepspeed.ops.op_builder import CPUAdamBuilder, FusedAdamBuilder

            builders = {"cpu_adam": CPUAdamBuilder(), "fused_adam": FusedAdamBuilder()}
            facts["deepspeed"] = {name: bool(builder.is_compatible(verbose=False)) for name, builder in builders.items()}
        except Exception as error:  # it raises whatever its probing of compilers and CUDA meets
            facts["deepspeed_error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    return facts


if __name__ == "__main__":
    # Libraries print as they are imported; standard output is for the one object.
    with contextlib.redirect_stdout(sys.stderr):
        facts_of_torch = _ask_torch(deepspeed="deepspeed" in sys.argv)
    sys.stdout.write(json.dumps(facts_of_torch) + "\n")


MOUNTS = Path("/proc/mounts")


NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "orangefs", "pvfs2",
    "wekafs", "panfs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse", "fuse.juicefs", "virtiofs",
}  # fmt: skip
"""Types of /proc/mounts that may be mounted on several machines at once."""


def network_filesystem(folder: Path) -> str | None:
    """The type of the network file system that `folder` (or what will be its parent) is on; None for a local or unknown one."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    nearest = folder.expanduser().absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    nearest = nearest.resolve()
    of_mount = ""
    longest = -1
    for line in lines:
        _, mounted, kind, *_ = line.split(" ")
        point = Path(_unescaped(mounted))
        # A later mount hides an earlier one at the same path.
        if nearest.is_relative_to(point) and len(point.parts) >= longest:
            of_mount, longest = kind, len(point.parts)
    return of_mount if of_mount in NETWORK else None


def _unescaped(text: str) -> str:
    """Spaces and the like stand as octal numbers in /proc/mounts: `\\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def caveat(outputs: Path) -> str | None:
    """What to know where `outputs` is on a network file system: a note for the plan."""
    kind = network_filesystem(outputs)
    if kind is None:
        return None
    locks = {
        "nfs": "jobs on several machines share stages safely only where its lock service runs",
        "lustre": "jobs on several machines share stages safely only where it is mounted with -o flock",
    }.get(kind, "jobs on several machines share stages safely only where its locks (flock) hold across machines")
    return (
        f"{outputs} is on {kind}: {locks}. The reply cache keeps SQLite's rollback journal there instead of its faster log, "
        "which needs a local disk."
    )


PACKAGES = ("minilima", "torch", "transformers", "peft", "deepspeed", "datasets", "openai", "hydra-core", "rapidfuzz")


def host() -> str:
    return socket.gethostname()


@cache
def packages() -> dict[str, str]:
    """Installed versions of the packages that can change a result."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def git() -> dict[str, Any]:
    """Commit of the checkout minilima runs from, and whether it was changed since; empty for an installed wheel."""
    folder = ROOT
    if not (folder / ".git").exists():
        return {}

    def ask(*arguments: str) -> str:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return result.stdout.strip()

    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}


def load() -> float:
    """Processes that computed or waited for a core in the last minute, on average; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def threads() -> str:
    """CPU threads that arithmetic is shared among: $OMP_NUM_THREADS, or one for each core that this process may use."""
    return os.environ.get("OMP_NUM_THREADS") or str(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count())


def describe() -> dict[str, Any]:
    """The provenance block of a manifest."""
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "threads": threads(),
        "packages": packages(),
        "git": git(),
        "command": shlex.join(sys.orig_argv),
    }
