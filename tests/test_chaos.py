"""The short form of benchmarks/chaos.py: one case of each quick kind, disturbed, gone on with, and compared byte by byte."""

import pytest

from benchmarks.chaos import run_cases


@pytest.mark.slow
def test_disturbed_experiments_end_as_if_nothing_had_been() -> None:
    said: list[str] = []
    kinds = ["kill_at_random", "kill_at_operation", "faults", "batch", "two_processes", "damaged_file", "full_disk"]
    ends = run_cases(kinds, 1, 2, said.append)
    assert [end for _, end, _ in ends if end == "failed"] == [], "\n".join(said)
    assert len(ends) == len(kinds)
