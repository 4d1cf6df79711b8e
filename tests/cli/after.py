"""A finished run whose model is the tiny one: what the verbs after training are tried on."""

import json
import shutil
from pathlib import Path
from typing import Any

from minilima.config.compose import load_config, to_dict
from minilima.evaluate.significance import compare
from minilima.formats.files import write_jsonl
from minilima.pipeline import stages
from minilima.run.sources import resolve
from minilima.store.entries import Store
from minilima.store.job import Outcome

RESULTS: dict[str, Any] = {
    "coverage": {"judged": 4, "prompts": 4, "minimum": 0.9},
    "win_rate": {
        "win_rate": {"value": 62.5, "low": 25.0, "high": 100.0}, "wins": 2, "losses": 1, "ties": 1, "judged": 4, "prompts": 4,
    },
    "loss_change": None,
    "against": "its base",
}  # fmt: skip


def tiny_run(outputs: Path, model: Path, *overrides: str, adapter: bool = False) -> Path:
    """The folder of a run that trained `model` from a base in a folder beside it."""
    config = load_config([f"paths.outputs={outputs}", f"model.path={model}", "name=tiny", *overrides])
    graph, store = stages(config, resolve(config)), Store(outputs / "store")

    def trained(work: Path) -> Outcome:
        shutil.copytree(model, work, dirs_exist_ok=True)
        if adapter:
            (work / "adapter").mkdir()
            (work / "adapter" / "adapter_config.json").write_text("{}")
        return Outcome(metrics={"steps": 3})

    def dataset(work: Path) -> Outcome:
        write_jsonl(work / "dataset.jsonl", [])
        return Outcome(metrics={"examples": 7, "seed": 5, "machine": 2})

    entries = {role: store.get_or_build(graph[role], build) for role, build in (("dataset", dataset), ("model", trained))}
    folder = outputs / "runs" / "tiny-0123abcd"
    folder.mkdir(parents=True)
    record = {
        "name": "tiny",
        "config": to_dict(config),
        "sources": [],
        "stages": [{"role": role, "path": f"../../store/{entry.path.name}"} for role, entry in entries.items()],
        "results": RESULTS,
        "benchmarks": [
            {
                "task": "minilima_verifiable",
                "figure": "strict",
                "main": True,
                "items": 8,
                "p_holm": 1.0,
                "base": {"value": 25.0, "low": 0.0, "high": 50.0},
                "tuned": {"value": 50.0, "low": 25.0, "high": 75.0},
                "paired": vars(compare([2.0, 1.0], [1.0, 1.0])) | {"difference": {"value": 25.0, "low": -5.0, "high": 55.0}},
            }
        ],
        "judge": "nobody knows.",
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder
