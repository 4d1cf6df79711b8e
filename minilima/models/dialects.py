"""What was learned of each model at each address, in the database of replies: all runs and stages share it."""

import json
import sqlite3

from minilima.models.dialect import LIMITS, Dialect


class Dialects:
    """The table of them."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute(
            "CREATE TABLE IF NOT EXISTS dialects (address TEXT, model TEXT, dialect TEXT, probed REAL, "
            "PRIMARY KEY (address, model))"
        )

    def load(self, address: str, model: str) -> Dialect:
        """What is known; a new one where nothing is, or where it cannot be read."""
        row = self._row(address, model)
        try:
            values = json.loads(row[0]) if row else {}
            return Dialect(
                left_out=set(map(str, values.get("left_out", ()))),
                limit=values["limit"] if values.get("limit") in (*LIMITS, "") else LIMITS[0],
                limits_refused=set(map(str, values.get("limits_refused", ()))),
                takes_schema=values.get("takes_schema") is not False,
                takes_zero=values.get("takes_zero") is not False,
                takes_system=values.get("takes_system") is not False,
                in_parts=values.get("in_parts") is True,
                added={str(name): value is True for name, value in dict(values.get("added", {})).items()},
            )
        except (ValueError, TypeError, AttributeError):
            return Dialect()

    def save(self, address: str, model: str, dialect: Dialect, *, probed: float | None = None) -> None:
        """Keeps it, without what is in doubt; `probed` = when a probe showed it, in seconds since 1970."""
        values = {
            "left_out": sorted(dialect.left_out),
            "limit": dialect.limit,
            "limits_refused": sorted(dialect.limits_refused),
            "takes_schema": dialect.takes_schema or dialect.schema_in_doubt,
            "takes_zero": dialect.takes_zero,
            "takes_system": dialect.takes_system,
            "in_parts": dialect.in_parts,
            "added": dialect.added,
        }
        self._database.execute(
            "INSERT INTO dialects VALUES (?, ?, ?, ?) ON CONFLICT (address, model) DO UPDATE SET dialect = excluded.dialect, "
            "probed = coalesce(excluded.probed, probed)",
            (address, model, json.dumps(values), probed),
        )

    def probed(self, address: str, model: str) -> float | None:
        """When a probe last showed what the model takes, in seconds since 1970; None = never."""
        row = self._row(address, model)
        return row[1] if row and isinstance(row[1], float | int) else None

    def forget(self, address: str, model: str) -> None:
        """For a probe, which is to see the server as it is now."""
        self._database.execute("DELETE FROM dialects WHERE address = ? AND model = ?", (address, model))

    def _row(self, address: str, model: str) -> tuple[str, float | None] | None:
        query = "SELECT dialect, probed FROM dialects WHERE address = ? AND model = ?"
        row: tuple[str, float | None] | None = self._database.execute(query, (address, model)).fetchone()
        return row
