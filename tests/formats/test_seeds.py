"""Seed files: each mistake is named with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from minilima.errors import MinilimaError
from minilima.formats.seeds import load_seeds
from tests.conftest import SHARED


def seed(**changes: Any) -> dict[str, Any]:
    good = {"id": "a", "instruction": "Do this", "instances": [{"input": "", "output": "Done"}], "is_classification": False}
    return {**good, **changes}


def load(tmp_path: Path, *lines: object) -> object:
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return load_seeds(path)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (['{"id": '], "Line 1"),
        ([seed(), seed(id="b", instruction="  do  THIS ")], "occurs twice"),
        ([seed(), seed(instruction="Something else")], r"Seed task 2 .*\('a'\) has an id that occurs twice"),
        ([seed(instruction="")], "no proper instruction"),
        ([seed(instances=[])], "no proper instances"),
        ([seed(instances=[{"input": "x"}])], r"no proper instances\[0\]\.output"),
        ([seed(instruction="half \ud83d")], "half a character"),
        ([seed(instruction="<image>What is this?")], "the mark <image>"),
        ([seed(is_classification="no")], "no proper is_classification"),
        ([], "holds no seed task"),
    ],
)
def test_a_mistake_in_a_seed_file_is_named(tmp_path: Path, lines: list[object], named: str) -> None:
    with pytest.raises(MinilimaError, match=named):
        load(tmp_path, *lines)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published seed sets are not on this machine")
@pytest.mark.parametrize(("name", "count"), [("self-instruct", 175), ("laerebogen", 176)])
def test_published_seed_sets_are_read(name: str, count: int) -> None:
    assert len(load_seeds(SHARED / name / "seed_tasks.jsonl")) == count


def test_tasks_in_alpacas_columns_are_seeds_too(tmp_path: Path) -> None:
    path = tmp_path / "alpaca.csv"
    path.write_text("instruction,input,output\nAdd them.,2 and 3,5\nSay hi.,,hi\n")
    first, second = load_seeds(path)
    assert (first.id, first.instruction, first.input, first.output, first.is_classification) == (
        "1",
        "Add them.",
        "2 and 3",
        "5",
        False,
    )
    assert (second.id, second.input) == ("2", "")


def test_a_table_of_other_columns_is_refused_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"frage": "Wie?", "antwort": "So."}\n')
    with pytest.raises(MinilimaError, match="the columns that are there: frage, antwort"):
        load_seeds(path)
