"""Reads pairs of answers of which it is known which one people, or another judge, preferred.

Three formats differ by their fields; all of them may be any table (tables.py):
    ours        {"instruction": …, "output_1": …, "output_2": …, "preference": 1, 1.5 or 2, "reference": … (if there is one)}
    AlpacaEval  its annotations.json, and its people's cross-annotations: the same fields and more
    Auto-J      {"prompt": …, "response 1": …, "response 2": …, "label": 0 (first better), 1 (second) or 2 (tie)}
A pair that occurs several times was labelled by several people.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.formats.annotations import read_annotations
from minilima.formats.broken import BrokenRowError, BrokenRows, as_object
from minilima.formats.files import canonical_json, sha256_text
from minilima.formats.records import TIE
from minilima.formats.tables import scan_rows

_EXAMPLE = '{"instruction": "…", "output_1": "…", "output_2": "…", "preference": 2}'
_AUTO_J = {0: 1.0, 1: 2.0, 2: TIE}


@dataclass(frozen=True, kw_only=True)
class LabelledPair:
    """Two answers to one instruction."""

    id: str
    """16 hex digits of the texts' hash."""
    instruction: str
    output_1: str
    output_2: str
    labels: tuple[float, ...]
    """What each person preferred: 1 = the first answer, 2 = the second, between = partly, 1.5 = neither."""
    reference: str | None = None
    """A reference answer, for judges that need one."""

    @property
    def label(self) -> float:
        """1, 1.5 or 2: what most people preferred."""
        return majority(self.labels)


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """Pairs from one source."""

    name: str
    by: str
    """`people`, or the judge that preferred."""
    pairs: tuple[LabelledPair, ...]
    source: str
    """The file's name."""
    model: str | None = None
    """The model behind every second answer, where it is one."""

    @property
    def data(self) -> str:
        """16 hex digits of what a judge sees of the pairs; their labels are not part of it."""
        return sha256_text(canonical_json([[pair.id, pair.reference] for pair in self.pairs]))[:16]


def majority(labels: Sequence[float]) -> float:
    """1, 1.5 or 2: the most frequent choice; a tie where two are equally frequent."""
    counts = Counter(whole(label) for label in labels).most_common()
    return counts[0][0] if len(counts) == 1 or counts[0][1] > counts[1][1] else TIE


def whole(preference: float) -> float:
    """A preference as 1, 1.5 or 2."""
    return TIE if preference == TIE else 2.0 if preference > TIE else 1.0


def read_labels(path: Path, size: int | None = None) -> LabelSet:
    """Pairs that people labelled.

    Args:
        path: a file in one of the formats above.
        size: draw so many of them, always the same ones; None = all.

    Raises:
        MinilimaError: the file cannot be read, is empty, or a row cannot be understood.
    """
    pairs: dict[str, LabelledPair] = {}
    broken = BrokenRows(path=path, fix=f"A row looks like: {_EXAMPLE}")
    for number, row in enumerate(scan_rows(path), start=1):
        with broken.row(number):
            pair = _pair(as_object(row))
            known = pairs.get(pair.id)
            labels = (*known.labels, *pair.labels) if known else pair.labels
            pairs[pair.id] = pair if known is None else _with_labels(known, labels)
    broken.stop()
    if not pairs:
        raise MinilimaError(f"{path} holds no pairs.", "It is empty.", "Give a file with labelled pairs.")
    return LabelSet(name=_name(path), by="people", pairs=_sample(list(pairs.values()), size), source=path.name)


def read_published(path: Path, size: int | None = None) -> list[LabelSet]:
    """Pairs on which another judge's verdict was published: one set for each run in an annotations file of AlpacaEval.

    Raises:
        MinilimaError: the file cannot be understood, or a run in it has no verdict.
    """
    sets = []
    for run in read_annotations(path):
        pairs = [
            _labelled(row.instruction, row.output_1, row.output_2, (row.preference,), None)
            for row in run.annotations
            if row.preference is not None
        ]
        if not pairs:
            raise MinilimaError(f"{path} has no verdict for {run.generator}.", "All are null or -1.", "Leave the file out.")
        sets.append(
            LabelSet(
                name=f"{run.generator} against {run.baseline or 'a baseline without a name'}",
                by=run.judge or "a judge without a name",
                pairs=_sample(list({pair.id: pair for pair in pairs}.values()), size),
                source=path.name,
                model=run.generator,
            )
        )
    return sets


def _sample(pairs: list[LabelledPair], size: int | None) -> tuple[LabelledPair, ...]:
    """In the file's order; a smaller sample lies inside a larger one."""
    order = list(range(len(pairs)))
    random.Random(0).shuffle(order)
    return tuple(pairs[index] for index in sorted(order[:size]))


def _pair(row: dict[str, Any]) -> LabelledPair:
    auto_j = "response 1" in row
    names = ("prompt", "response 1", "response 2") if auto_j else ("instruction", "output_1", "output_2")
    for name in names:
        if not isinstance(row.get(name), str):
            raise _bad(f"{name} is {'not a text' if name in row else 'missing'}")
    label = row.get("label" if auto_j else "preference")
    preference = _AUTO_J.get(label) if auto_j and isinstance(label, int) else label
    if isinstance(preference, bool) or not isinstance(preference, int | float) or not 1 <= preference <= 2:
        raise _bad(f"{'label' if auto_j else 'preference'} is {label!r}")
    reference = row.get("reference") if isinstance(row.get("reference"), str) else None
    instruction, first, second = (str(row[name]) for name in names)
    return _labelled(instruction, first, second, (float(preference),), reference)


def _labelled(instruction: str, first: str, second: str, labels: tuple[float, ...], reference: str | None) -> LabelledPair:
    identity = sha256_text(canonical_json([instruction, first, second]))[:16]
    return LabelledPair(id=identity, instruction=instruction, output_1=first, output_2=second, labels=labels, reference=reference)


def _with_labels(pair: LabelledPair, labels: tuple[float, ...]) -> LabelledPair:
    return LabelledPair(**{**vars(pair), "labels": labels})


def _bad(why: str) -> BrokenRowError:
    return BrokenRowError("is no labelled pair", f"{why[0].upper()}{why[1:]}.")


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
