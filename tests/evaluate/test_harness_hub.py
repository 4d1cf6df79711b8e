"""Tasks of lm-evaluation-harness whose data comes from a hub on loopback: run whole, killed by SIGKILL, and gone on with."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from tests.hub import Hub, Repository, running_hub

BUILD = """
import json, sys
from pathlib import Path
from minilima.config.compose import load_config
from minilima.evaluate.benchmarks import build_base_benchmark
from minilima.run.sources import resolve
from minilima.store.job import Job
folder, task, *overrides = sys.argv[1:]
config = load_config([f"benchmarks=[{task}]", *overrides])
job = Job(kind="base_benchmark", role=f"{task}_base", key="k", work=Path(folder), inputs={}, config=config,
          sources=resolve(config), cache=Path(folder, "..", "replies.sqlite"))
outcome = build_base_benchmark(job, lambda progress: None)
print(json.dumps({"calls": outcome.usage.calls, "cached": outcome.usage.cached, "figures": outcome.metrics["figures"]}))
"""
"""The stage in a process of its own: the client of the hub reads HF_ENDPOINT once, when it is imported."""


def instruction(number: int) -> dict[str, Any]:
    kind, arguments = [("punctuation:no_comma", {}), ("keywords:forbidden_words", {"forbidden_words": ["the"]})][number % 2]
    return {"key": number, "prompt": f"Write about thing {number}.", "instruction_id_list": [kind], "kwargs": [arguments]}


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def splits(config: str, *names: str) -> bytes:
    files = "\n".join(f"  - {{split: {name}, path: {name}.jsonl}}" for name in names)
    return f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}\n---\n".encode()


SUM = {"question": "What is 2 + 3?", "answer": "2 + 3 = 5\n#### 5"}
ENDINGS = {
    "ind": 1, "activity_label": "Cooking", "ctx_a": "A man cuts bread.", "ctx_b": "he", "ctx": "A man cuts bread. he",
    "endings": ["eats it.", "flies.", "sings.", "sleeps."], "source_id": "a", "split": "val", "split_type": "indomain",
    "label": "0",
}  # fmt: skip
TARGETS = {"choices": ["Yes.", "No.", "Perhaps."], "labels": [1, 0, 0]}
QUESTION = {"question": "Is water wet?", "mc1_targets": TARGETS, "mc2_targets": TARGETS}
ANATOMY = {"question": "What pumps blood?", "subject": "anatomy", "choices": ["heart", "lung", "skin", "bone"], "answer": 0}
SETS: dict[str, tuple[str, str, dict[str, list[dict[str, Any]]]]] = {
    "gsm8k": ("openai/gsm8k", "main", {"train": [SUM] * 6, "test": [SUM] * 2}),
    "hellaswag": ("Rowan/hellaswag", "default", {"train": [ENDINGS] * 2, "validation": [ENDINGS] * 2, "test": [ENDINGS]}),
    "truthfulqa_mc2": ("truthfulqa/truthful_qa", "multiple_choice", {"validation": [QUESTION] * 2}),
    "mmlu_anatomy": ("cais/mmlu", "anatomy", {"test": [ANATOMY] * 2, "validation": [ANATOMY], "dev": [ANATOMY] * 5}),
}
"""Rows of our own in the form of each set: its name on the hub, its configuration, its splits."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("long") / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    return folder


def started(hub: Hub, folder: Path, task: str, model: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(folder / task), task, f"model.path={model}", *overrides]
    reached = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hub")}
    return subprocess.Popen(
        command, env={**os.environ, **reached}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    )


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    said: dict[str, Any] = json.loads(out.splitlines()[-1])
    return said


def kept(cache: Path) -> int:
    """How many replies a cache holds; 0 before there is one."""
    try:
        with sqlite3.connect(f"file:{cache}?mode=ro", uri=True, timeout=5) as database:
            return int(database.execute("SELECT count(*) FROM replies").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
def test_ifeval_from_a_hub_is_killed_and_goes_on_with_the_replies_that_came(tmp_path: Path, model: Path) -> None:
    with running_hub() as hub:
        hub.repositories["google/IFEval"] = Repository(files={"train.jsonl": lines([instruction(n) for n in range(3)])})
        process = started(hub, tmp_path, "ifeval", model, "compute.generation_batch=1")
        while not kept(tmp_path / "replies.sqlite") and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        process.communicate()  # SIGKILL; nothing could be tidied up
        before = kept(tmp_path / "replies.sqlite")
        assert 1 <= before < 3, "killed in the middle"
        assert not (tmp_path / "ifeval" / "items.jsonl").exists()
        again = finished(started(hub, tmp_path, "ifeval", model, "compute.generation_batch=1"))
    assert (again["cached"], again["calls"]) == (before, 3 - before), "nothing is computed twice"
    assert len((tmp_path / "ifeval" / "items.jsonl").read_text().splitlines()) == 3
    assert any("google/IFEval" in path for path in hub.asked)


@pytest.mark.slow
@pytest.mark.parametrize("task", SETS)
def test_questions_and_texts_to_write_run_from_a_hub(tmp_path: Path, model: Path, task: str) -> None:
    name, config, rows = SETS[task]
    with running_hub() as hub:
        files = {f"{split}.jsonl": lines(of_split) for split, of_split in rows.items()}
        hub.repositories[name] = Repository(files={**files, "README.md": splits(config, *rows)})
        said = finished(started(hub, tmp_path, task, model))
    items = [json.loads(line) for line in (tmp_path / task / "items.jsonl").read_text().splitlines()]
    assert len(items) == 2 and said["figures"]
    figure = next(iter(items[0]["scores"]))
    assert said["figures"][figure] == sum(item["scores"][figure] for item in items) / 2
