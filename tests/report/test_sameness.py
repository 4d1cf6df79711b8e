"""Sameness of builds: a comparison says where threads, GPU or libraries differ, also between runs of one key."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minilima.report.compare import notes, tabulate
from minilima.report.runs import read_point
from minilima.report.sameness import DEVICE, made_with, unlike_builds
from tests.report.runs import finished_run, plain_prompts


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    return finished_run(tmp_path_factory.mktemp("outputs"), plain_prompts(4)).folder


def manifest(device: str | None = "CPU, 2 threads", threads: str = "2", torch: str = "2.13.0") -> dict[str, Any]:
    metrics = {"arithmetic": {"device": device}} if device else {}
    return {"threads": threads, "packages": {"torch": torch, "openai": "9"}, "metrics": metrics}


def test_what_a_run_was_made_with_is_read_from_the_stages_that_compute() -> None:
    stages = {"answers": manifest(), "dataset": manifest(device=None, threads="7")}
    assert made_with(stages) == {DEVICE: ("2 CPU threads",), "torch": ("2.13.0",)}
    assert made_with({"old": manifest(device=None, threads="7")})[DEVICE] == ("7 CPU threads",)
    on_gpu = made_with({**stages, "model": {"metrics": {"device": "NVIDIA H100"}, "threads": "32"}})
    assert on_gpu[DEVICE] == ("2 CPU threads", "NVIDIA H100")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"threads": "1"}, "computed on 1 CPU threads (other), 2 CPU threads (one)"),
        ({"torch": "2.11.0"}, "torch 2.11.0 (other), 2.13.0 (one)"),
        ({"device": "NVIDIA H200"}, "computed on 2 CPU threads (one), NVIDIA H200 (other)"),
        ({}, ""),
    ],
)
def test_a_comparison_says_what_was_not_built_alike(run: Path, other: dict[str, str], said: str) -> None:
    first = replace(read_point(run), name="one", made_with=made_with({"answers": manifest()}))
    second = replace(first, name="other", made_with=made_with({"answers": manifest(**other)}))
    told = unlike_builds([first, second])
    assert said in str(told) if said else told is None
    assert (told in notes(tabulate([first, second]))) == (told is not None)


def test_the_page_names_the_threads(run: Path) -> None:
    entry = json.loads((run / "run.json").read_text())["stages"][0]["path"]
    threads = json.loads((run / entry / "manifest.json").read_text())["threads"]
    assert f"{threads} CPU threads" in (run / "report.html").read_text()
