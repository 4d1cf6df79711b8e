"""Labelled pairs are read from each format, and several people's labels of one pair belong together."""

import gzip
import json
from pathlib import Path

import pytest

from minilima.errors import MinilimaError
from minilima.formats.preferences import majority, read_labels, read_published
from tests.conftest import SHARED

OURS = {"instruction": "Say a", "output_1": "a", "output_2": "b", "preference": 1, "reference": "a"}


def test_each_format_gives_the_same_pairs(tmp_path: Path) -> None:
    auto_j = {"prompt": "Say a", "response 1": "a", "response 2": "b", "label": 0}
    files = {name: tmp_path / name for name in ("ours.jsonl", "list.json", "auto.jsonl.gz")}
    files["ours.jsonl"].write_text(json.dumps(OURS) + "\n")
    files["list.json"].write_text(json.dumps([{**OURS, "annotator": 3, "raw_preference": 1}]))
    files["auto.jsonl.gz"].write_bytes(gzip.compress(json.dumps(auto_j).encode()))
    pairs = {name: read_labels(file).pairs[0] for name, file in files.items()}
    assert len({pair.id for pair in pairs.values()}) == 1
    assert {pair.labels for pair in pairs.values()} == {(1.0,)}
    assert pairs["ours.jsonl"].reference == "a" and pairs["auto.jsonl.gz"].reference is None


def test_a_pair_that_occurs_again_was_labelled_by_another_person(tmp_path: Path) -> None:
    file = tmp_path / "people.jsonl"
    file.write_text("".join(json.dumps({**OURS, "preference": value}) + "\n" for value in (1, 2, 2, 1.5)))
    (pair,) = read_labels(file).pairs
    assert pair.labels == (1.0, 2.0, 2.0, 1.5) and pair.label == 2.0


@pytest.mark.parametrize(("labels", "most"), [((1.0, 2.0), 1.5), ((1.2, 1.4, 2.0), 1.0), ((1.5, 1.5, 2.0), 1.5)])
def test_a_majority_is_a_tie_where_two_choices_are_equally_frequent(labels: tuple[float, ...], most: float) -> None:
    assert majority(labels) == most


def test_a_sample_is_the_same_every_time_and_lies_inside_a_larger_one(tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps({**OURS, "instruction": f"Say {n}"}) + "\n" for n in range(50)))
    small, large, every = (read_labels(file, size) for size in (5, 20, None))
    assert len(small.pairs) == 5 and set(small.pairs) < set(large.pairs) < set(every.pairs)
    assert small.data == read_labels(file, 5).data != large.data


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "holds no pairs"),
        ('{"instruction": "a", "output_1": "b"}', "Row 1 .*|output_2 is missing"),
        ('{"instruction": "a", "output_1": "b", "output_2": "c", "preference": 3}', "Row 1"),
        ('{"instruction": "a", "output_1": "b", "output_2": "c", "preference": true}', "Row 1"),
        ('{"prompt": "a", "response 1": "b", "response 2": "c", "label": 5}', "Row 1"),
        ("[[1]]", "Row 1"),
    ],
)
def test_what_is_no_labelled_pair_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(MinilimaError, match=named):
        read_labels(tmp_path / "bad.jsonl")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the labelled pairs are not on this machine")
def test_real_files_are_read_whole() -> None:
    people = read_labels(SHARED / "judges" / "autoj_pairwise_dev.jsonl.gz")
    assert sum(len(pair.labels) for pair in people.pairs) == 696
    assert {pair.label for pair in people.pairs} == {1.0, 1.5, 2.0}
    (published,) = read_published(SHARED / "alpaca_eval/annotations/text_davinci_001.weighted_alpaca_eval_gpt4_turbo.json.gz")
    assert (len(published.pairs), published.model, published.by) == (803, "text_davinci_001", "weighted_alpaca_eval_gpt4_turbo")
