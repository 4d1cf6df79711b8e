"""Reads and writes AlpacaEval's files: annotations.json (one judged pair a row) and leaderboard.csv.

A file becomes one `Run` for every (model, baseline, judge) in it. Rows are never dropped: a pair without a verdict that
can be read stays, with `preference` None, so that every figure can say how many prompts it rests on.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.formats.broken import BrokenRowError, BrokenRows, as_object
from minilima.formats.files import write_atomic
from minilima.formats.records import TIE
from minilima.formats.tables import scan_rows

_EXAMPLE = '{"instruction": "…", "output_1": "…", "output_2": "…", "generator_2": "…", "preference": 1.5}'


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One judged pair. `output_1` is the baseline's answer, `output_2` the model's."""

    instruction: str
    output_1: str
    output_2: str
    preference: float | None
    """1 = the baseline's answer is better, 2 = the model's, between = partly, 1.5 = a tie; None = unread."""
    dataset: str | None = None
    raw_completion: Any = None
    """The judge's reply as the file holds it: a text, or the API's choice with its log-probabilities."""
    usd: float | None = None
    seconds: float | None = None
    date: str | None = None
    version: str | None = None
    glm_preference: float | None = None
    """The length-controlled preference, 0 to 1, that alpaca_eval writes into some files."""
    shown_first: int | None = None
    """Which answer was shown first, 1 or 2, where the file says so, as that of `minilima chat --blind` does."""

    @property
    def first_won(self) -> bool | None:
        """Whether the answer that was shown first is preferred; None for a tie, and where it is not known which was."""
        if self.shown_first is None:
            return first_won(self.raw_completion)
        if self.preference is None or self.preference == TIE:
            return None
        return self.shown_first == (2 if self.preference > TIE else 1)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The annotations of one model against one baseline by one judge."""

    generator: str
    baseline: str | None
    judge: str | None
    annotations: tuple[Annotation, ...]

    @property
    def preferences(self) -> list[float | None]:
        """The preferences in the file's order."""
        return [row.preference for row in self.annotations]


def read_annotations(path: Path) -> list[Run]:
    """The runs of an annotations file (any table), in the order in which they occur.

    Fields named by old releases (`raw_completion`, `price_per_example`) and by alpaca_eval 0.6.6 (`preference_…`) are
    both understood; fields that are not known are passed over.

    Raises:
        MinilimaError: the file cannot be read, is not a JSON list of objects, is empty, or a row cannot be understood.
    """
    groups: dict[tuple[str, str | None, str | None], list[Annotation]] = {}
    broken = BrokenRows(path=path, fix=f"A row looks like: {_EXAMPLE}")
    for number, row in enumerate(_read_list(path), start=1):
        with broken.row(number):
            annotation = _annotation(as_object(row))
            # alpaca_eval calls a model without a name "Current model".
            key = (_text(row, "generator_2") or "Current model", _text(row, "generator_1"), _text(row, "annotator"))
            groups.setdefault(key, []).append(annotation)
    broken.stop()
    return [
        Run(generator=generator, baseline=baseline, judge=judge, annotations=tuple(rows))
        for (generator, baseline, judge), rows in groups.items()
    ]


def _read_list(path: Path) -> list[object]:
    if not path.is_file():
        raise MinilimaError(f"There is no file {path}.", "An annotations file is needed.", "Check the path.")
    rows = scan_rows(path)
    if not rows:
        raise MinilimaError(
            f"{path} holds no annotations.",
            "It is an empty list; a list of objects with instruction, output_1, output_2 and preference is needed.",
            "Give the annotations.json that alpaca_eval wrote.",
        )
    return rows


def _annotation(row: dict[str, Any]) -> Annotation:
    for field in ("instruction", "output_1", "output_2"):
        # An answer may be null: a model that said nothing.
        nothing = field != "instruction" and field in row and row[field] is None
        if not isinstance(row.get(field), str) and not nothing:
            raise _bad_row(f"{field} is {'missing' if field not in row else 'not a text'}")
    return Annotation(
        instruction=row["instruction"],
        output_1=row["output_1"] or "",
        output_2=row["output_2"] or "",
        preference=_preference(row.get("preference")),
        dataset=_text(row, "dataset"),
        raw_completion=row.get("preference_raw_completion", row.get("raw_completion")),
        usd=_number(row.get("preference_price_per_example", row.get("price_per_example"))),
        seconds=_number(row.get("preference_time_per_example", row.get("time_per_example"))),
        date=_text(row, "preference_date"),
        version=_text(row, "preference_version"),
        glm_preference=_number(row.get("glm_preference")),
        shown_first=row["shown_first"] if row.get("shown_first") in (1, 2) else None,
    )


def _preference(value: object) -> float | None:
    """The preference on the scale 1 to 2; None where the judge gave none (absent, null, NaN, or alpaca_eval's -1)."""
    if value is None:
        return None
    preference = _number(value)
    if preference is None:
        # NaN is alpaca_eval's mark of a reply without a verdict; other things that are no number are a mistake.
        if isinstance(value, float) and math.isnan(value):
            return None
        raise _bad_row(f"preference is {value!r}, not a number")
    if preference == -1:
        return None
    if preference == 0:  # how releases before 0.3 wrote a draw
        return TIE
    if not 1 <= preference <= 2:
        raise _bad_row(f"preference is {preference:g}; it must lie between 1 (baseline) and 2 (model)")
    return preference


def _bad_row(why: str) -> BrokenRowError:
    return BrokenRowError("is not an annotation", f"In that row {why}.")


def _text(row: object, field: str) -> str | None:
    value = row.get(field) if isinstance(row, dict) else None
    return str(value) if value is not None and value != "" else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


_OUTPUT_LETTER = re.compile(r"^\s*Output \(([ab])\)", re.IGNORECASE | re.MULTILINE)


def first_won(raw: Any) -> bool | None:
    """Whether the judge preferred the answer it was shown first, from its reply; None if the reply does not say.

    alpaca_eval's prompts always call the first answer `m` (or `a`) and the second `M` (or `b`); `preference` has been
    turned back to (baseline, model) already, so only the reply knows the position.
    """
    if isinstance(raw, str):
        letters = {letter.lower() for letter in _OUTPUT_LETTER.findall(raw)}
        if len(letters) == 1:
            return letters == {"a"}
        try:
            raw = json.loads(raw)
        except (json.JSONDecodeError, RecursionError):
            return None
    name = _winner(raw)
    return name == "m" if name in ("m", "M") else None


def _winner(raw: Any) -> object:
    """The name, `m` or `M`, of the answer that the reply prefers: by log-probability or by rank."""
    if not isinstance(raw, Mapping):
        return None
    try:
        if "ordered_models" in raw:
            return min(raw["ordered_models"], key=lambda entry: entry["rank"])["model"]
        tokens = raw["logprobs"]["content"][0]["top_logprobs"]
        return max((token for token in tokens if token["token"] in ("m", "M")), key=lambda token: token["logprob"])["token"]
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def write_annotations(path: Path, run: Run) -> None:
    """Writes a run as alpaca_eval 0.6.6 does: its field names in its order, a missing verdict as null."""
    rows = []
    for row in run.annotations:
        fields: dict[str, Any] = {
            "dataset": row.dataset,
            "instruction": row.instruction,
            "output_1": row.output_1,
            "generator_1": run.baseline,
            "output_2": row.output_2,
            "generator_2": run.generator,
            "annotator": run.judge,
            "preference": row.preference,
            "preference_raw_completion": row.raw_completion,
            "preference_price_per_example": row.usd,
            "preference_version": row.version,
            "preference_date": row.date,
            "preference_time_per_example": row.seconds,
        }
        if row.glm_preference is not None:
            fields["glm_preference"] = row.glm_preference
        rows.append(fields)
    write_atomic(path, json.dumps(rows, indent=2, ensure_ascii=False))


LEADERBOARD_COLUMNS = (
    "win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate", "mode",
    "avg_length", "length_controlled_winrate", "lc_standard_error",
)  # fmt: skip


def write_leaderboard(path: Path, rows: Mapping[str, Mapping[str, object]]) -> None:
    """Writes leaderboard.csv: a row a model, best first by length-controlled, then by raw win rate.

    Args:
        path: where it is written.
        rows: for each model's name, the columns of `LEADERBOARD_COLUMNS` that are known; others stay empty.
    """

    def rank(item: tuple[str, Mapping[str, object]]) -> tuple[float, float]:
        controlled, raw = (_number(item[1].get(column)) for column in ("length_controlled_winrate", "win_rate"))
        return (-math.inf if controlled is None else controlled, -math.inf if raw is None else raw)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *LEADERBOARD_COLUMNS])
    for name, row in sorted(rows.items(), key=rank, reverse=True):
        values = (row.get(column) for column in LEADERBOARD_COLUMNS)
        writer.writerow([name, *("" if value is None else value for value in values)])
    write_atomic(path, text.getvalue())


def by_prompt(run: Run) -> dict[tuple[str, int], Annotation]:
    """The annotations by (instruction, how often it occurred before): a prompt that is asked twice is two prompts."""
    seen: Counter[str] = Counter()
    rows = {}
    for row in run.annotations:
        rows[row.instruction, seen[row.instruction]] = row
        seen[row.instruction] += 1
    return rows


def mean_length(answers: Sequence[str]) -> float:
    """Mean length in characters, which is what AlpacaEval's `avg_length` and its length control count."""
    return sum(len(answer) for answer in answers) / len(answers)
