"""The benchmarks load with the code of today; what they measure is run by hand, and its results are committed."""

import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import measured, readme
from benchmarks.publish import publish

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("name", [file.stem for file in sorted(FOLDER.glob("*.py")) if file.stem != "__init__"])
def test_a_benchmark_loads(name: str) -> None:
    assert importlib.import_module(f"benchmarks.{name}").__doc__, "it says what it measures, and by which command"


def test_the_page_of_the_benchmarks_says_what_was_measured() -> None:
    written = readme.README.read_text(encoding="utf-8")
    generated = readme.without_marks(readme.render(readme.results()))
    assert readme.without_marks(written) == generated, "python benchmarks/readme.py writes it"


def test_every_result_has_a_row_and_names_what_it_knows() -> None:
    table = readme.README.read_text(encoding="utf-8").partition("## Results")[2]
    assert set(re.findall(r"\]\(results/(\w+)\.json\)", table)) == set(readme.results())
    old = {"machine": {"processor": "P", "cores": 2}, "versions": {"torch": "2.11.0"}, "command": "python benchmarks/client.py"}
    assert readme.origin(old).split(" | ")[:2] == [readme.NOT_RECORDED] * 2 and "GPU not recorded" in readme.origin(old)
    new = {**old, "machine": {"processor": "P", "cores": 2, "gpu": "H100"}, "gpus": 2, "date": "2026-11-26", "commit": "0123"}
    assert readme.origin(new) == "2026-11-26 | 0123 | not recorded | 2.11.0 | not recorded | P, 2 cores, 2 x H100"


def test_no_figure_of_a_result_is_written_by_hand() -> None:
    template = (FOLDER / "README.md.j2").read_text(encoding="utf-8")
    by_hand = re.sub(r"\{[{%].*?[%}]\}|`[^`]*`", "", template, flags=re.S)
    measured_ones = {shown for record in readme.results().values() for value in numbers(record) for shown in forms(value)}
    written = re.findall(r"(?<![\w.])\d[\d,]*\.?\d*(?=[ ,;:)|]|\.\s)", by_hand)
    digits = {figure: re.sub(r"\D", "", figure).strip("0") for figure in written}  # goals are round
    assert [figure for figure in written if len(digits[figure]) > 2 and figure in measured_ones] == []


def numbers(value: Any) -> Iterator[float]:
    """All figures of a result, but not what describes the machine or counts."""
    if isinstance(value, dict):
        yield from (
            number for name, item in value.items() if name not in ("units", "machine", "versions") for number in numbers(item)
        )
    elif isinstance(value, list):
        yield from (number for item in value for number in numbers(item))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def forms(value: float) -> set[str]:
    """How a figure can stand in a text: rounded, or as a percentage."""
    return {f"{amount:{form}}" for amount in (value, 100 * value) for form in (",.0f", ".0f", ",.1f", ",.2f")}


def test_figures_beside_a_link_to_a_result_stand_in_it() -> None:
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    flat = " ".join(text.split())
    for match in re.finditer(r"\]\(benchmarks/(?:results/(\w+)\.json|README\.md)\)", flat):
        record = readme.results()[match[1]] if match[1] else readme.results()
        known = {shown for value in numbers(record) for shown in forms(value)}
        ratios = re.findall(r"([\d.]+) times", readme.README.read_text()) if not match[1] else []
        known |= {shown for ratio in ratios for shown in forms(float(ratio))}
        said = re.split(r"\. | \| |\]\(", flat[: match.start()])[-1]
        for figure in re.findall(r"(?<![\w.`=])\d[\d,]*(?:\.\d+)?(?= |;)", said):
            assert figure in known, f"{figure} is not in {match[0]}"


def test_a_result_names_its_code_and_is_marked_once_the_code_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ("benchmarks/client.py", "minilima/models/endpoint.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("1")
    monkeypatch.setattr(measured, "ROOT", tmp_path)
    monkeypatch.setattr(measured, "MEASURES", {"client": ("minilima/models",)})
    monkeypatch.setattr(sys, "argv", ["benchmarks/client.py", "--json", "x"])
    publish({"wall": (1.0, "seconds")}, tmp_path / "client.json")
    record = json.loads((tmp_path / "client.json").read_text())
    assert {"commit", "date", "code", "versions", "machine"} <= set(record) and "gpu" in record["machine"]
    assert shlex.split(record["command"])[1] == "benchmarks/client.py" and measured.mark(record) == ""
    assert "wall 1.0 seconds" in capsys.readouterr().out
    (tmp_path / "minilima" / "models" / "endpoint.py").write_text("2")
    assert measured.mark(record) == " †" and measured.mark({**record, "code": "0"}) == " †"
    del record["code"]
    assert measured.mark(record) == " ‡" and readme.without_marks("5.0 times ‡, 3 †") == "5.0 times, 3"


def test_every_benchmark_says_which_code_it_measures() -> None:
    commands = {file.stem for file in FOLDER.glob("*.py") if "publish(" in file.read_text() and file.stem != "publish"}
    assert commands <= set(measured.MEASURES)
    paths = {path for paths in measured.MEASURES.values() for path in paths}
    assert [path for path in paths if not (FOLDER.parent / path.removeprefix("!")).exists()] == []
