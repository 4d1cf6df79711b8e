"""Geometry of the pictures in a run's page, in SVG units. Pure; page/charts.html.j2 draws it."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from minilima.evaluate.statistics import Estimate

WIDTH, WIDE, HEIGHT = 560, 1080, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 14, 42
"""Room for labels around what is drawn."""
MOST_BINS, MOST_LABELS, WIDEST = 20, 8, 70.0
RING = (34.0, 66.0, 98.0)
"""Radii of the sunburst: inner edge, between verbs and nouns, outer edge."""
VERBS_SHOWN, NOUNS_SHOWN = 16, 4

_FLOOR = HEIGHT - BOTTOM
_HUES = 11
"""The colours of the sunburst's verbs go round in turn; they divide neighbours, the labels tell what they are."""


def interval(estimate: Estimate, low: float, high: float, neutral: float) -> dict[str, float]:
    """Places in percent of the axis from `low` to `high`; `neutral` is where there is no effect."""

    def place(value: float) -> float:
        return round(100 * (min(max(value, low), high) - low) / (high - low), 2)

    ends = place(estimate.low), place(estimate.high)
    return {"low": ends[0], "width": round(ends[1] - ends[0], 2), "value": place(estimate.value), "neutral": place(neutral)}


def columns(
    labels: Sequence[str], parts: Sequence[Sequence[int]], *, titles: Sequence[str], edges: bool = False
) -> dict[str, Any]:
    """Columns beside each other, each of two parts, the first one below.

    Args:
        labels: below the columns, or, with `edges`, at their left edges and one more at the right end.
        parts: the heights of each column's parts.
        titles: shown where the pointer rests on a column.
        edges: whether the columns stand for ranges between the labels.
    """
    ticks = round_ticks(0, max((sum(column) for column in parts), default=1), whole=True)
    # A few columns stay columns and do not become walls.
    width = min((WIDTH - LEFT - RIGHT) / max(1, len(parts)), WIDTH if edges else WIDEST)
    scale = (_FLOOR - TOP) / ticks[-1]
    drawn = []
    for number, (column, title) in enumerate(zip(parts, titles, strict=True)):
        floor, pieces = float(_FLOOR), []
        for part in column:
            floor -= part * scale
            pieces.append({"y": round(floor, 1), "height": round(part * scale, 1)})
        gap = min(3.0, 0.15 * width)
        drawn.append(
            {"x": round(LEFT + number * width + gap / 2, 1), "width": round(width - gap, 1), "parts": pieces, "title": title}
        )
    every = _round_width(len(labels), MOST_LABELS, (1, 2, 4, 5))
    shift = 0 if edges else width / 2
    return {
        "width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "floor": _FLOOR,
        "columns": drawn,
        "x_ticks": [
            {"x": round(LEFT + number * width + shift, 1), "label": label}
            for number, label in enumerate(labels) if number % every == 0
        ],
        "y_ticks": [{"y": round(_FLOOR - tick * scale, 1), "label": f"{tick:,.0f}"} for tick in ticks],
    }  # fmt: skip


def histogram(values: Sequence[int], unit: str) -> dict[str, Any]:
    """How often which numbers occur, with their median; the last column holds all that lie far out."""
    ordered = sorted(values) or [0]
    reach = ordered[min(len(ordered) - 1, round(0.98 * len(ordered)))]
    far = ordered[-1] > 2 * max(reach, 1)
    width = _round_width((reach if far else ordered[-1]) + 1)
    last = (reach if far else ordered[-1]) // width
    counts = Counter(min(value // width, last) for value in ordered)
    ends = [f"to {(number + 1) * width - 1:,}" if number < last or not far else "or more" for number in range(last + 1)]
    chart = columns(
        [*(f"{number * width:,}" for number in range(last + 1)), f"{(last + 1) * width:,}{'+' if far else ''}"],
        [(counts[number],) for number in range(last + 1)],
        titles=[f"{number * width:,} {ends[number]} {unit}: {counts[number]:,}" for number in range(last + 1)],
        edges=True,
    )
    median = ordered[len(ordered) // 2]
    place = LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, (median + 0.5) / ((last + 1) * width))
    return {**chart, "mark": {"x": round(place, 1), "label": f"median {median:,}"}, "median": median, "largest": ordered[-1]}


def likeness(accepted: Sequence[float], rejected: Sequence[float], limit: float) -> dict[str, Any]:
    """ROUGE-L F1 from 0 to 1 in twenty columns, accepted below rejected, with the limit between them."""
    bins = MOST_BINS

    def count(scores: Sequence[float]) -> Counter[int]:
        return Counter(min(bins - 1, int(score * bins + 1e-9)) for score in scores)

    kept, left = count(accepted), count(rejected)
    chart = columns(
        [f"{number / bins:g}" for number in range(bins + 1)],
        [(kept[number], left[number]) for number in range(bins)],
        titles=[
            f"{number / bins:.2f} to {(number + 1) / bins:.2f}: {kept[number]:,} accepted, {left[number]:,} left out"
            for number in range(bins)
        ],
        edges=True,
    )
    return {**chart, "mark": {"x": round(LEFT + (WIDTH - LEFT - RIGHT) * limit, 1), "label": f"limit {limit:g}"}}


def yields(rounds: Sequence[Mapping[str, int]]) -> dict[str, Any]:
    """Candidates of each round: the accepted below the others."""
    return columns(
        [str(item["round"] + 1) for item in rounds],
        [(item["accepted"], item["candidates"] - item["accepted"]) for item in rounds],
        titles=[f"round {item['round'] + 1}: {item['accepted']:,} of {item['candidates']:,} accepted" for item in rounds],
    )


def bars(counts: Mapping[str, int], most: int = 12) -> list[dict[str, Any]]:
    """Bars that lie, the longest first; widths in percent."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = ordered[:most]
    if rest := ordered[most:]:
        shown.append((f"{len(rest)} others", sum(count for _, count in rest)))
    longest = max((count for _, count in shown), default=1)
    return [{"name": name, "count": count, "width": round(100 * count / longest, 1)} for name, count in shown]


def line_chart(steps: Sequence[float], values: Sequence[float], mean: Sequence[float] = ()) -> dict[str, Any]:
    """A line over steps, `mean` another one over the same steps; ticks with their labels."""
    ticks = round_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]
    span = max(steps[-1] - steps[0], 1)

    def across(step: float) -> float:
        return round(LEFT + (WIDE - LEFT - RIGHT) * (step - steps[0]) / span, 1)

    def down(value: float) -> float:
        return round(TOP + (_FLOOR - TOP) * (high - value) / (high - low), 1)

    last = len(steps) - 1
    marks = sorted({round(last * part / 5) for part in range(6)})
    return {
        "width": WIDE, "height": HEIGHT, "left": LEFT, "right": WIDE - RIGHT, "top": TOP, "floor": _FLOOR,
        "points": [
            {"x": across(step), "y": down(value), "step": step, "value": value} for step, value in zip(steps, values, strict=True)
        ],
        "mean": [{"x": across(step), "y": down(value)} for step, value in zip(steps, mean, strict=False)],
        "y_ticks": [{"y": down(tick), "label": f"{tick:g}"} for tick in ticks],
        "x_ticks": [{"x": across(steps[mark]), "label": f"{steps[mark]:,g}"} for mark in marks],
        "dots": len(steps) <= 60,
    }  # fmt: skip


def round_ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """About four round numbers that cover low to high."""
    span = max(high - low, 1.0 if whole else 1e-3)
    power = 10 ** math.floor(math.log10(span / 3))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 4)
    step = max(step, 1) if whole else step
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _round_width(span: int, most: int = MOST_BINS, factors: Sequence[int] = (1, 2, 5)) -> int:
    """A round width of which at most `most` cover the span."""
    power = 1
    while True:
        for factor in factors:
            if span / (power * factor) <= most:
                return power * factor
        power *= 10


def sunburst(pairs: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    """Arcs of the most frequent verbs and, around each, of its most frequent nouns (after Self-Instruct, figure 3)."""
    verbs: Counter[str] = Counter()
    for (verb, _), count in pairs.items():
        verbs[verb] += count
    chosen = verbs.most_common(VERBS_SHOWN)
    total = sum(count for _, count in chosen)
    arcs, place = [], 0.0
    for number, (verb, count) in enumerate(chosen):
        arcs.append(_arc(verb, count, place, count / total, RING[0], RING[1], number % _HUES))
        inner = place
        nouns = Counter({noun: amount for (first, noun), amount in pairs.items() if first == verb})
        for noun, amount in nouns.most_common(NOUNS_SHOWN):
            arcs.append(_arc(noun, amount, inner, amount / total, RING[1] + 1, RING[2], number % _HUES))
            inner += amount / total
        place += count / total
    return arcs


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
        "inner": inner == RING[0],
    }
