"""The figures of a run rest on enough verdicts, or there are none."""

from pathlib import Path

import pytest

from minilima.evaluate.judged import read_judged
from minilima.evaluate.results import Results, compute_results
from minilima.formats.files import write_jsonl


def results(folder: Path, read: int, prompts: int, min_coverage: float) -> Results:
    """Of a run in which the first `read` of `prompts` verdicts could be read."""
    rows = [{"id": str(number), "preference": 2.0 if number < read else None} for number in range(prompts)]
    write_jsonl(folder / "verdicts.jsonl", rows)
    write_jsonl(folder / "reference_loss.jsonl", [])
    answer = {"instruction": "Say it", "output": "it", "generator": "model", "tokens": 1, "truncated": False}
    write_jsonl(folder / "answers.jsonl", [{"id": str(number), **answer} for number in range(prompts)])
    judged = read_judged({"verdicts": folder, "answers": folder, "base_answers": folder})
    assert judged is not None
    return compute_results(judged, min_coverage=min_coverage)


@pytest.mark.parametrize(
    ("read", "prompts", "minimum", "given"),
    [(9, 10, 0.9, True), (8, 10, 0.9, False), (1, 10, 0.0, True), (0, 10, 0.0, False), (10, 10, 1.0, True), (63, 90, 0.7, True)],
)
def test_a_win_rate_is_given_from_the_least_coverage_on(
    tmp_path: Path, read: int, prompts: int, minimum: float, given: bool
) -> None:
    found = results(tmp_path, read, prompts, minimum)
    assert (found.win_rate is not None) is given
    assert (found.coverage.judged, found.coverage.prompts) == (read, prompts)


def test_the_refusal_states_the_share_and_the_setting(tmp_path: Path) -> None:
    found = results(tmp_path, 8, 10, 0.9)
    assert "8 of 10 prompts judged (80.0%, less than judge.min_coverage=0.9)" in found.coverage.refusal()
