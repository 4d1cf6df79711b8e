"""Files: broken lines are named, odd characters survive, writes are whole."""

import shutil
from pathlib import Path

import pytest

from minilima.errors import MinilimaError
from minilima.formats.files import below, canonical_json, read_jsonl, write_atomic, write_jsonl
from minilima.models.fingerprint import fingerprint_directory


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(MinilimaError, match=r"Line 3 of .*a\.jsonl"):
        read_jsonl(path)


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[1, 2]\n")
    with pytest.raises(MinilimaError, match="a JSON object is needed"):
        read_jsonl(path)


def test_any_text_survives_a_round_trip(tmp_path: Path) -> None:
    rows = [{"text": "line\u2028separator, 日本, 😀, \x1b[31m, \n newline"}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert read_jsonl(tmp_path / "a.jsonl") == rows


def test_canonical_json_does_not_depend_on_order_or_on_unset_fields() -> None:
    assert canonical_json({"b": 1, "a": [None, {"c": None}]}) == canonical_json({"a": [None, {}], "b": 1, "d": None})


def test_an_atomic_write_leaves_nothing_aside(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "a.txt", "one")
    write_atomic(tmp_path / "new" / "a.txt", "two")
    assert [(file.name, file.read_text()) for file in (tmp_path / "new").iterdir()] == [("a.txt", "two")]


def test_what_another_process_removes_during_a_walk_is_passed_over(tmp_path: Path) -> None:
    for name in ("checkpoint-2", "checkpoint-4"):
        (tmp_path / name / "optimizer").mkdir(parents=True)
        (tmp_path / name / "optimizer" / "states.pt").write_bytes(b"x")
    walk = below(tmp_path)
    assert next(walk).parent == tmp_path
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    assert {item.name for item in walk} <= {"checkpoint-2", "checkpoint-4"}


def test_a_fingerprint_follows_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILIMA_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    first = fingerprint_directory(model)
    assert fingerprint_directory(model) == first
    (model / "config.json").write_text('{"a": 1}')
    assert fingerprint_directory(model) != first
