"""Weights & Biases: a view of a run's files, written by a process of its own, so that an outage can neither fail nor slow a run.

run.json, stages' files ─> minilima.report.wandb_record (another process) ─> W&B, online or on disk
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from minilima.config.choices import TrackingMode
from minilima.config.schema import Config, TrackingConfig
from minilima.formats.files import remembered
from minilima.report.summary import Summary, with_note

WAIT_SECONDS = 20.0
"""So long a run waits for W&B at its end; what takes longer is finished in the background."""

MARK = "wandb.json"
"""In the run's folder: which W&B run shows it."""


def track(summary: Summary, config: Config) -> Summary:
    """Shows the run in W&B, unless that is off or was done before; says where, or why not, in a note."""
    mark = summary.folder / MARK
    if config.tracking.mode == TrackingMode.none or disabled() or (mark.is_file() and not summary.built):
        return summary
    mark.unlink(missing_ok=True)
    online = config.tracking.mode == TrackingMode.auto and logged_in()
    command = [sys.executable, "-m", "minilima.report.wandb_record", str(summary.folder), "online" if online else "offline"]
    try:
        status, said = _wait(command, summary.folder / "wandb.log")
    except OSError as error:
        return with_note(summary, f"W&B: not recorded ({error}); the run's files are complete without it.")
    if status is None:
        return with_note(summary, f"W&B: still being sent; see {summary.folder / 'wandb.log'}. The run's files are complete.")
    if status != 0 or not mark.is_file():
        return with_note(summary, f"W&B: not recorded ({said[:200]}); the run's files are complete without it.")
    shown = json.loads(mark.read_text(encoding="utf-8"))
    if shown["url"]:
        return with_note(summary, f"W&B: {shown['url']}")
    why = " because its server did not answer" if online else ""
    return with_note(summary, f"W&B: recorded offline{why}; to send it later: {_sync(shown['folders'])}")


def to_send(runs: Sequence[Path]) -> str | None:
    """The command that sends what these runs have recorded offline; None where there is nothing."""
    shown = [remembered(run / MARK, lambda written: [] if written["url"] else list(written["folders"])) for run in runs]
    folders = [folder for of_run in shown for folder in of_run or ()]
    return _sync(folders) if folders else None


def _sync(folders: Sequence[str]) -> str:
    """The command, with paths from here where they are below: it sends what W&B's folder holds and has not sent before."""
    here = Path.cwd()
    holding = dict.fromkeys(Path(folder).parent for folder in folders)
    near = [str(path.relative_to(here)) if path.is_relative_to(here) else str(path) for path in holding]
    return shlex.join(["wandb", "sync", *near])


def _wait(command: list[str], log: Path) -> tuple[int | None, str]:
    """The exit status, None if it is still at work, and the last line that it said."""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    try:
        status = process.wait(timeout=WAIT_SECONDS)
    except subprocess.TimeoutExpired:
        return None, ""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return status, lines[-1] if lines else "no reason given"


def disabled() -> bool:
    """Whether W&B's own variable turns it off."""
    return os.environ.get("WANDB_MODE") == "disabled"


def project_of(tracking: TrackingConfig) -> str:
    """The project that runs appear in: a setting other than the default wins over $WANDB_PROJECT."""
    chosen = tracking.project != TrackingConfig().project
    return tracking.project if chosen else os.environ.get("WANDB_PROJECT") or tracking.project


def logged_in() -> bool:
    """Whether W&B would know who you are, without asking: a key in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.is_file() and "wandb" in netrc.read_text(errors="ignore")
