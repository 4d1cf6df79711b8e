"""What is wrong with rows of a file: all broken ones are counted, and the first five are shown with their numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.formats.tables import SHOWN, BrokenLine, place


class BrokenRowError(ValueError):
    """What is wrong with a row, as the rest of a sentence that begins `Row 3 of …`, and why."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
        self.what, self.why = what, why


@dataclass(frozen=True, kw_only=True)
class BrokenRows:
    """Collects the broken rows of a file while it is read, so that all are named together."""

    path: Path
    fix: str
    """What to type next, or how a row looks."""
    unit: str = "Row"
    rows: list[tuple[int, BrokenRowError]] = field(default_factory=list)

    @contextmanager
    def row(self, number: int) -> Iterator[None]:
        """The reading of one row, which may end with a BrokenRowError."""
        try:
            yield
        except BrokenRowError as error:
            self.rows.append((number, error))

    def stop(self) -> None:
        """Raises what is to be said of the broken rows, if there are any."""
        if self.rows:
            raise broken_rows(self.path, self.rows, unit=self.unit, fix=self.fix)


def as_object(row: object) -> dict[str, Any]:
    """A row with named columns.

    Raises:
        BrokenRowError: it is something else.
    """
    if isinstance(row, BrokenLine):
        raise BrokenRowError(f"({row.unit.capitalize()} {row.number}) is no row", f"{row.why[0].upper()}{row.why[1:]}.")
    if not isinstance(row, dict):
        raise BrokenRowError("is not an object", f"Each row needs named columns; this is a {type(row).__name__}.")
    return row


def broken_rows(path: Path, rows: Sequence[tuple[int, BrokenRowError]], *, unit: str, fix: str) -> MinilimaError:
    """The error that names the broken rows of a file; of several files, the file of each."""
    placed = [(place(path, number), broken) for number, broken in rows[:SHOWN]]
    if len(rows) == 1:
        (((file, number), broken),) = placed
        return MinilimaError(f"{unit} {number} of {file} {broken.what}.", broken.why, fix)
    few = " ".join(
        f"{unit} {number}{'' if file == path else f' of {file.name}'} {broken.what}." for (file, number), broken in placed
    )
    whys = list(dict.fromkeys(broken.why for _, broken in rows[:SHOWN]))
    return MinilimaError(f"{len(rows):,} {unit.lower()}s of {path} cannot be used. {few}", " ".join(whys[:2]), fix)
