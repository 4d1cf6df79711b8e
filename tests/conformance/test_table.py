"""The page of checked models holds a row for each family and a column for each test, and nothing in it failed."""

import re

from tests.conformance.families import FAMILIES
from tests.conformance.table import COLUMNS, PAGE, TESTS


def test_the_page_names_every_family_and_every_test() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert [cell.strip() for cell in rows[0][2:]] == list(COLUMNS.values())
    assert [row[0].strip().replace("\\|", "|") for row in rows[1:]] == [family.name for family in FAMILIES]
    cells = {cell.strip() for row in rows[1:] for cell in row[2:]}
    assert cells == {"yes", "one a row", "no adapters in peft"}


def test_every_test_of_a_family_is_a_column() -> None:
    assert set(re.findall(r"^def (test_\w+)\(", TESTS.read_text(encoding="utf-8"), flags=re.M)) == set(COLUMNS)
