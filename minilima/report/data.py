"""The data set's part of the report: geometry of its pictures, and the rows that are shown.

Lengths, likeness to earlier instructions, yield of each round, labels, verbs and their objects, reasons of rejection.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minilima.files import read_jsonl
from minilima.store import Artifact

EXAMPLES_SHOWN = 12
REJECTIONS_SHOWN = 40
VERBS_SHOWN, NOUNS_SHOWN = 16, 4

_RING = (34.0, 66.0, 98.0)
"""Radii of the sunburst in SVG units: inner edge, between verbs and nouns, outer edge."""


def dataset_section(artifacts: Mapping[str, Artifact]) -> dict[str, Any] | None:
    """What the template needs; None where no data set was built."""
    if "dataset" not in artifacts:
        return None
    artifact, pool = artifacts["dataset"], artifacts["pool"]
    rows = read_jsonl(artifact.path / "dataset.jsonl")
    rejected = [*_rows(pool.path / "rejected.jsonl"), *read_jsonl(artifact.path / "rejected.jsonl")]
    machine = [row for row in rows if row["source"] == "machine"]
    shown = [*machine[: EXAMPLES_SHOWN // 2], *(row for row in rows if row["source"] != "machine")][:EXAMPLES_SHOWN]
    instructions = [row["instruction"] for row in rows]
    return {
        "metrics": artifact.metrics,
        "examples": shown,
        "histograms": [
            histogram(
                "words in the instruction and input", [len(f"{row['instruction']} {row['input']}".split()) for row in rows]
            ),
            histogram("words in the answer", [len(row["output"].split()) for row in rows]),
            *_likeness(_rows(pool.path / "instructions.jsonl"), rejected),
        ],
        "rounds": _yields(pool.metrics.get("rounds", [])),
        "labels": _bars(artifact.metrics.get("labels", {})),
        "sunburst": sunburst(instructions),
        "reasons": _bars(Counter(row["reason"].replace("_", " ") for row in rejected)),
        "rejected": rejected[:REJECTIONS_SHOWN],
        "rejected_total": len(rejected),
    }


def _rows(file: Path) -> list[dict[str, Any]]:
    return read_jsonl(file) if file.is_file() else []


def _likeness(written: Sequence[Mapping[str, Any]], rejected: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """ROUGE-L of each machine-written candidate with its nearest earlier instruction, in hundredths."""
    scores = [row["nearest_rouge"] for row in (*written, *rejected) if row.get("nearest_rouge") is not None]
    return (
        [histogram("ROUGE-L with the nearest earlier text, in hundredths", [round(100 * score) for score in scores])]
        if scores
        else []
    )


def _yields(rounds: Sequence[Mapping[str, int]]) -> list[dict[str, Any]]:
    """Accepted and other candidates of each round, heights in percent of the round with most candidates."""
    most = max((item["candidates"] for item in rounds), default=0)
    return [
        {
            "title": f"round {item['round'] + 1}: {item['accepted']} of {item['candidates']} accepted",
            "accepted": 100 * item["accepted"] / most,
            "other": 100 * (item["candidates"] - item["accepted"]) / most,
        }
        for item in rounds
        if most
    ]


def _bars(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Horizontal bars, the longest first; widths in percent."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [{"name": name, "count": count, "width": round(100 * count / ordered[0][1], 1)} for name, count in ordered]


def histogram(title: str, values: Sequence[int], bins: int = 16) -> dict[str, Any]:
    """Bars for a histogram of whole numbers: heights in percent of the fullest bin."""
    top = max(values, default=1)
    width = max(1, math.ceil((top + 1) / bins))
    counts = Counter(value // width for value in values)
    fullest = max(counts.values(), default=1)
    ordered = sorted(values)
    bars = [
        {
            "from": number * width,
            "to": (number + 1) * width - 1,
            "count": counts[number],
            "height": 100 * counts[number] / fullest,
        }
        for number in range(top // width + 1)
    ]
    return {"title": title, "bars": bars, "median": ordered[len(ordered) // 2] if ordered else 0, "largest": top}


def sunburst(instructions: Sequence[str]) -> list[dict[str, Any]]:
    """Arcs of the most frequent first words (mostly verbs) and, around them, of what each is most often followed by.

    Self-Instruct (figure 3) takes root verbs and direct objects from a parser; this takes the first word and the first later
    word that is not a function word, which needs no model and is right for most English instructions.
    """
    pairs = Counter(pair for text in instructions if (pair := verb_and_noun(text)) is not None)
    verbs: Counter[str] = Counter()
    for (verb, _), count in pairs.items():
        verbs[verb] += count
    chosen = verbs.most_common(VERBS_SHOWN)
    total = sum(count for _, count in chosen)
    arcs, place = [], 0.0
    for number, (verb, count) in enumerate(chosen):
        share = count / total
        arcs.append(_arc(verb, count, place, share, _RING[0], _RING[1], number))
        inner = place
        nouns = Counter({noun: amount for (first, noun), amount in pairs.items() if first == verb})
        for noun, amount in nouns.most_common(NOUNS_SHOWN):
            arcs.append(_arc(noun, amount, inner, amount / total, _RING[1] + 1, _RING[2], number))
            inner += amount / total
        place += share
    return arcs


_FUNCTION_WORD = re.compile(
    "a|an|the|this|that|these|those|my|your|his|her|its|our|their|some|any|each|every|all|both|is|are|was|were|be|do|does|did|"
    "can|could|should|would|will|i|you|he|she|it|we|they|me|him|them|us|in|on|at|of|for|to|from|with|without|about|into|and|or|"
    "but|if|as|by|than|then|so|not|no|one|two|three|four|five|ten|most|more|many|much|very|new|following|given|there|have|has|"
    "had|what|which|who|whom|whose|when|where|why|how"
)


def verb_and_noun(instruction: str) -> tuple[str, str] | None:
    """The first word, and the first later one that is not a function word; None where there is no second."""
    words = [word.strip(".,;:!?\"'“”‘’()[]").lower() for word in instruction.split()]
    words = [word for word in words if word]
    later = next((word for word in words[1:] if word.isalpha() and not _FUNCTION_WORD.fullmatch(word)), None)
    return (words[0], later) if later is not None else None


def _arc(label: str, count: int, start: float, share: float, inner: float, outer: float, hue: int) -> dict[str, Any]:
    """An SVG path of a ring's section from `start`, both in turns; the label turns with it."""
    # A whole ring would begin where it ends, and be drawn as nothing.
    end = start + min(share, 0.9999)

    def point(radius: float, turn: float) -> str:
        angle = 2 * math.pi * turn - math.pi / 2
        return f"{radius * math.cos(angle):.2f} {radius * math.sin(angle):.2f}"

    large = int(end - start > 0.5)
    middle = 360 * (start + end) / 2
    return {
        "path": f"M{point(inner, start)} A{inner} {inner} 0 {large} 1 {point(inner, end)} L{point(outer, end)} "
        f"A{outer} {outer} 0 {large} 0 {point(outer, start)} Z",
        "label": label,
        "count": count,
        "shown": share > 0.016,
        "radius": round((inner + outer) / 2, 1),
        "turn": round(middle - 90, 1),
        "flipped": middle > 180,
        "hue": hue,
    }
