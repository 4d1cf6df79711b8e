"""Paths with any characters: a folder of groups works below them, and an override works or the error shows the exact quoting."""

import shlex
from pathlib import Path

import pytest

from minilima.config.compose import load_config
from minilima.config.quoting import quoted
from minilima.errors import MinilimaError

NAMES = [
    "plain",
    "mit leer",
    "a=b",
    "a,b",
    "a(b)",
    "ünï 说",
    "it's",
    "a[b]",
    "a{b}",
    "a:b",
    'q"q',
    "100%",
    "back\\slash",
    "end\\",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_groups_works_below_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    (folder / "eval_set").mkdir(parents=True)
    (folder / "eval_set" / "mine.yaml").write_text("packaged: minilima_100\nsize: 7\n")
    assert load_config(["eval_set=mine"], config_dir=str(folder)).eval_set.size == 7


@pytest.mark.parametrize("name", NAMES)
def test_an_override_with_any_path_works_or_the_error_shows_the_quoting_that_does(name: str) -> None:
    path = f"/data/{name}/x.json"
    assert load_config([f"data.path={quoted(path)}"]).data.path == path
    try:
        assert load_config([f"data.path={path}"]).data.path == path
    except MinilimaError as error:
        typed = error.fix.partition("type: ")[2]
        assert load_config(shlex.split(typed)).data.path == path


def test_what_quotes_do_not_help_is_not_quoted() -> None:
    with pytest.raises(MinilimaError) as refused:
        load_config(["=3"])
    assert "type:" not in refused.value.fix
