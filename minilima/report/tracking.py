"""Weights & Biases: a view of a run's files, in a process of its own, so that an outage can neither fail nor hang a run.

python -m minilima.report.tracking RUN_FOLDER MODE      # what `track` starts
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from minilima.config import Config, TrackingMode
from minilima.files import read_jsonl, write_atomic
from minilima.report.summary import Summary, with_note

TIMEOUT_SECONDS = 120.0
MARK = "wandb.json"
"""In the run's folder: which W&B run shows it."""


def track(summary: Summary, config: Config) -> Summary:
    """Shows the run in W&B, unless that is off or was done before; says where, or why not, in a note."""
    mark = summary.folder / MARK
    if config.tracking.mode == TrackingMode.none or (mark.is_file() and not summary.built):
        return summary
    online = config.tracking.mode == TrackingMode.auto and logged_in()
    command = [sys.executable, "-m", "minilima.report.tracking", str(summary.folder), "online" if online else "offline"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return with_note(summary, f"W&B: gave up after {TIMEOUT_SECONDS:.0f} s; the run's files are complete without it.")
    if result.returncode != 0 or not mark.is_file():
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        return with_note(summary, f"W&B: not recorded ({reason[:200]}); the run's files are complete without it.")
    shown = json.loads(mark.read_text())
    if shown.get("url"):
        return with_note(summary, f"W&B: {shown['url']}")
    return with_note(summary, f"W&B: recorded offline; to send it later: wandb sync {shown['folder']}")


def logged_in() -> bool:
    """Whether W&B would know who you are, without asking: a key in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.is_file() and "wandb" in netrc.read_text(errors="ignore")


def record(folder: Path, mode: Literal["online", "offline"]) -> None:
    """Writes one W&B run from a run's folder: settings, training curve, stage figures, results."""
    import wandb

    told: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    tracking = told["config"]["tracking"]
    place = folder.parent.parent / "wandb"
    place.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(silent=True, console="off", disable_git=True)
    run = wandb.init(
        project=tracking["project"], entity=tracking["entity"], name=folder.name, dir=str(place.parent),
        config=told["config"], mode=mode, settings=settings, reinit="finish_previous",
    )  # fmt: skip
    for stage in told["stages"]:
        if stage["role"] == "model":
            for entry in read_jsonl(folder / stage["path"] / "training_log.jsonl"):
                figures = {
                    f"train/{name}": entry[name] for name in ("loss", "learning_rate", "grad_norm", "epoch") if name in entry
                }
                run.log(figures, step=entry["step"])
        figures = {name: value for name, value in stage["metrics"].items() if isinstance(value, int | float)}
        run.summary.update({f"{stage['role']}/{name}": value for name, value in figures.items()})
    run.summary.update(_flat(told["results"] or {}))
    shown = {"id": run.id, "url": run.url if mode == "online" else None, "folder": str(Path(run.dir).parent)}
    run.finish()
    write_atomic(folder / MARK, json.dumps(shown))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}/"))
        elif value is not None:
            flat[f"{prefix}{name}"] = value
    return flat


if __name__ == "__main__":
    record(Path(sys.argv[1]), "online" if sys.argv[2] == "online" else "offline")
