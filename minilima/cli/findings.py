"""The result of one check of `doctor`."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    ok = "ok"
    warn = "warn"
    fail = "fail"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: `fix` says what to type or do, and is empty where nothing need be done."""

    name: str
    level: Level
    says: str
    fix: str = ""
