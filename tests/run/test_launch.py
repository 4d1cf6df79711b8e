"""What the process of a stage is told by its environment."""

from pathlib import Path

import pytest

from minilima.config.compose import load_config
from minilima.run.launch import _environment
from minilima.run.sources import resolve
from minilima.store.job import Job

ALLOCATOR = "PYTORCH_ALLOC_CONF"


def job(kind: str, folder: Path) -> Job:
    config = load_config(["+experiment=quickstart"])
    return Job(
        kind=kind, role=kind, key="k", work=folder, inputs={}, config=config, sources=resolve(config), cache=folder / "c.sqlite"
    )


def test_torchs_segments_grow_in_training_unless_something_else_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOCATOR, raising=False)
    assert _environment(job("model", tmp_path))[ALLOCATOR] == "expandable_segments:True"
    assert ALLOCATOR not in _environment(job("answers", tmp_path))
    monkeypatch.setenv(ALLOCATOR, "max_split_size_mb:64")
    assert _environment(job("model", tmp_path))[ALLOCATOR] == "max_split_size_mb:64"
