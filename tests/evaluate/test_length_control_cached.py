"""The length-controlled win rate of a run: the right form for its evaluation set, fitted once and remembered."""

from pathlib import Path

import pytest

from minilima.evaluate.length_control_cached import length_controlled_win_rate
from minilima.evaluate.length_control_tables import LengthControlled, NotKnown
from minilima.formats.annotations import Annotation, Run, read_annotations
from tests.conftest import SHARED


def run(lengths: list[int], baseline: str = "base") -> Run:
    """A run whose judge mostly, not always, prefers the longer answer; the baseline's answers have 20 characters."""
    rows = [
        Annotation(
            instruction=f"Say {n}",
            output_1="x" * 20,
            output_2="y" * length,
            preference=2.0 if (length > 20) != (n % 5 == 0) else 1.0,
        )
        for n, length in enumerate(lengths)
    ]
    return Run(generator="tuned", baseline=baseline, judge="judge", annotations=tuple(rows))


def test_another_evaluation_set_gets_the_minimal_form_with_an_interval_and_it_is_remembered(tmp_path: Path) -> None:
    mixed = run([10, 30, 35, 45, 12, 60, 33, 28, 50, 15] * 4)
    found = length_controlled_win_rate(mixed, "key", None, tmp_path)
    assert isinstance(found, LengthControlled) and found.interval is not None and "minimal" in found.how
    assert found.interval.low <= found.value <= found.interval.high
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    assert length_controlled_win_rate(mixed, "key", None, tmp_path) == found
    assert file.stat().st_mtime_ns == before, "read, not fitted anew"
    length_controlled_win_rate(mixed, "another key", None, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_figure_that_would_be_a_guess_is_refused_with_the_reason(tmp_path: Path) -> None:
    always_longer = run([30, 35, 45, 60] * 5)
    found = length_controlled_win_rate(always_longer, "key", None, tmp_path)
    assert isinstance(found, NotKnown) and "longer" in found.reason
    assert length_controlled_win_rate(always_longer, "key", None, tmp_path) == found
    against_alpaca = length_controlled_win_rate(run([10, 30] * 5, "gpt4_1106_preview"), "other", None, tmp_path)
    assert isinstance(against_alpaca, NotKnown) and "not AlpacaEval's" in against_alpaca.reason


@pytest.mark.skipif(not SHARED.is_dir(), reason="AlpacaEval's published data are not on this machine")
def test_against_alpaca_evals_baseline_the_official_form_is_used(tmp_path: Path) -> None:
    folder = SHARED / "alpaca_eval"
    (published,) = read_annotations(folder / "annotations" / "alpaca-7b.weighted_alpaca_eval_gpt4_turbo.json.gz")
    found = length_controlled_win_rate(published, "key", folder, tmp_path)
    assert isinstance(found, LengthControlled) and found.how == "published weights"
    assert found.value == pytest.approx(5.8754871633, abs=1e-6)
    assert length_controlled_win_rate(published, "key", folder, tmp_path) == found
