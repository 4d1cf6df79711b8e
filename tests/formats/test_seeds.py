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
