"""Geometry of the pictures in a page: bars, lines, intervals and rings in SVG units. Pure; page/charts.html.j2 draws them."""

from minilima.evaluate.statistics import Estimate

WIDTH, HEIGHT = 560, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 16, 44
"""Room for labels around what is drawn."""


def interval(estimate: Estimate, low: float, high: float, neutral: float) -> dict[str, float]:
    """Places in percent of the axis from `low` to `high`; `neutral` is where there is no effect."""

    def place(value: float) -> float:
        return round(100 * (min(max(value, low), high) - low) / (high - low), 2)

    ends = place(estimate.low), place(estimate.high)
    return {"low": ends[0], "width": round(ends[1] - ends[0], 2), "value": place(estimate.value), "neutral": place(neutral)}
