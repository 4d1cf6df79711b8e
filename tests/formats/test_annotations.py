"""Annotations files: every form that alpaca_eval has written is read, and what cannot be understood is named."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from minilima.errors import MinilimaError
from minilima.evaluate.statistics import win_rate
from minilima.formats.annotations import first_won, read_annotations, write_annotations, write_leaderboard
from tests.conftest import SHARED


def pair(preference: Any = 2, **fields: Any) -> dict[str, Any]:
    return {"instruction": "Name a river.", "output_1": "The Rhine.", "output_2": "Elbe", "preference": preference, **fields}


def written(folder: Path, content: object) -> Path:
    path = folder / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_old_and_new_field_names_mean_the_same(tmp_path: Path) -> None:
    old = pair(raw_completion="Output (b)", price_per_example=0.01, time_per_example=2.0, generator_2="m")
    new = pair(
        preference_raw_completion="Output (b)",
        preference_price_per_example=0.01,
        preference_time_per_example=2.0,
        generator_2="m",
    )
    (run,) = read_annotations(written(tmp_path, [old, dict(reversed(new.items()))]))
    first, second = run.annotations
    assert first == second
    assert (first.raw_completion, first.usd, first.seconds) == ("Output (b)", 0.01, 2.0)


def test_draws_of_every_release_are_draws_and_missing_verdicts_stay_as_unread(tmp_path: Path) -> None:
    values = [1, 2, 1.5, 0, 0.0, None, -1, -1.0, float("nan"), 1.25]
    (run,) = read_annotations(written(tmp_path, [pair(value) for value in values]))
    assert run.preferences == [1, 2, 1.5, 1.5, 1.5, None, None, None, None, 1.25]
    rate = win_rate(run.preferences)
    assert rate is not None and (rate.wins, rate.losses, rate.ties, rate.judged, rate.prompts) == (1, 2, 3, 6, 10)


def test_a_file_of_several_models_and_judges_is_taken_apart(tmp_path: Path) -> None:
    rows = [pair(generator_2=model, annotator=judge) for model in ("a", "b") for judge in ("x", "y")]
    runs = read_annotations(written(tmp_path, [*rows, pair(1, generator_2="a", annotator="y")]))
    assert [(run.generator, run.judge, len(run.annotations)) for run in runs] == [
        ("a", "x", 1), ("a", "y", 2), ("b", "x", 1), ("b", "y", 1),
    ]  # fmt: skip


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(gzip.compress(json.dumps([pair(generator_2="m")]).encode()))
    assert read_annotations(path)[0].generator == "m"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(MinilimaError, match="cannot be unpacked"):
        read_annotations(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[{", "not JSON"),
        ("[]", "an empty list"),
        ('{"instruction": "x"}', "output_1 is missing"),
        ('[{"instruction": "x", "output": "y"}]', "output_1 is missing"),
        ([pair(), 3], "Row 2"),
        ([pair(0.7)], "preference is 0.7"),
        ([pair(3)], "preference is 3"),
        ([pair("2")], "'2', not a number"),
        ([pair(True)], "True, not a number"),
        ([pair(float("inf"))], "not a number"),
        ([pair(output_2=5)], "output_2 is not a text"),
    ],
)
def test_what_is_no_annotation_is_named(tmp_path: Path, content: object, named: str) -> None:
    with pytest.raises(MinilimaError, match=named.replace("(", r"\(")):
        read_annotations(written(tmp_path, content))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(MinilimaError, match="There is no file"):
            read_annotations(path)


@pytest.mark.parametrize(
    ("raw", "first"),
    [
        ("Output (a)", True),
        ("I think so.\nOutput (b)", False),
        ("Output (a)\nOutput (b)", None),
        ({"ordered_models": [{"model": "M", "rank": 1}, {"model": "m", "rank": 2}]}, False),
        ('{"ordered_models": [{"model": "M", "rank": 2}, {"model": "m", "rank": 1}]}', True),
        ({"logprobs": {"content": [{"top_logprobs": [{"token": "x", "logprob": 0}, {"token": "m", "logprob": -1}]}]}}, True),
        ({"logprobs": {"content": [{"top_logprobs": [{"token": "x", "logprob": 0}]}]}}, None),
        ({"logprobs": None}, None),
        (None, None),
    ],
)
def test_the_reply_tells_which_position_won(raw: Any, first: bool | None) -> None:
    assert first_won(raw) is first


def test_written_annotations_are_alpaca_evals_and_read_back_the_same(tmp_path: Path) -> None:
    source = [pair(1.25, generator_1="base", generator_2="m", annotator="j", dataset="koala", raw_completion="M"), pair(None)]
    run, _ = read_annotations(written(tmp_path, source))
    path = tmp_path / "again.json"
    write_annotations(path, run)
    assert read_annotations(path) == [run]
    # What alpaca_eval 0.6.6 itself does with the file.
    frame = pd.read_json(path)
    assert list(frame.columns)[:8] == [
        "dataset", "instruction", "output_1", "generator_1", "output_2", "generator_2", "annotator", "preference",
    ]  # fmt: skip
    assert frame["preference"].tolist() == [1.25]


def test_a_leaderboard_is_sorted_and_has_alpaca_evals_columns(tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.csv"
    rows: dict[str, dict[str, object]] = {
        "low": {"win_rate": 10.0, "length_controlled_winrate": 20.0},
        "raw, only": {"win_rate": 90.0},
        "high": {"win_rate": 5.0, "length_controlled_winrate": 30.0},
    }
    write_leaderboard(path, rows)
    frame = pd.read_csv(path, index_col=0)
    assert list(frame.index) == ["high", "low", "raw, only"]
    if SHARED.is_dir():
        board = SHARED / "alpaca_eval" / "leaderboards" / "data_AlpacaEval_2__weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"
        with board.open() as lines:
            assert next(csv.reader(lines)) == ["", *frame.columns]
