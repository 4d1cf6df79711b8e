"""The length-controlled win rate of a run: AlpacaEval's where its tables are there, the minimal form for other sets.

It takes seconds to fit, so it is remembered below the outputs' cache by the verdicts' key and the tables' content.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minilima.evaluate.length_control_tables import (
    BASELINE,
    NO_TABLES,
    Coefficients,
    LengthControlled,
    NotKnown,
    cached_folder,
    load_tables,
)
from minilima.evaluate.statistics import Estimate
from minilima.formats.annotations import Run
from minilima.formats.files import canonical_json, remembered, sha256_text, write_atomic
from minilima.models.fingerprint import fingerprint_directory

_VERSION = 2
"""Raised by hand when `length_control` gives other figures."""


def length_controlled_win_rate(run: Run, key: str, tables: Path | None, memory: Path) -> LengthControlled | NotKnown:
    """The figure, or why it is not known.

    Args:
        run: the verdicts.
        key: identifies them.
        tables: folder with AlpacaEval's tables; None = where Hugging Face's cache has them.
        memory: folder in which figures are remembered.
    """
    official = run.baseline == BASELINE
    folder = (tables or cached_folder()) if official else None
    content = [_VERSION, key, run.generator, run.judge, fingerprint_directory(folder) if folder is not None else None]
    file = memory / f"{sha256_text(canonical_json(content))[:16]}.json"
    if (figure := remembered(file, _parse)) is not None:
        return figure
    controlled = _fit(run, folder) if official else _fit_minimal(run)
    write_atomic(file, json.dumps(asdict(controlled)))
    return controlled


def _fit(run: Run, folder: Path | None) -> LengthControlled | NotKnown:
    from minilima.evaluate.length_control import length_controlled

    return length_controlled(run, load_tables(folder) if folder is not None else NO_TABLES)


def _fit_minimal(run: Run) -> LengthControlled | NotKnown:
    from minilima.evaluate.length_control import minimal_length_controlled

    return minimal_length_controlled(run)


def _parse(values: dict[str, Any]) -> LengthControlled | NotKnown:
    if "reason" in values:
        return NotKnown(**values)
    interval, weights = values["interval"], values["weights"]
    return LengthControlled(
        value=values["value"],
        interval=Estimate(**interval) if interval else None,
        weights=Coefficients(**weights) if weights else None,
        how=values["how"],
    )
