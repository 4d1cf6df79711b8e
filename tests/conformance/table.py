"""Writes docs/reference/models.md from a run of the family tests: what was checked for each family, and what came out.

python -m tests.conformance.table      # runs the tests (minutes); exit status 1 where one failed
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conformance.families import FAMILIES, Family

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "models.md"
TESTS = Path(__file__).parent / "test_families.py"
COLUMNS = {
    "test_the_mask_covers_exactly_the_answers_and_their_ends": "loss on answers and ends only",
    "test_the_model_is_asked_with_the_prompt_it_was_trained_on": "asked as trained",
    "test_the_reference_loss_is_the_loss_of_the_same_text_in_training": "reference loss = training loss",
    "test_packed_examples_have_the_loss_of_each_alone": "packed = alone",
    "test_answers_in_a_batch_are_those_of_a_model_that_reads_everything_again": "batched answers = alone",
    "test_a_trained_model_says_its_answers_without_debris_and_stops": "saved model answers and stops",
    "test_merged_adapters_give_the_logits_of_the_model_with_adapters": "merged adapters",
    "test_no_date_and_no_chance_changes_a_rendering": "template stands still",
}
"""Test of `test_families.py` -> its column."""
_HEAD = """# Models that were checked

Written by `python -m tests.conformance.table`. For each family it builds a tiny model with random weights (its chat template, the
shape of its tokenizer, its architecture), trains it, and lets it answer. **Three real checkpoints were
loaded where these tests were written**: SmolLM2-135M-Instruct and Gemma 3 270M (a base model) in whole experiments,
Qwen2.5-Coder-1.5B-Instruct up to its answers. For every other family the table says that its form is handled, and nothing about
its weights.

"one a row": examples of this architecture would mix in one row, which the training finds by asking the loaded model; each then
has a row of its own. The gradient is the same, the training slower.
"""


class Outcomes:
    """A plugin of pytest that keeps what came out of each test of each family."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str], str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        test, _, rest = report.nodeid.rpartition("::")[2].partition("[")
        told = dict(report.user_properties)
        self.cells[test, rest.removesuffix("]")] = str(told.get("cell", "yes")) if report.passed else "**no**"


def page(cells: dict[tuple[str, str], str], families: Sequence[Family] = FAMILIES) -> str:
    """The page with a row for each family."""
    lines = ["| family | architecture | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for family in families:
        row = [cells.get((test, family.name), "not run") for test in COLUMNS]
        lines.append(f"| {family.name.replace('|', chr(92) + '|')} | `{family.architecture}` | {' | '.join(row)} |")
    return f"{_HEAD}\n" + "\n".join(lines) + "\n"


def main() -> int:
    outcomes = Outcomes()
    status = pytest.main(["-q", "-p", "no:warnings", str(TESTS)], plugins=[outcomes])
    PAGE.write_text(page(outcomes.cells), encoding="utf-8")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
