"""Evaluation sets as people have them: what is part of a prompt, and which answer belongs to which prompt."""

import json
from pathlib import Path
from typing import Any

import pytest

from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.formats.eval_sets import load_eval_set, read_references
from minilima.pipeline import stages
from minilima.run.sources import resolve


def written(folder: Path, *rows: Any, name: str = "set.jsonl") -> Path:
    file = folder / name
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return file


def test_an_input_is_part_of_the_prompt(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {"instruction": "Translate to French.", "input": "Good morning.", "output": "Bonjour."},
        {"instruction": "Translate to French.", "input": "Thank you.", "output": "Merci."},
        {"instruction": "Name a city.", "input": "", "output": "Bergen."},
        {"instruction": "Name a river.", "input": None},
    )
    assert [(prompt.id, prompt.instruction, prompt.output) for prompt in load_eval_set(file, None)] == [
        ("1", "Translate to French.\n\nGood morning.", "Bonjour."),
        ("2", "Translate to French.\n\nThank you.", "Merci."),
        ("3", "Name a city.", "Bergen."),
        ("4", "Name a river.", None),
    ]


def test_each_instance_is_a_prompt(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {"id": "sum", "instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}, {"input": "2 2", "output": "4"}]},
        {"id": "one", "instruction": "Say hi.", "instances": [{"input": "", "output": "hi"}]},
    )
    assert [(prompt.id, prompt.instruction, prompt.output) for prompt in load_eval_set(file, None)] == [
        ("sum (row 1), instance 1", "Add.\n\n1 2", "3"),
        ("sum (row 1), instance 2", "Add.\n\n2 2", "4"),
        ("one", "Say hi.", "hi"),
    ]


@pytest.mark.parametrize(
    ("ids", "known"),
    [
        ([None, None, None], ["1", "2", "3"]),
        (["a", "a", "b"], ["a (row 1)", "a (row 2)", "b"]),
        (["2", None, "x"], ["2", "row 2", "x"]),
        ([7, 8, 9], ["7", "8", "9"]),
        ([0, "0", 1], ["0 (row 1)", "0 (row 2)", "1"]),
    ],
)
def test_no_two_prompts_have_one_id(tmp_path: Path, ids: list[object], known: list[str]) -> None:
    rows = [{"id": identity, "instruction": f"Question {number}?"} for number, identity in enumerate(ids)]
    assert [prompt.id for prompt in load_eval_set(written(tmp_path, *rows), None)] == known


def test_a_prompt_that_occurs_twice_is_named_with_both_rows(tmp_path: Path) -> None:
    file = written(tmp_path, {"instruction": "A", "input": "b"}, {"instruction": "C"}, {"instruction": "A", "input": "b"})
    with pytest.raises(MinilimaError, match=r"Prompt 3 .* occurs twice.*also prompt 1"):
        load_eval_set(file, None)


@pytest.mark.parametrize("row", [{"input": "x"}, {"instruction": 3}, {"instruction": "A", "input": ["b"]}, {"instruction": " "}])
def test_a_row_that_poses_nothing_is_named(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(MinilimaError, match="Prompt 2 of"):
        load_eval_set(written(tmp_path, {"instruction": "Fine."}, row), None)


def test_answers_from_outside_are_found_by_instruction_and_input(tmp_path: Path) -> None:
    rows = [{"instruction": "Add.", "input": text, "output": output} for text, output in (("1 2", "3"), ("2 2", "4"))]
    prompts = load_eval_set(written(tmp_path, *rows), None)
    turned = written(tmp_path, *reversed(rows), name="answers.jsonl")
    assert [answer.output for answer in read_references(turned, "theirs", prompts)] == ["3", "4"]
    joined = written(tmp_path, *({"instruction": prompt.instruction, "output": "x"} for prompt in prompts), name="joined.jsonl")
    assert [answer.output for answer in read_references(joined, "theirs", prompts)] == ["x", "x"]


def test_only_sets_with_inputs_have_other_keys_than_before(tmp_path: Path) -> None:
    def recipe(*rows: Any) -> dict[str, Any]:
        config = load_config(["+experiment=quickstart", f"eval_set.path={written(tmp_path, *rows)}"])
        return dict(stages(config, resolve(config))["answers"].recipe)

    assert "with_input" not in recipe({"instruction": "A", "output": "b"}, {"instruction": "C", "output": "d"})
    (tmp_path / "set.jsonl").rename(tmp_path / "other.jsonl")
    file = written(tmp_path, {"instruction": "A", "input": "x", "output": "b"}, name="with.jsonl")
    config = load_config(["+experiment=quickstart", f"eval_set.path={file}"])
    assert stages(config, resolve(config))["answers"].recipe["with_input"] is True
