"""Evaluation sets: what is asked is the whole prompt, and an answer belongs to one prompt only."""

import json
from pathlib import Path
from typing import Any

import pytest

from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.formats.eval_sets import eval_set_identity, load_eval_set, read_references
from minilima.formats.files import sha256_file
from minilima.run.sources import resolve


def written(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


def asked(path: Path) -> list[tuple[str, str, str | None]]:
    return [(prompt.id, prompt.instruction, prompt.output) for prompt in load_eval_set(path, None)]


def test_an_input_is_part_of_the_prompt_as_in_training(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Translate.", "input": "The cat.", "output": "Le chat."},
        {"instruction": "Translate.", "input": "The dog.", "output": "Le chien."},
        {"instruction": "Say yes.", "input": " ", "output": None},
        {"instruction": "Who won?", "context": "Ann beat Bob.", "output": "Ann."},
    ]
    assert asked(written(tmp_path / "a.json", *rows)) == [
        ("1", "Translate.\n\nThe cat.", "Le chat."),
        ("2", "Translate.\n\nThe dog.", "Le chien."),
        ("3", "Say yes.", None),
        ("4", "Who won?\n\nAnn beat Bob.", "Ann."),
    ]


def test_each_instance_is_a_prompt(tmp_path: Path) -> None:
    instances = [{"input": "", "output": "Paris."}, {"input": "Spain", "output": "Madrid."}]
    row = {"id": "t", "instruction": "Name a capital.", "instances": instances}
    assert asked(written(tmp_path / "a.json", row)) == [
        ("t", "Name a capital.", "Paris."),
        ("t.2", "Name a capital.\n\nSpain", "Madrid."),
    ]


def test_ids_that_are_null_are_row_numbers_and_given_ids_never_meet_them(tmp_path: Path) -> None:
    nulls = [{"id": None, "instruction": "A"}, {"id": None, "instruction": "B"}]
    assert [row[0] for row in asked(written(tmp_path / "a.json", *nulls))] == ["1", "2"]
    mixed = [{"id": "2", "instruction": "A"}, {"instruction": "B"}, {"id": 1, "instruction": "C"}]
    assert [row[0] for row in asked(written(tmp_path / "b.json", *mixed))] == ["2", "row2", "1"]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([{"id": "x", "instruction": "A"}, {"id": "x", "instruction": "B"}], "an id that occurs twice"),
        ([{"id": 1, "instruction": "A"}, {"id": "1", "instruction": "B"}], "an id that occurs twice"),
        ([{"id": [1], "instruction": "A"}], "no proper id"),
        ([{"instruction": "A", "input": "x"}, {"instruction": "A\n\nx"}], "Prompt 2"),
        ([{"instruction": "A", "system": "Be brief."}], "the column system"),
        ([{"instruction": "A", "images": ["a.png"]}], "the column images"),
        ([{"instruction": "A", "input": 5}], "no valid input"),
        ([{"instruction": "A", "input": "x", "context": "y"}], "both an input and a context"),
        ([{"frage": "A", "antwort": "B"}], "no valid instruction"),
        ([{"question": "A", "answers": ["B", "C"]}], "several answers"),
        ([{"question": "A", "prompt": "B"}], "a prompt and a question"),
        ([{"question": "Which?", "choices": ["B", "C"], "answer": "B"}], "choices that its question does not name"),
        ([{"instruction": "half \ud83d"}], "half a character"),
        ([5], "Prompt 1"),
    ],
)
def test_what_cannot_be_asked_or_told_apart_is_refused(tmp_path: Path, rows: list[Any], named: str) -> None:
    with pytest.raises(MinilimaError) as refused:
        load_eval_set(written(tmp_path / "a.json", *rows), None)
    assert named in refused.value.what
    if "frage" in str(rows):
        assert "frage, antwort" in refused.value.why


def test_outside_answers_are_found_by_the_whole_prompt(tmp_path: Path) -> None:
    animals = ("cat", "dog")
    prompts = load_eval_set(written(tmp_path / "a.json", *({"instruction": "T", "input": name} for name in animals)), None)
    split = [{"instruction": "T", "input": name, "output": name.upper()} for name in reversed(animals)]
    joined = [{"instruction": f"T\n\n{name}", "output": name.upper(), "dataset": "x"} for name in animals]
    for rows in (split, joined):
        answers = read_references(written(tmp_path / "o.json", *rows), "theirs", prompts)
        assert [(answer.instruction, answer.output) for answer in answers] == [("T\n\ncat", "CAT"), ("T\n\ndog", "DOG")]
    with pytest.raises(MinilimaError, match="lacks answers to 2 of 2"):
        read_references(written(tmp_path / "o.json", {"instruction": "T", "output": "?"}), "theirs", prompts)


def test_only_sets_that_were_read_wrongly_have_new_keys(tmp_path: Path) -> None:
    plain = written(tmp_path / "a.json", {"instruction": "A", "output": "B"}, {"instruction": "C"})
    assert eval_set_identity(plain) == sha256_file(plain)
    with_input = written(tmp_path / "b.json", {"instruction": "A", "input": "B"})
    assert eval_set_identity(with_input) != sha256_file(with_input)
    assert resolve(load_config([f"eval_set.path={with_input}"])).eval_set.sha256 == eval_set_identity(with_input)


def test_the_mark_of_no_input_is_no_part_of_a_prompt(tmp_path: Path) -> None:
    rows = [{"instruction": "Hi.", "input": "<noinput>"}, {"instruction": "Ho.", "input": "[无输入]"}]
    prompts = load_eval_set(written(tmp_path / "marks.json", *rows), None)
    assert [prompt.instruction for prompt in prompts] == ["Hi.", "Ho."]


@pytest.mark.parametrize(
    ("row", "turns", "references"),
    [
        ({"question_id": 81, "turns": ["Write.", "Rewrite."], "category": "writing"}, ("Write.", "Rewrite."), ()),
        ({"prompt_id": 3, "prompt": ["2+2?", "Times 3?"], "reference": ["4", "12"]}, ("2+2?", "Times 3?"), ("4", "12")),
    ],
)
def test_conversations_of_mt_bench_are_read_turn_by_turn(
    tmp_path: Path, row: dict[str, Any], turns: tuple[str, ...], references: tuple[str, ...]
) -> None:
    (tmp_path / "set.jsonl").write_text(json.dumps(row))
    (prompt,) = load_eval_set(tmp_path / "set.jsonl", None)
    assert (prompt.turns, prompt.references, prompt.output) == (turns, references, None)
    assert prompt.id in ("81", "3")
    assert eval_set_identity(tmp_path / "set.jsonl")


def test_questions_of_arena_hard_are_ordinary_prompts(tmp_path: Path) -> None:
    rows = [{"question_id": "a", "turns": [{"content": "Why?"}]}, {"uid": "b", "prompt": "How?", "category": "hard_prompt"}]
    (tmp_path / "set.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    prompts = load_eval_set(tmp_path / "set.jsonl", None)
    assert [(prompt.id, prompt.instruction, prompt.turns) for prompt in prompts] == [("a", "Why?", ()), ("b", "How?", ())]


@pytest.mark.parametrize("row", [{"turns": ["a", ""]}, {"turns": ["a", 3]}, {"turns": ["a"], "reference": ["b", "c"]}])
def test_a_conversation_that_cannot_be_asked_is_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "set.jsonl").write_text(json.dumps(row))
    with pytest.raises(MinilimaError):
        load_eval_set(tmp_path / "set.jsonl", None)


def test_prompts_have_the_names_that_people_give_them(tmp_path: Path) -> None:
    rows = [
        {"question": "Who?", "context": "Ann won.", "answers": {"text": ["Ann", "Ann"], "answer_start": [0, 0]}},
        {"prompt": "Add.", "input": "1, 2", "completion": "3"},
        {"query": "Which: B or C?", "choices": ["B", "C"], "response": "B"},
    ]
    prompts = load_eval_set(written(tmp_path / "a.json", *rows), None)
    assert [(each.instruction, each.output) for each in prompts] == [
        ("Who?\n\nAnn won.", "Ann"), ("Add.\n\n1, 2", "3"), ("Which: B or C?", "B"),
    ]  # fmt: skip
    assert eval_set_identity(tmp_path / "a.json")
