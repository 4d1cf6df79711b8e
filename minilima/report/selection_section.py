"""What a method of selection picked, as charts: score against length, what was asked for, and which picks methods share.

order.jsonl of the data set ─> scatter, topics      order.jsonl of all data sets of the same pool ─> overlap
"""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilima.formats.files import read_jsonl
from minilima.report.figures import CARD, FAINT, SOFT, style
from minilima.report.run_figures import TUNED, Bar, Chart, chart_axes, finished_chart
from minilima.report.verbs import verb_and_noun
from minilima.store.entries import Artifact

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOTS = 1500
"""Most examples that are drawn; of more, so many at random."""
VERBS = 10
_SHARE = 0.1
"""Share of a pool that is compared where a data set takes all of it."""

Row = Mapping[str, Any]
Picks = Sequence[tuple[str, str]]
"""Source and id of examples, best first."""


def selection_section(dataset: Artifact) -> dict[str, Any] | None:
    """The charts of a data set's choice; None where it has no order.jsonl, or took all there was without scores."""
    order = _order(dataset.path)
    chosen = int(dataset.metrics["examples"])
    scored = [row for row in order if row.get("score") is not None]
    if len(order) < 2 or (chosen >= len(order) and not scored):
        return None
    select = str(dataset.manifest["recipe"]["select"])
    methods = {select: _picks(order)} | methods_of_pool(dataset)
    compared = compared_size(chosen, len(order))
    return {
        "method": select.replace("_", " "),
        "chosen": chosen,
        "available": len(order),
        "scatter": scatter(scored, chosen, f"score ({select.replace('_', ' ')})") if len(scored) > 1 else None,
        "topics": topics(order, chosen) if chosen < len(order) else None,
        "overlap": overlap(methods, compared) if len(methods) > 1 else None,
        "compared": compared,
        "by_chance": 100 * compared / len(order),
    }


def compared_size(chosen: int, available: int) -> int:
    """How many first picks of each method are compared."""
    return chosen if chosen < available else max(1, round(_SHARE * available))


def _order(folder: Path) -> list[dict[str, Any]]:
    file = folder / "order.jsonl"
    return read_jsonl(file) if file.is_file() else []


def _picks(order: Sequence[Row]) -> Picks:
    return [(str(row["source"]), str(row["id"])) for row in order]


def methods_of_pool(dataset: Artifact) -> dict[str, Picks]:
    """The orders of all data sets in the store that were chosen from the same examples, by their methods."""
    picks_of: dict[str, Picks] = {}
    own = set(_picks(_order(dataset.path)))
    for file in sorted(dataset.path.parent.glob("dataset-*/manifest.json")):
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            select, pool = str(manifest["recipe"]["select"]), manifest["inputs"].get("pool")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if pool == dataset.manifest["inputs"].get("pool") and set(picks := _picks(_order(file.parent))) == own:
            picks_of.setdefault(select, picks)
    return picks_of


def scatter(scored: Sequence[Row], chosen: int, label: str) -> Chart:
    """Each example's score against the length of its answer; the chosen ones in colour."""
    shown = scored if len(scored) <= DOTS else random.Random(0).sample(list(scored), DOTS)
    groups = [[row for row in shown if (row["rank"] <= chosen) is wanted] for wanted in (False, True)]
    scores = sorted(float(row["score"]) for row in shown)
    with style():
        figure, axes = chart_axes("words in the answer (log axis)", y=label)
        axes.set_xscale("log")
        for rows, colour, size in zip(groups, (FAINT, TUNED), (9, 12), strict=True):
            x, y = [max(1, int(row["words"])) for row in rows], [float(row["score"]) for row in rows]
            axes.scatter(x, y, s=size, color=colour, edgecolors=CARD, linewidths=0.3)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.tick_params(which="minor", length=0)
        _stretch(axes, scores)
        title = f"Score against length of the answer, of {len(shown):,} examples, {len(groups[1]):,} of them chosen"
        return finished_chart(figure, "selection-scatter", title, ())


def _stretch(axes: "Axes", scores: Sequence[float]) -> None:
    """A log axis where a few scores are far above the others, as perplexities are."""
    median = scores[len(scores) // 2]
    if scores[0] > 0 and scores[-1] > 20 * median:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.tick_params(which="minor", length=0)


def topics(order: Sequence[Row], chosen: int) -> Chart | None:
    """The most frequent verbs of the instructions: how many with each were chosen, and how many were not."""
    verbs = [(pair[0], row["rank"] <= chosen) for row in order if (pair := verb_and_noun(row["instruction"])) is not None]
    frequent = Counter(verb for verb, _ in verbs).most_common(VERBS)
    if not frequent:
        return None
    taken = Counter(verb for verb, picked in verbs if picked)
    bars = tuple(
        Bar(name=verb, parts=(taken[verb], count - taken[verb]), title=f"{verb}: {taken[verb]:,} of {count:,} chosen")
        for verb, count in frequent
    )
    with style():
        from matplotlib.ticker import MaxNLocator

        figure, axes = chart_axes("instructions", height=0.7 + 0.24 * len(bars))
        left = [0] * len(bars)
        for part, colour in enumerate((TUNED, FAINT)):
            widths = [bar.parts[part] for bar in bars]
            for number, patch in enumerate(axes.barh(range(len(bars)), widths, left=left, color=colour, height=0.72)):
                patch.set_gid(f"bar-{number}-{part}")
            left = [before + width for before, width in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return finished_chart(figure, "selection-topics", "Verbs of the instructions, chosen and not", bars)


def shared(methods: Mapping[str, Picks], first: int) -> list[list[float]]:
    """Percent of the first picks that each two methods have in common, in the order of the mapping."""
    heads = [set(picks[:first]) for picks in methods.values()]
    return [[100 * len(one & other) / max(1, len(one)) for other in heads] for one in heads]


def overlap(methods: Mapping[str, Picks], first: int) -> Chart:
    """A matrix: how many of the first picks methods have in common."""
    names = [name.replace("_", " ") for name in methods]
    percents = shared(methods, first)
    with style():
        figure, axes = chart_axes("", height=0.9 + 0.3 * len(names))
        axes.pcolormesh(percents, cmap="cividis", vmin=0, vmax=100, edgecolors=CARD, linewidth=1)
        places = [place + 0.5 for place in range(len(names))]
        axes.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.tick_params(length=0, colors=SOFT)
        axes.spines[:].set_visible(False)
        for down, row in enumerate(percents):
            for along, percent in enumerate(row):
                colour = "#0a0a0a" if percent > 55 else "#fafafa"
                axes.text(along + 0.5, down + 0.5, f"{percent:.0f}", ha="center", va="center", color=colour, fontsize=8)
        label = f"Percent of the first {first:,} picks that methods share: {', '.join(names)}"
        return finished_chart(figure, "selection-overlap", label, ())
