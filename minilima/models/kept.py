"""Numbers that a model gave to rows of data, kept the moment they are there: a scoring that is killed computes nothing twice.

They lie in the reply cache's file, a few float32 for each key. A key covers the weights, what was measured and the tokens that
were read, so data sets of all sizes and all runs share them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minilima.models.database import open_database, transaction

Numbers = NDArray[np.float32]

NUMBERS = "CREATE TABLE IF NOT EXISTS numbers (key TEXT PRIMARY KEY, numbers BLOB NOT NULL)"

_KEYS_A_QUERY = 500


class KeptNumbers:
    """A table of them in a file."""

    def __init__(self, file: Path) -> None:
        self._database = open_database(file)
        self._database.execute(NUMBERS)

    def find(self, keys: Sequence[str]) -> dict[str, Numbers]:
        """What is kept under these keys."""
        numbers: dict[str, Numbers] = {}
        for start in range(0, len(keys), _KEYS_A_QUERY):
            part = keys[start : start + _KEYS_A_QUERY]
            query = f"SELECT key, numbers FROM numbers WHERE key IN ({','.join('?' * len(part))})"  # noqa: S608 (only ?)
            numbers |= {key: np.frombuffer(blob, dtype="<f4") for key, blob in self._database.rows(query, part)}
        return numbers

    def add(self, numbers: Mapping[str, Numbers]) -> None:
        """Keeps all of them at once, or none; what was there already stays."""
        rows = [(key, values.astype("<f4").tobytes()) for key, values in numbers.items()]
        with transaction(self._database):
            self._database.executemany("INSERT OR IGNORE INTO numbers VALUES (?, ?)", rows)
