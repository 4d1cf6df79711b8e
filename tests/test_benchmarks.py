"""The benchmarks load with the code of today; what they measure is run by hand, and its results are committed."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("name", [file.stem for file in sorted(FOLDER.glob("*.py")) if file.stem != "__init__"])
def test_a_benchmark_loads(name: str) -> None:
    assert importlib.import_module(f"benchmarks.{name}").__doc__, "it says what it measures, and by which command"
