"""What numbers a setting takes: `setting(0.7, SHARE)` declares a field, and validation and the reference read it there."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, without `low` or `high` itself where that end is open; `words` says so to people."""

    words: str
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below


ANY = Range(words="")
AT_LEAST_ONE = Range(words="at least 1", low=1)
AT_LEAST_ZERO = Range(words="at least 0", low=0)
ABOVE_ZERO = Range(words="above 0", low=0, open_low=True)
SHARE = Range(words="between 0 and 1", low=0, high=1)
NUCLEUS = Range(words="between 0 and 1, and not 0", low=0, high=1, open_low=True)
BELOW_ONE = Range(words="at least 0 and below 1", low=0, high=1, open_high=True)
PENALTY = Range(words="between -2 and 2", low=-2, high=2)
RANDOM_SEED = Range(words="between 0 and 4,294,967,295", low=0, high=2**32 - 1)


def setting(default: Any, valid: Range = ANY, unit: str = "") -> Any:
    """A field of the schema with the range of its values and their unit."""
    return field(default=default, metadata={"range": valid, "unit": unit})


def between(low: int, high: int) -> Range:
    return Range(words=f"between {low} and {high}", low=low, high=high)
