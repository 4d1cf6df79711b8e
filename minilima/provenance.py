"""Where and with what a result was made: host, packages, git commit, command line."""

import platform
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

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
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return {}

    def ask(*arguments: str) -> str:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return result.stdout.strip()

    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}


def describe() -> dict[str, Any]:
    """The provenance block of a manifest."""
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": packages(),
        "git": git(),
        "command": shlex.join(sys.orig_argv),
    }
