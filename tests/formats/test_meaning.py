"""Keys that change what a row means are honoured or refused by name, and every row that is left out says why."""

import json
from pathlib import Path
from typing import Any

import pytest

from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.formats.files import sha256_file
from minilima.formats.imports import Reading, read_file, read_tasks
from minilima.formats.llamafactory import locate
from minilima.formats.unread import unused_by_examples, unused_by_prompts, unused_by_tasks
from minilima.pipeline import stages
from minilima.run.plan import make_plan
from minilima.run.sources import resolve
from minilima.run.stages.pool import POOL
from minilima.store.entries import Store

GOOD = {"instruction": "Say yes.", "output": "Yes."}
TURNS = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
WORSE = [TURNS[0], {"role": "assistant", "content": "Go."}]


def written(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


def listed(folder: Path, entry: dict[str, Any], *rows: Any) -> tuple[Path, Any]:
    written(folder / "rows.json", *rows)
    (folder / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "rows.json", **entry}}))
    path, _, layout = locate(folder / "dataset_info.json", "mine")
    return path, layout


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({**GOOD, "images": ["a.png"]}, "images"),
        ({**GOOD, "videos": ["a.mp4"]}, "videos"),
        ({**GOOD, "audio": "a.wav"}, "audio"),
        ({**GOOD, "image_path": "a.png"}, "image_path"),
        ({**GOOD, "tools": '[{"name": "search"}]'}, "tools"),
        ({**GOOD, "instruction": "<image>What is this?"}, "<image>"),
        ({**GOOD, "reasoning_content": "Hm."}, "reasoning_content"),
        ({**GOOD, "weight": 0.5}, "weight"),
        ({**GOOD, "chosen": "Yes.", "rejected": "No."}, "chosen"),
        ({"messages": TURNS, "tools": [{"name": "x"}]}, "tools"),
        ({"messages": [TURNS[0], {**TURNS[1], "tool_calls": [{"id": 1}]}]}, "tool_calls"),
        ({"messages": [TURNS[0], {**TURNS[1], "reasoning_content": "Hm."}]}, "reasoning_content"),
        ({"messages": [TURNS[0], {**TURNS[1], "weight": 0}, *TURNS]}, "not to be learnt"),
        ({"messages": TURNS, "history": [["a", "b"]]}, "history"),
        ({"messages": TURNS, "context": "C"}, "context"),
        ({"messages": [TURNS[0], {**TURNS[1], "prefix": True}]}, "prefix"),
        ({"messages": [TURNS[0], {**TURNS[1], "loss": 0.5}]}, "the loss 0.5"),
        ({"messages": [{"role": "user", "content": "<audio>Who?"}, TURNS[1]]}, "<audio>"),
        ({"prompt": TURNS[:1], "completion": TURNS[1:], "chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        ({"prompt": TURNS[:1], "completion": TURNS[1:], "messages": TURNS}, "messages beside"),
        ({"question": "Which?", "options": {"text": ["a", "b"]}, "answer": "a"}, "options"),
        ({"question": "Which?", "prompt": "Who?", "answer": "a"}, "a prompt and a question"),
        ({"question": "Which?", "answer": "a", "completion": "b"}, "completion and answer"),
        ({"question": "Which?", "answers": ["a", "b"]}, "several answers"),
        ({**GOOD, "question": "Who are you?"}, "an instruction and a question"),
        ({**GOOD, "system_message": "A", "system_prompt": "B"}, "two system messages"),
        ({"messages": TURNS, "rejected_response": "Go."}, "chosen"),
        ({"conversation": TURNS, "messages": WORSE}, "messages and conversation"),
        ({"messages": [{"role": "system", "content": "A"}, *TURNS], "system": "B"}, "two system messages"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name_or_left_out_with_its_reason(tmp_path: Path, row: Any, key: str) -> None:
    path = written(tmp_path / "a.json", GOOD, row)
    with pytest.raises(MinilimaError) as refused:
        read_file(path)
    assert key in refused.value.what
    imported = read_file(path, reading=Reading(reject=True))
    assert [example.output for example in imported.examples] == ["Yes."]
    assert [item.id for item in imported.rejected] == ["row2"] and key in imported.rejected[0].reason


@pytest.mark.parametrize("empty", [None, "", [], "[]"])
def test_columns_that_are_there_and_empty_change_nothing(tmp_path: Path, empty: Any) -> None:
    row = {**GOOD, "images": empty, "tools": empty, "weight": 1, "train": True, "label": True}
    assert [example.output for example in read_file(written(tmp_path / "a.json", row)).examples] == ["Yes."]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**GOOD, "label": False}, "label_false"),
        ({**GOOD, "label": "False"}, "label_false"),
        ({"messages": TURNS, "label": False}, "label_false"),
        ({**GOOD, "weight": 0}, "weight_0"),
        ({**GOOD, "train": False}, "train_false"),
        ({**GOOD, "output": ""}, "empty_output"),
        ({**GOOD, "output": None}, "empty_output"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": ""}]}, "empty_output"),
        ({"messages": [TURNS[0], {**TURNS[1], "weight": 0}]}, "weight_0"),
    ],
)
def test_answers_that_are_not_to_be_learnt_are_left_out_with_the_reason(tmp_path: Path, row: Any, reason: str) -> None:
    imported = read_file(written(tmp_path / "a.json", row, GOOD))
    assert [example.id for example in imported.examples] == ["row2"]
    assert [(item.id, item.reason) for item in imported.rejected] == [("row1", reason)]
    assert imported.rejected[0].text in ("Say yes.", "Hi.")


@pytest.mark.parametrize(
    ("marks", "reason"),
    [({"loss": False}, "loss_false"), ({"train_on_turn": 0}, "train_on_turn_false"), ({"trainable": "false"}, "trainable_false"),
     ({"loss_mask": 0}, "loss_mask_false"), ({"masked": True}, "masked_true"), ({"mask": 1}, "mask_true"),
     ({"deleted": True}, "deleted_true"), ({"kto_tag": False}, "kto_tag_false"), ({"is_correct": False}, "is_correct_false")],
)  # fmt: skip
def test_marks_of_other_programs_for_what_is_not_learnt_are_honoured_in_rows_and_turns(
    tmp_path: Path, marks: dict[str, Any], reason: str
) -> None:
    rows = [GOOD, {**GOOD, **marks}, {"messages": [TURNS[0], {**TURNS[1], **marks}]}]
    imported = read_file(written(tmp_path / "a.json", *rows))
    assert len(imported.examples) == 1 and [item.reason for item in imported.rejected] == [reason] * 2
    config = load_config(["data=file", f"data.path={tmp_path / 'a.json'}"])
    assert POOL.recipe(config, resolve(config))["reader"] == 4, "an earlier version learned them"


def test_a_measured_loss_of_a_row_is_no_mark(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", {**GOOD, "loss": 2.31, "mask": [1, 0]})
    assert len(read_file(path).examples) == 1 and unused_by_examples(path, None, Reading()) == ["loss", "mask"]


def test_an_empty_system_turn_is_none_and_a_trailing_answer_without_weight_is_cut_off(tmp_path: Path) -> None:
    begun = [{"role": "system", "content": ""}, *TURNS, {"role": "user", "content": "More."}]
    row = {"messages": [*begun, {"role": "assistant", "content": "No.", "weight": 0}]}
    imported = read_file(written(tmp_path / "a.json", row))
    (example,) = imported.examples
    assert (example.system, example.instruction, example.output) == (None, "Hi.", "Hello.")
    assert [(item.text, item.output, item.reason) for item in imported.rejected] == [("More.", "No.", "weight_0")]


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Hi.", "chosen": "Hello.", "rejected": "Go."},
        {"prompt": "Hi.", "chosen": "Hello.", "rejected": "Go."},
        {"conversations": [{"from": "human", "value": "Hi."}], "chosen": {"from": "gpt", "value": "Hello."}, "rejected": {}},
        {"prompt": "Hi.", "chosen": TURNS, "rejected": WORSE},
        {"prompt": "Hi.", "chosen": TURNS[1:], "rejected": WORSE[1:]},
        {"chosen": TURNS, "rejected": WORSE},
        {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": WORSE[1:]},
        {"prompt": TURNS[:1], "chosen": "Hello.", "rejected": "Go."},
    ],
)  # fmt: skip
def test_the_chosen_side_is_imported_when_asked(tmp_path: Path, row: Any) -> None:
    (example,) = read_file(written(tmp_path / "a.json", row), reading=Reading(chosen=True)).examples
    assert (example.instruction, example.output, example.history) == ("Hi.", "Hello.", ())


def test_entries_of_preference_data_are_honoured(tmp_path: Path) -> None:
    sides = {"chosen": "good", "rejected": "bad"}
    path, layout = listed(
        tmp_path, {"ranking": True, "columns": {"prompt": "q", **sides}}, {"q": "Hi.", "good": "Hello.", "bad": "Go."}
    )
    with pytest.raises(MinilimaError, match="a chosen and a rejected answer"):
        read_file(path, layout)
    assert read_file(path, layout, Reading(chosen=True)).examples[0].output == "Hello."
    talk = {"conversations": [{"from": "human", "value": "Hi."}], "good": {"from": "gpt", "value": "Hello."}, "bad": {}}
    entry = {"ranking": True, "formatting": "sharegpt", "columns": {"messages": "conversations", **sides}}
    path, layout = listed(tmp_path, entry, talk)
    assert read_file(path, layout, Reading(chosen=True)).examples[0].output == "Hello."
    entry = {"formatting": "sharegpt", "columns": {"messages": "m", "kto_tag": "ok"}, "tags": None}
    rows = [
        {"m": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": text}], "ok": text != "Go."} for text in ("Go.", "Yo.")
    ]
    path, layout = listed(tmp_path, entry, *rows)
    imported = read_file(path, layout)
    assert [example.output for example in imported.examples] == ["Yo."]
    assert [item.reason for item in imported.rejected] == ["label_false"]


def test_all_broken_rows_are_counted_and_the_first_five_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", GOOD, *({"instruction": "x", "output": 5} for _ in range(7)))
    with pytest.raises(MinilimaError) as refused:
        read_file(path)
    assert refused.value.what.startswith("7 rows of ") and "data.on_bad_row=reject" in refused.value.fix
    assert [f"Row {number} " in refused.value.what for number in range(1, 9)] == [False, *[True] * 5, False, False]
    assert len(read_file(path, reading=Reading(reject=True)).rejected) == 7


def test_a_missing_column_names_those_that_are_there_and_the_mapping(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", {"frage": "Hi.", "antwort": "Hello."})
    with pytest.raises(MinilimaError) as refused:
        read_file(path)
    assert "frage, antwort" in refused.value.why and "data.columns.instruction=" in refused.value.why
    columns = (("instruction", "frage"), ("output", "antwort"))
    assert read_file(path, reading=Reading(columns=columns)).examples[0].output == "Hello."
    with pytest.raises(MinilimaError, match=r"no column ask.*frage, antwort"):
        read_file(path, reading=Reading(columns=(("instruction", "ask"),)))
    assert read_tasks(path, Reading(columns=columns[:1])).tasks == [("row1", "Hi.", "")]


def test_tasks_to_be_answered_keep_input_context_and_instances(tmp_path: Path) -> None:
    rows = [
        {"instruction": "A", "input": "x", "output": "old"},
        {"instruction": "B", "context": "y"},
        {"instruction": "C", "instances": [{"input": "1", "output": "o"}, {"input": "2", "output": "o"}]},
    ]
    assert unused_by_tasks(written(tmp_path / "u.json", *rows, {"instruction": "D", "topic": 1}), Reading()) == [
        "output",
        "topic",
    ]
    assert read_tasks(written(tmp_path / "a.json", *rows)).tasks == [
        ("row1", "A", "x"), ("row2", "B", "y"), ("row3", "C", "1"), ("row3.2", "C", "2"),
    ]  # fmt: skip


def test_dolly_and_belle_rows_are_read_as_they_are(tmp_path: Path) -> None:
    dolly = {"instruction": "Who won?", "context": "Ann beat Bob.", "response": "Ann.", "category": "closed_qa"}
    belle = {"id": "1", "conversations": [{"from": "human", "value": "你好"}, {"from": "assistant", "value": "你好!"}]}
    made = read_file(written(tmp_path / "a.json", dolly, belle)).examples
    assert [(one.instruction, one.input, one.output) for one in made] == [
        ("Who won?", "Ann beat Bob.", "Ann."), ("你好", "", "你好!"),
    ]  # fmt: skip


def test_only_imports_that_were_wrong_have_new_keys(tmp_path: Path) -> None:
    def recipe(*rows: Any, extra: tuple[str, ...] = ()) -> dict[str, Any]:
        config = load_config(["data=file", f"data.path={written(tmp_path / 'a.json', *rows)}", *extra])
        return {name: value for name, value in POOL.recipe(config, resolve(config)).items() if value is not None}

    plain = recipe(GOOD)
    assert plain == {"kind": "file", "file": sha256_file(tmp_path / "a.json"), "reader": 2}, "as it has been"
    assert recipe(GOOD, {**GOOD, "label": False})["reader"] == 3
    assert recipe({**GOOD, "context": "c"})["reader"] == 3
    mapped = recipe({"q": "Hi.", "output": "x"}, extra=("data.columns.instruction=q", "data.on_bad_row=reject"))
    assert mapped["columns"] == {"instruction": "q"} and mapped["on_bad_row"] == "reject"
    side = ("data.side=chosen",)
    assert recipe({"instruction": "Hi.", "chosen": "Hello.", "rejected": "Go."}, extra=side)["side"] == "chosen"
    config = load_config(["data=file", f"data.path={tmp_path / 'a.json'}", *side])
    assert stages(config, resolve(config))["pool"].key


def test_a_plan_names_the_columns_that_answers_do_not_use_once(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", *({"instruction": f"Do {n}.", "topic": "x"} for n in range(3)))
    overrides = ["data=answers", f"data.path={path}", f"paths.outputs={tmp_path / 'out'}"]
    config = load_config(overrides)
    sources = resolve(config)
    notes = make_plan(config, sources, stages(config, sources), Store(tmp_path / "out")).notes
    assert [note for note in notes if "topic" in note] == ["Columns of a that are not used: topic."]


def test_columns_and_keys_of_turns_that_examples_do_not_use_are_named_once(tmp_path: Path) -> None:
    rows = [
        {**GOOD, "id": 1, "score": 0.1, "label": 3, "weight": 1, "note": None},
        {"messages": [{**TURNS[0], "name": "bob"}, TURNS[1]], "score": 0.2, "system": "S"},
        {"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello.", "toxic": False}]},
        {"prompt": TURNS[:1], "completion": [{**TURNS[1], "toxic": True}], "label": True},
    ]
    path = written(tmp_path / "a.json", *rows)
    unused = ["score", "label", "name in messages", "toxic in conversations", "toxic in completion"]
    assert sorted(unused_by_examples(path, None, Reading())) == sorted(unused)
    path, layout = listed(tmp_path, {}, {**GOOD, "system": "S"})
    assert unused_by_examples(path, layout, Reading()) == ["system"], "an entry that names no system"
    sided = written(tmp_path / "b.json", {"prompt": "Hi.", "chosen": "Hello.", "rejected": "Go.", "margin": 2})
    assert unused_by_examples(sided, None, Reading(chosen=True)) == ["margin"]


def test_a_plan_names_what_an_import_and_an_evaluation_set_do_not_use(tmp_path: Path) -> None:
    data = written(tmp_path / "a.json", {**GOOD, "topic": "x"})
    prompts = written(tmp_path / "p.json", {"instruction": "Who?", "output": "Ann", "topic": "x", "rating": 2})
    overrides = [
        "data=file",
        f"data.path={data}",
        "eval_set=file",
        f"eval_set.path={prompts}",
        f"paths.outputs={tmp_path / 'out'}",
    ]
    config = load_config(overrides)
    sources = resolve(config)
    notes = make_plan(config, sources, stages(config, sources), Store(tmp_path / "out")).notes
    assert [note for note in notes if "not used" in note] == [
        "Columns of a that are not used: topic.", "Columns of p that are not used: topic, rating.",
    ]  # fmt: skip
    assert unused_by_prompts(prompts) == ["topic", "rating"]


def test_a_text_that_looks_like_a_list_stays_a_text(tmp_path: Path) -> None:
    rows = [
        {"prompt": "[1, 2, 3]", "completion": "[6]"},
        {"prompt": json.dumps(TURNS[:1]), "completion": json.dumps(TURNS[1:])},  # as a CSV holds turns
        {"prompt": "A", "completion": "B", "chosen": None, "rejected": None},
    ]
    imported = read_file(written(tmp_path / "a.json", *rows))
    assert [(each.instruction, each.output) for each in imported.examples] == [
        ("[1, 2, 3]", "[6]"),
        ("Hi.", "Hello."),
        ("A", "B"),
    ]
