"""Where results lie by themselves: what was built above is found from a subfolder, and a new store is named once."""

from pathlib import Path

import pytest

from minilima.cli.reference import lines_of_settings
from minilima.config.compose import load_config
from minilima.config.outputs import outputs_folder, store_note
from tests.cli.test_commands import minilima


@pytest.fixture
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, two below one with a store."""
    (tmp_path / "outputs" / "store").mkdir(parents=True)
    (tmp_path / "a" / "b" / "outputs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    monkeypatch.delenv("MINILIMA_OUTPUTS", raising=False)
    return tmp_path / "a" / "b"


def test_the_nearest_store_above_is_found_and_named(below: Path) -> None:
    assert outputs_folder() == "../../outputs", "the folder outputs/ here has no store"
    assert load_config([]).paths.outputs == "../../outputs"
    assert str(below.parent.parent / "outputs") in str(store_note(Path("../../outputs")))
    (below / "outputs" / "store").mkdir()
    assert outputs_folder() == "outputs" and store_note(Path("outputs")) is None


def test_a_variable_names_the_folder_and_the_setting_wins_over_it(below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILIMA_OUTPUTS", str(below / "elsewhere"))
    assert load_config([]).paths.outputs == str(below / "elsewhere")
    assert load_config(["paths.outputs=here"]).paths.outputs == "here"
    assert "New store at" in str(store_note(below / "elsewhere"))


def test_the_reference_names_no_folder_of_the_machine_that_wrote_it(below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILIMA_OUTPUTS", str(below / "elsewhere"))
    assert [line.default for line in lines_of_settings()["paths"] if line.name == "paths.outputs"] == ["auto"]


def test_a_folder_of_someone_else_is_not_used_unasked(below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert outputs_folder() == "outputs"


def test_a_new_store_is_named_once(tmp_path: Path, tiny_model: Path) -> None:
    arguments = [f"paths.outputs={tmp_path / 'new'}", f"model.path={tiny_model}", "until=pool", "data=file", "tracking=none"]
    (tmp_path / "own.jsonl").write_text('{"instruction": "Say one.", "output": "one"}\n')
    first, second = (minilima(*arguments, f"data.path={tmp_path / 'own.jsonl'}").stdout for _ in range(2))
    # A long path is folded at the terminal's width.
    named = f"New store at {tmp_path / 'new' / 'store'}"
    assert "".join(named.split()) in "".join(first.split()) and "New store" not in second
