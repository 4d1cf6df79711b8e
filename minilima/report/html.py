"""The HTML report of a run: one self-contained file, no script or font from elsewhere, light and dark.

`write_report` gathers the figures from the store, works out the geometry of the charts, and fills `report.html.j2`.
Everything that models or users wrote is escaped by the template engine.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import OmegaConf

from minilima.compose import to_dict
from minilima.config import Config
from minilima.evaluate.results import Results
from minilima.evaluate.statistics import Estimate
from minilima.files import read_jsonl, write_atomic
from minilima.planning import describe_outcome
from minilima.report.data import dataset_section
from minilima.store import Artifact


def write_report(path: Path, config: Config, artifacts: Mapping[str, Artifact], results: Results | None, worth: str) -> None:
    """Writes the report of a run; sections of stages that did not run are left out."""
    folder = Path(__file__).parent / "page"
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["signed"] = lambda value: f"{value:+.3f}"
    page = environment.get_template("report.html.j2").render(
        name=config.name,
        key=path.parent.name.removeprefix(f"{config.name}-"),
        written=datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
        worth=worth,
        win=_win(results),
        loss=_loss(results),
        stages=[_stage(role, artifact) for role, artifact in artifacts.items()],
        dataset=dataset_section(artifacts),
        curve=_curve(artifacts),
        verdicts=_verdicts(artifacts),
        settings=OmegaConf.to_yaml(OmegaConf.create(to_dict(config))),
    )
    write_atomic(path, page)


def _win(results: Results | None) -> dict[str, Any] | None:
    if results is None:
        return None
    rate = results.win_rate
    bar = _interval(rate.win_rate, 0.0, 100.0, 50.0) if rate else None
    consistency = results.positions.consistency if results.positions else None
    return {"coverage": results.coverage, "rate": rate, "bar": bar, "consistency": consistency}


def _loss(results: Results | None) -> dict[str, Any] | None:
    if results is None or results.loss_change is None:
        return None
    change = results.loss_change.change
    reach = 1.25 * max(abs(change.low), abs(change.high), 1e-6)
    return {"change": results.loss_change, "bar": _interval(change, -reach, reach, 0.0), "reach": reach}


def _interval(estimate: Estimate, low: float, high: float, neutral: float) -> dict[str, float]:
    """Positions in percent of the axis from `low` to `high`; `neutral` is where there is no effect."""

    def place(value: float) -> float:
        return round(100 * (min(max(value, low), high) - low) / (high - low), 2)

    ends = place(estimate.low), place(estimate.high)
    return {"low": ends[0], "width": round(ends[1] - ends[0], 2), "value": place(estimate.value), "neutral": place(neutral)}


def _stage(role: str, artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    usage = manifest["usage"]
    tokens = usage["prompt_tokens"] + usage["completion_tokens"]
    return {
        "role": role.replace("_", " "),
        "how": artifact.how,
        "seconds": manifest["seconds"],
        "directory": artifact.stage.directory,
        "what": describe_outcome(role, artifact.metrics),
        "calls": f"{usage['calls']:,} calls, {tokens:,} tokens" if usage["calls"] else "",
    }


def _curve(artifacts: Mapping[str, Artifact]) -> dict[str, Any] | None:
    if "model" not in artifacts:
        return None
    log = read_jsonl(artifacts["model"].path / "training_log.jsonl")
    return line_chart([entry["step"] for entry in log], [entry["loss"] for entry in log])


def line_chart(steps: Sequence[float], values: Sequence[float], width: int = 640, height: int = 220) -> dict[str, Any]:
    """Geometry of a line chart in SVG units: points, and ticks with their labels."""
    margin_left, margin_bottom, margin = 44, 26, 10
    low, high = min(values), max(values)
    ticks = _round_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    span_x = max(steps[-1] - steps[0], 1)

    def across(step: float) -> float:
        return round(margin_left + (width - margin_left - margin) * (step - steps[0]) / span_x, 1)

    def down(value: float) -> float:
        return round(margin + (height - margin - margin_bottom) * (high - value) / (high - low), 1)

    last = len(steps) - 1
    marks = sorted({round(last * part / 5) for part in range(6)})
    return {
        "width": width,
        "height": height,
        "left": margin_left,
        "right": width - margin,
        "bottom": height - margin_bottom,
        "points": [
            {"x": across(step), "y": down(value), "step": step, "value": value} for step, value in zip(steps, values, strict=True)
        ],
        "y_ticks": [{"y": down(tick), "label": f"{tick:g}"} for tick in ticks],
        "x_ticks": [{"x": across(steps[mark]), "label": f"{steps[mark]:g}"} for mark in marks],
        "dots": len(steps) <= 60,
    }


def _round_ticks(low: float, high: float) -> list[float]:
    """About four round numbers that cover low to high."""
    span = max(high - low, 1e-3)
    power = 10 ** math.floor(math.log10(span / 3))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 4)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _verdicts(artifacts: Mapping[str, Artifact]) -> list[dict[str, Any]] | None:
    if "verdicts" not in artifacts:
        return None
    tuned, base = (
        {row["id"]: row for row in read_jsonl(artifacts[role].path / "answers.jsonl")}
        for role in ("answers", "reference_answers")
    )
    rows = []
    for verdict in read_jsonl(artifacts["verdicts"].path / "verdicts.jsonl"):
        preference = verdict.get("preference")
        outcome = "unread" if preference is None else "won" if preference > 1.5 else "lost" if preference < 1.5 else "tied"
        identity = verdict["id"]
        rows.append(
            {
                "id": identity,
                "outcome": outcome,
                "instruction": tuned[identity]["instruction"],
                "tuned": tuned[identity],
                "base": base[identity],
                "explanation": verdict.get("explanation", ""),
            }
        )
    return rows
