"""Trees of messages become one conversation each, along the best-ranked replies; nothing beside it is lost in silence."""

import json
from pathlib import Path
from typing import Any

import pytest

from minilima.errors import MinilimaError
from minilima.formats.imports import Imported, Reading, read_file


def message(name: str, parent: str | None, text: str, rank: int | None = None, **more: Any) -> dict[str, Any]:
    role = "prompter" if name.startswith("p") else "assistant"
    return {"message_id": name, "parent_id": parent, "message_tree_id": "p1", "role": role, "text": text, "rank": rank, **more}


FLAT = [
    message("p1", None, "Hi."), message("a1", "p1", "Go.", 1), message("a2", "p1", "Hello.", 0), message("p2", "a2", "Bye?"),
    message("p3", "a2", "And you?"), message("a3", "p3", "Fine.", 0), message("a4", "p3", "Spam.", 1, deleted=True),
    message("p4", "a1", "Why?"),
]  # fmt: skip
SAID = [("user", "Hi."), ("assistant", "Hello."), ("user", "And you?"), ("assistant", "Fine.")]


def nested(name: str) -> dict[str, Any]:
    (values,) = [row for row in FLAT if row["message_id"] == name]
    replies = [nested(row["message_id"]) for row in FLAT if row["parent_id"] == name]
    return {key: value for key, value in values.items() if key != "parent_id"} | {"replies": replies}


def read(path: Path, *rows: Any, reading: Reading | None = None) -> Imported:
    path.write_text(json.dumps(rows))
    return read_file(path, reading=reading)


def said(imported: Imported) -> list[list[tuple[str, str]]]:
    return [[(turn["role"], turn["content"]) for turn in example.messages()] for example in imported.examples]


def test_flat_rows_are_read_along_the_best_ranked_path(tmp_path: Path) -> None:
    imported = read(tmp_path / "a.json", *FLAT)
    assert said(imported) == [SAID] and imported.examples[0].id == "row1"
    assert {row.text: row.reason for row in imported.rejected} == {
        "Go.": "lower_ranked", "Why?": "lower_ranked", "Bye?": "lower_ranked", "Spam.": "deleted",
    }  # fmt: skip
    assert said(read(tmp_path / "b.json", *reversed(FLAT))) == [SAID], "whatever the order of the rows"


def test_nested_trees_say_the_same(tmp_path: Path) -> None:
    tree = {"message_tree_id": "p1", "tree_state": "ready_for_export", "prompt": nested("p1")}
    imported = read(tmp_path / "a.json", tree, {"prompt": {**message("p9", None, "Alone."), "replies": []}})
    assert said(imported) == [SAID] and len(imported.rejected) == 5
    assert imported.rejected[-1].reason == "unanswered" and imported.rejected[-1].id == "row2"


def test_a_tree_whose_best_answer_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    unranked = [message("p1", None, "Hi."), message("a1", "p1", "A."), message("a2", "p1", "B.")]
    with pytest.raises(MinilimaError, match=r"Row 1 of .* begins a tree with 2 answers to one message, not all of them ranked"):
        read(tmp_path / "a.json", *unranked)
    orphan = message("a7", "gone", "C.")
    with pytest.raises(MinilimaError, match=r"Row 3 of .* answers a message that is not in the file"):
        read(tmp_path / "a.json", *unranked[:2], orphan)
    imported = read(tmp_path / "a.json", *unranked[:2], orphan, reading=Reading(reject=True))
    assert said(imported) == [[("user", "Hi."), ("assistant", "A.")]]
    assert [row.reason for row in imported.rejected] == ["answers a message that is not in the file"]
    with pytest.raises(MinilimaError, match="has a message_id that occurs twice"):
        read(tmp_path / "a.json", *unranked[:2], unranked[1])


def test_a_deep_tree_is_no_matter(tmp_path: Path) -> None:
    rows = [message("p0", None, "0")] + [
        message(f"{'pa'[at % 2]}{at}", f"{'pa'[(at - 1) % 2]}{at - 1}", str(at), 0) for at in range(1, 3000)
    ]
    (turns,) = said(read(tmp_path / "a.json", *rows))
    assert len(turns) == 3000
