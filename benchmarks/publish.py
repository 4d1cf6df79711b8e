"""How every benchmark reports its figures: lines for people, and JSON with the command, commit, code, versions and machine."""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measured import digest
from minilima.environment import packages


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows `--json`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, help="also write the figures to this file")
    return made


def publish(figures: Mapping[str, tuple[float | None, str]], file: Path | None, **details: Any) -> None:
    """Prints `name value unit` lines and writes the record, with `details` beside the figures."""
    for name, (value, unit) in figures.items():
        print(name, "-" if value is None else value, unit)
    if file is not None:
        record = {
            **{name: value for name, (value, _) in figures.items()},
            **details,
            "units": {name: unit for name, (_, unit) in figures.items()},
            "command": shlex.join(["python", *sys.argv]),
            "commit": _commit(),
            "code": digest(Path(sys.argv[0]).stem),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform(), "gpu": _gpu()},
            "python": platform.python_version(),
            "versions": packages(),
        }
        file.write_text(json.dumps(record, indent=2) + "\n")


def _commit() -> str | None:
    """What was measured, with -dirty where files were changed; a copy without its history names it in MINILIMA_COMMIT."""
    asked = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return os.environ.get("MINILIMA_COMMIT") or asked.stdout.strip() or None


def _gpu() -> str | None:
    """What kind, where a benchmark uses one; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
