"""Broken rows of seeds, evaluation sets, tasks, labels and annotations are counted, and the first five shown by number."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilima.errors import MinilimaError
from minilima.formats.annotations import read_annotations
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import read_jsonl
from minilima.formats.imports import Reading, read_tasks
from minilima.formats.preferences import read_labels
from minilima.formats.seeds import load_seeds

SEED = {"id": "a", "instruction": "Say hi.", "instances": [{"input": "", "output": "Hi."}], "is_classification": False}
PAIR = {"instruction": "Say hi.", "output_1": "Hi.", "output_2": "Ho.", "preference": 1}
KINDS: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "Seed task": (load_seeds, SEED, "instruction"),
    "Prompt": (lambda path: load_eval_set(path, None), {"instruction": "Say hi."}, "instruction"),
    "Row": (read_tasks, {"instruction": "Say hi."}, "instruction"),
    "Row of labels": (read_labels, PAIR, "output_1"),
    "Row of annotations": (read_annotations, PAIR, "output_1"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_broken_rows_are_counted_and_the_first_five_are_shown(tmp_path: Path, kind: str) -> None:
    read, fine, needed = KINDS[kind]
    path, unit = tmp_path / "rows.jsonl", kind.partition(" of ")[0]
    wrong: tuple[object, ...] = (False, 5, [], {}, 7.5)
    lines = [json.dumps(fine), "{not json", *(json.dumps({**fine, needed: value}) for value in wrong)]
    path.write_text("\n".join([*lines, "[1]"]))
    with pytest.raises(MinilimaError) as refused:
        read(path)
    assert refused.value.what.startswith(f"7 {unit.lower()}s of {path} cannot be used. {unit} 2 (Line 2) is no row.")
    assert [f"{unit} {number} " in refused.value.what for number in range(1, 9)] == [False, *[True] * 5, False, False]
    path.write_text("\n".join(lines[:2]))
    with pytest.raises(MinilimaError) as refused:
        read(path)
    assert refused.value.what == f"{unit} 2 of {path} (Line 2) is no row."
    assert "column 2" in refused.value.why


def test_ids_and_prompts_that_occur_twice_are_counted_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([SEED, {**SEED, "instruction": "B"}, {**SEED, "id": "c"}, {**SEED, "id": "d", "instances": []}]))
    with pytest.raises(MinilimaError, match="3 seed tasks of") as refused:
        load_seeds(path)
    assert "Seed task 2 ('a') has an id that occurs twice. Seed task 3 ('c') has an instruction that" in refused.value.what
    path.write_text(json.dumps([{"instruction": "A"}, {"instruction": "B"}, {"instruction": "A"}, {"instruction": "A"}]))
    with pytest.raises(MinilimaError, match=r"2 prompts of .* Prompt 3 occurs twice\. Prompt 4 occurs twice\."):
        load_eval_set(path, None)


def test_tasks_without_an_instruction_are_rejected_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(
        '{"instruction": "A"}\nbroken\n{"instruction": ""}\n{"instruction": "B", "system": "S"}\n{"instruction": "C"}\n'
    )
    given = read_tasks(path, Reading(reject=True))
    assert given.tasks == [("row1", "A", ""), ("row5", "C", "")]
    assert [(row.id, row.reason) for row in given.rejected] == [
        ("row2", "(Line 2) is no row"), ("row3", "has no valid instruction"),
        ("row4", "has the column system, which is not understood here"),
    ]  # fmt: skip
    path.write_text('{"instruction": ""}\n')
    with pytest.raises(MinilimaError, match="None of its 1 rows holds a task"):
        read_tasks(path, Reading(reject=True))


def test_what_json_says_of_a_line_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"instruction": "no end\n', encoding="utf-8")
    with pytest.raises(MinilimaError) as refused:
        read_jsonl(tmp_path / "rows.jsonl")
    assert "Unterminated string starting at column 17." in str(refused.value)
