"""Writes benchmarks/README.md from README.md.j2, which holds the words, and from results/*.json, which hold every figure.

    python benchmarks/readme.py

A figure whose code has changed since it was measured is marked (see measured.py).
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.measured import mark
from benchmarks.sft_cases import predicted_gib

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
NOT_RECORDED = "not recorded"


def results() -> dict[str, dict[str, Any]]:
    """Every result that a command wrote, by the name of its file."""
    read = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((FOLDER / "results").glob("*.json"))}
    return {name: record for name, record in read.items() if "command" in record}


def render(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The page, with its marks."""
    # Markdown, not HTML, and no text of a stranger in it.
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"fixed": fixed, "percent": percent, "foretold": foretold}
    environment.globals |= {"mark": lambda *names: _mark([records[name] for name in names]), "origin": origin, "ended": ended}
    return environment.get_template("README.md.j2").render(records=records, **records)


def without_marks(page: str) -> str:
    """The page as it is whatever the age of its figures."""
    return re.sub(r" [†‡]", "", page)


def fixed(value: float, digits: int = 0) -> str:
    """70,724 or 3.15."""
    return f"{value:,.{digits}f}"


def percent(share: float, digits: int = 1) -> str:
    """53.7 %."""
    return f"{100 * share:.{digits}f} %"


def foretold(record: Mapping[str, Any]) -> float:
    """The peak that the preflight foretells, in GiB: today for the rows of a result; as it did then where they are not known."""
    if "longest_row" not in record:
        return float(record["predicted_peak_gib"])
    return predicted_gib(record["case"], record["longest_row"], record["later_row"])


def ended(chaos: Mapping[str, Any], way: str) -> int:
    """How many cases of all kinds ended `equal`, `healed` or `failed`."""
    return sum(value for name, value in chaos.items() if name.endswith(f"_{way}"))


def origin(record: Mapping[str, Any]) -> str:
    """The cells that say when and where a result was measured."""
    versions = record.get("versions", {})
    known = (record.get("date"), record.get("commit"), record.get("python"), versions.get("torch"), versions.get("transformers"))
    return " | ".join([*(str(value or NOT_RECORDED) for value in known), _machine(record)])


def _machine(record: Mapping[str, Any]) -> str:
    machine = record["machine"]
    gpu = machine.get("gpu") or record.get("device")
    # Earlier results name no GPU; where torch was built without, there was none.
    unknown = "gpu" not in machine and not str(record["versions"].get("torch", "")).endswith("+cpu")
    count = f"{record['gpus']} x " if record.get("gpus", 1) > 1 else ""
    shown = f", {count}{gpu}" if gpu else f", GPU {NOT_RECORDED}" if unknown else ""
    return f"{machine['processor']}, {machine['cores']} cores{shown}"


def _mark(records: Sequence[Mapping[str, Any]]) -> str:
    """The worst mark of several results."""
    return max(map(mark, records))


if __name__ == "__main__":
    README.write_text(render(results()), encoding="utf-8")
