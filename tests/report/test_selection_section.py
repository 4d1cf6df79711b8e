"""What a run's page says of the choice: the picks that methods share, and charts only where there is something to show."""

import json
from pathlib import Path
from typing import Any

import pytest

from minilima.formats.files import write_jsonl
from minilima.report.selection_section import compared_size, selection_section, shared
from minilima.store.entries import Artifact
from minilima.store.job import Stage


def data_set(root: Path, select: str, order: list[str], chosen: int, pool: str = "p", *, scores: bool = True) -> Artifact:
    """A data set of the store, with its order."""
    folder = root / f"dataset-{select}-{pool}"
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = [
        {"rank": rank, "id": name, "source": "file", "words": rank, "instruction": f"Write a poem about {name}."}
        | ({"score": 1 / rank} if scores else {})
        for rank, name in enumerate(order, start=1)
    ]
    write_jsonl(folder / "order.jsonl", rows)
    manifest = {"recipe": {"select": select}, "inputs": {"pool": pool}, "metrics": {"examples": chosen}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Artifact(stage=Stage(name="dataset", version=1, recipe={}), path=folder, manifest=manifest, how="built")


def test_methods_share_so_many_of_their_first_picks() -> None:
    methods = {"one": [("f", "a"), ("f", "b"), ("f", "c")], "two": [("f", "b"), ("f", "c"), ("f", "a")]}
    assert shared(methods, 2) == [[100, 50], [50, 100]]
    assert shared(methods, 3) == [[100, 100], [100, 100]]
    assert (compared_size(40, 175), compared_size(175, 175), compared_size(3, 3)) == (40, 18, 1)


def test_a_choice_is_shown_beside_the_other_methods_of_the_same_examples(tmp_path: Path) -> None:
    letters = list("abcdefghij")
    own = data_set(tmp_path, "ifd", letters, 4)
    data_set(tmp_path, "long", letters[::-1], 4, scores=False)
    data_set(tmp_path, "rds", letters, 4, pool="another")
    data_set(tmp_path, "perplexity", letters[:5], 2)
    section = selection_section(own)
    assert section is not None
    assert "ifd, long" in section["overlap"].label and "rds" not in section["overlap"].label
    assert (section["compared"], section["by_chance"]) == (4, 40)
    assert "4 of them chosen" in section["scatter"].label
    assert [bar.title for bar in section["topics"].bars] == ["write: 4 of 10 chosen"]


@pytest.mark.parametrize(("chosen", "scores", "shown"), [(4, False, True), (10, True, True), (10, False, False)])
def test_what_took_all_examples_without_scores_has_nothing_to_show(
    tmp_path: Path, chosen: int, scores: bool, shown: bool
) -> None:
    section = selection_section(data_set(tmp_path, "random", list("abcdefghij"), chosen, scores=scores))
    assert (section is not None) is shown
    if section is not None:
        assert (section["scatter"] is not None) is scores and (section["topics"] is not None) is (chosen < 10)
        assert section["overlap"] is None, "there is no other method"


def test_an_older_data_set_has_no_order(tmp_path: Path) -> None:
    made = data_set(tmp_path, "ifd", list("abc"), 2)
    (made.path / "order.jsonl").unlink()
    assert selection_section(made) is None
