"""One row of a table while it is read: its values, its number, and how its texts are taken from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minilima.formats.broken import BrokenRowError
from minilima.formats.meaning import SYSTEMS, check_text
from minilima.formats.records import Rejected


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row with its number, for errors that name it."""

    number: int
    values: Mapping[str, Any]
    line: str | None = None
    """The line as it stands where no row can be read in it."""

    def broken(self, what: str, why: str) -> BrokenRowError:
        return BrokenRowError(what, why)

    def text(self, value: object, what: str) -> str:
        """`value`, if it is a text with something in it that can be written as UTF-8."""
        if not isinstance(value, str) or not value.strip():
            raise self.broken(f"has no proper {what}", f"It must be a text that is not empty.{self.columns()}")
        check_text(value, what)
        return value

    def columns(self) -> str:
        """The names that are there, to be shown where one is missing."""
        names = ", ".join(map(str, self.values))
        return f" Its columns: {names}; say which is which with data.columns.instruction=NAME." if names else ""

    def optional(self, column: str | None) -> str | None:
        """The text of a column that may be missing, null or blank."""
        value = self.values.get(column) if column else None
        return None if value is None or (isinstance(value, str) and not value.strip()) else self.text(value, str(column))

    def system(self, column: str | None) -> str | None:
        """The system message of a row, which data sets also call system_prompt and the like."""
        columns = SYSTEMS if column == "system" else (column,) if column else SYSTEMS[1:]
        said = {text: name for name in reversed(columns) if (text := self.optional(name))}
        if len(said) > 1:
            raise self.broken("has two system messages", f"They stand in {' and '.join(reversed(said.values()))}.")
        return next(iter(said), None)

    def begin(self) -> str:
        """How the row begins, for messages."""
        return (self.line if self.line is not None else json.dumps(self.values, ensure_ascii=True, default=str))[:80]

    def rejected(self, text: str, reason: str, output: str | None = None) -> Rejected:
        return Rejected(id=f"row{self.number}", text=text, reason=reason, output=output)
