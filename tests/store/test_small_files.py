"""Small files of ours that are damaged: what can be made again is, and for the rest the next command is named."""

import json
from pathlib import Path

import pytest

from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.formats.files import recorded, remembered
from minilima.models.fingerprint import fingerprint_directory
from minilima.store.entries import Store, checked_manifest
from minilima.store.job import Outcome, Stage
from minilima.train.callbacks import COMPLETE, mark_complete, newest_checkpoint

DAMAGE = ["", "{", "null", "[]", '{"a": 1}', '{"metrics": []}', "\0" * 40, "[" * 5_000, "\udcff", "7"]


def damage(file: Path, text: str) -> None:
    file.write_bytes(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("text", DAMAGE)
def test_hashes_that_cannot_be_read_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MINILIMA_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("x")
    before = fingerprint_directory(model)
    damage(tmp_path / "cache" / "fingerprints.json", text)
    assert fingerprint_directory(model) == before
    assert len(json.loads((tmp_path / "cache" / "fingerprints.json").read_text())) >= 1


@pytest.mark.parametrize("text", DAMAGE)
def test_a_checkpoint_whose_mark_cannot_be_read_is_not_taken(tmp_path: Path, text: str) -> None:
    whole, later = tmp_path / "checkpoint-3", tmp_path / "checkpoint-9"
    for folder in (whole, later):
        folder.mkdir()
        (folder / "weights").write_text("x")
        if folder == whole:
            mark_complete(whole)
    damage(later / COMPLETE, text)
    assert newest_checkpoint(tmp_path) == str(whole)


@pytest.mark.parametrize("text", DAMAGE)
def test_a_manifest_of_wrong_types_is_damage_with_the_next_command(tmp_path: Path, text: str) -> None:
    path = Store(tmp_path).get_or_build(Stage(name="pool", version=1, recipe={}), lambda work: Outcome(metrics={})).path
    damage(path / "manifest.json", text)
    with pytest.raises(MinilimaError, match=r"is damaged.*rm -r"):
        checked_manifest(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metrics", {"tasks": 9}),
        ("recipe", {"b": 2}),
        ("version", 2),
        ("usage", {}),
        ("host", "other"),
        ("files", {}),
        ("key", "0" * 16),
    ],
)
def test_an_edited_manifest_is_found(tmp_path: Path, field: str, value: object) -> None:
    def build(work: Path) -> Outcome:
        (work / "pool.jsonl").write_text("{}")
        return Outcome(metrics={"tasks": 1})

    path = Store(tmp_path).get_or_build(Stage(name="pool", version=1, recipe={"a": 1}), build).path
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest, indent=4))
    checked_manifest(path)
    (path / "manifest.json").write_text(json.dumps({**manifest, field: value}))
    with pytest.raises(MinilimaError, match=r"edited after|of another entry"):
        checked_manifest(path)


def test_an_entry_of_an_earlier_version_has_no_seal_and_its_recipe_is_checked(tmp_path: Path) -> None:
    path = Store(tmp_path).get_or_build(Stage(name="pool", version=1, recipe={"a": 1}), lambda work: Outcome(metrics={})).path
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["sha256"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert checked_manifest(path)["recipe"] == {"a": 1}
    (path / "manifest.json").write_text(json.dumps({**manifest, "recipe": {"a": 2}}))
    with pytest.raises(MinilimaError, match="edited after"):
        checked_manifest(path)


def test_what_only_its_command_can_write_again_is_named_with_it(tmp_path: Path) -> None:
    file = tmp_path / "sweep.json"
    assert remembered(file, dict) is None
    for text in ("{", '{"points": 5}', "\0"):
        file.write_text(text)
        with pytest.raises(MinilimaError, match=r"sweep\.json cannot be read\. .*Run it again") as caught:
            recorded(file, lambda written: [point["run"] for point in written["points"]], "Run it again.")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"name: \xff\xfe",
        b"name: !!python/object/apply:os.system ['true']",
        b"name: a\0b",
        b"\xff\xfen\0a\0",
        b"a: {" * 5_000,
        b"- [",
        b"&",
    ],
)
def test_settings_that_are_no_plain_yaml_are_one_paragraph_with_the_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_bytes(b"# @package _global_\n" + content)
    with pytest.raises(MinilimaError, match=r"mine\.yaml cannot be read as settings") as caught:
        load_config(["+experiment=mine"], config_dir=str(tmp_path))
    assert len(str(caught.value)) < 700


def test_an_unreadable_file_that_is_not_chosen_is_not_blamed(tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\nsft: {epoch: 2}\n")
    file.with_name("another.yaml").write_bytes(b"\xff")
    with pytest.raises(MinilimaError, match=r"Did you mean sft\.epochs"):
        load_config(["+experiment=mine"], config_dir=str(tmp_path))


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))


@pytest.mark.parametrize("content", [BOMB, "name: &a [*a]\n", "sft: &a {epochs: 2, x: *a}\n"])
def test_aliases_that_stand_for_too_much_are_refused_before_they_are_followed(tmp_path: Path, content: str) -> None:
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(f"# @package _global_\n{content}")
    with pytest.raises(MinilimaError, match=r"mine\.yaml cannot be read as settings\. Its aliases"):
        load_config(["+experiment=mine"], config_dir=str(tmp_path))


def test_a_few_aliases_are_followed(tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\nname: &a twice\ndata:\n  blocked_words: [*a, *a]\n")
    assert load_config(["+experiment=mine"], config_dir=str(tmp_path)).data.blocked_words == ["twice", "twice"]


def test_a_null_byte_in_a_setting_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text('# @package _global_\npaths:\n  outputs: "a\\0b"\n')
    with pytest.raises(MinilimaError, match=r"paths\.outputs"):
        load_config(["+experiment=mine"], config_dir=str(tmp_path))
