"""Charts of a run's page: counts to bars, losses to a curve, verbs and nouns to rings, each as inline SVG in the page's colours.

    values ─> bins and rows (what a chart says) ─> a matplotlib figure ─> SVG, by figures.for_page
A chart with nothing to compare has rows and no picture: the page shows them as a table. Only drawing imports matplotlib.
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from markupsafe import Markup

from minilima.report.figures import CARD, FAINT, INK, for_page, style
from minilima.report.render import legible
from minilima.report.series import running_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = (3.8, 2.4)
"""Of a chart: its 9 point letters are over 10 pixels on a telephone 390 pixels wide."""
MOST_BINS, MOST_LABELS, NAME_LETTERS = 20, 6, 22
VERBS_SHOWN, NOUNS_SHOWN, DOTS_SHOWN, CURVE_STEPS = 16, 4, 60, 1000
RING, LABELLED = 0.34, 0.016
"""Width of the hole and of each ring, with a radius of 1; the share of a circle from which a section has room for its label."""

TUNED, BASE = "#0072b2", "#a85100"
_HUES = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#b3a100", "#7a6fb0", "#3d8b8b", "#a06a4a",
)  # fmt: skip
"""Of the rings, in turn: they divide neighbours, and the labels say which is which."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar or section: its name, the heights of its parts from below, and the sentence shown on hover."""

    name: str
    parts: tuple[int, ...]
    title: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What a chart shows, and its picture; `markup` is None where all bars are equally high."""

    label: str
    bars: tuple[Bar, ...]
    markup: Markup | None


def histogram(values: Sequence[int], unit: str, *, name: str, of: str) -> Chart:
    """How often each range of numbers occurs, with the median; the last bar holds everything far out."""
    ordered = sorted(values) or [0]
    median = ordered[len(ordered) // 2]
    edges, bars = length_bins(ordered, unit)
    label = f"Histogram of {unit} in {of}; median {median:,}, largest {ordered[-1]:,}"
    more = "+" if "or more" in bars[-1].name else ""
    with style():
        figure, axes = chart_axes(unit)
        _columns(axes, [(low + high) / 2 for low, high in pairwise(edges)], edges[1] - edges[0], bars)
        every = -(-len(edges) // MOST_LABELS)
        axes.set_xticks(edges[::every], [f"{edge:,}{more if edge == edges[-1] else ''}" for edge in edges[::every]])
        axes.set_xlim(edges[0], edges[-1])
        _line_at(axes, min(median + 0.5, edges[-1]), f"median {median:,}")
        return finished_chart(figure, name, label, bars)


def length_bins(ordered: Sequence[int], unit: str) -> tuple[list[int], tuple[Bar, ...]]:
    """Round edges that whole numbers in order fall between, and the bars; a few numbers far out do not stretch them."""
    from matplotlib.ticker import MaxNLocator

    reach = ordered[min(len(ordered) - 1, round(0.98 * len(ordered)))]
    far = ordered[-1] > 2 * max(reach, 1)
    top = (reach if far else ordered[-1]) + 1
    ticks = MaxNLocator(MOST_BINS, steps=[1, 2, 5, 10], integer=True).tick_values(0, top)
    edges = [round(tick) for tick in ticks if tick < top]
    width = round(ticks[1] - ticks[0])
    edges.append(edges[-1] + width)
    number_in = Counter(min(value // width, len(edges) - 2) for value in ordered)
    bars = []
    for number, (low, high) in enumerate(pairwise(edges)):
        span = f"{low:,} to {high - 1:,}" if high - low > 1 else f"{low:,}"
        span = f"{low:,} or more" if far and high == edges[-1] else span
        bars.append(Bar(name=span, parts=(number_in[number],), title=f"{span} {unit}: {number_in[number]:,}"))
    return edges, tuple(bars)


def similarity(accepted: Sequence[float], rejected: Sequence[float], limit: float) -> Chart:
    """ROUGE-L F1 from 0 to 1 in twenty bars, accepted below rejected, with the limit between them."""
    bars = similarity_bins(accepted, rejected)
    with style():
        figure, axes = chart_axes("ROUGE-L F1 with the nearest earlier instruction")
        _columns(axes, [(number + 0.5) / MOST_BINS for number in range(MOST_BINS)], 1 / MOST_BINS, bars)
        axes.set_xlim(0, 1)
        _line_at(axes, limit, f"limit {limit:g}")
        return finished_chart(figure, "similarity", "Histogram of ROUGE-L with the nearest earlier instruction", bars)


def similarity_bins(accepted: Sequence[float], rejected: Sequence[float]) -> tuple[Bar, ...]:
    """Twenty bars from 0 to 1, each with how many were accepted and rejected."""
    kept, left = (
        Counter(min(MOST_BINS - 1, int(score * MOST_BINS + 1e-9)) for score in scores) for scores in (accepted, rejected)
    )
    spans = [f"{number / MOST_BINS:.2f} to {(number + 1) / MOST_BINS:.2f}" for number in range(MOST_BINS)]
    return tuple(
        Bar(name=span, parts=(kept[number], left[number]), title=f"{span}: {kept[number]:,} accepted, {left[number]:,} rejected")
        for number, span in enumerate(spans)
    )


def yields(rounds: Sequence[Mapping[str, int]]) -> Chart:
    """Candidates of each round: the accepted below the rejected."""
    bars = tuple(
        Bar(
            name=f"round {item['round'] + 1}",
            parts=(item["accepted"], item["candidates"] - item["accepted"]),
            title=f"round {item['round'] + 1}: {item['accepted']:,} of {item['candidates']:,} accepted",
        )
        for item in rounds
    )
    label = f"Accepted and rejected candidates of {len(bars)} {'round' if len(bars) == 1 else 'rounds'}"
    if len({bar.parts for bar in bars}) < 2:
        return Chart(label=label, bars=bars, markup=None)
    with style():
        from matplotlib.ticker import MaxNLocator

        figure, axes = chart_axes("round")
        _columns(axes, [item["round"] + 1 for item in rounds], 1, bars)
        # A few bars stay bars and do not become walls.
        axes.set_xlim(0.4, max(len(bars), 6) + 0.6)
        if len(bars) <= MOST_LABELS:
            axes.set_xticks([item["round"] + 1 for item in rounds])
        else:
            axes.xaxis.set_major_locator(MaxNLocator(MOST_LABELS, integer=True))
        return finished_chart(figure, "rounds", label, bars)


def counts(numbers: Mapping[str, int], *, name: str, label: str, colour: str, most: int = 12) -> Chart:
    """Bars beside their names, the longest first; what is beyond `most` together in one."""
    ordered = sorted(numbers.items(), key=lambda item: -item[1])
    shown = ordered[:most]
    if rest := ordered[most:]:
        shown.append((f"{len(rest)} others", sum(count for _, count in rest)))
    bars = tuple(Bar(name=key, parts=(count,), title=f"{key}: {count:,}") for key, count in shown)
    if len({bar.parts for bar in bars}) < 2:
        return Chart(label=label, bars=bars, markup=None)
    with style():
        figure, axes = chart_axes("", height=0.5 + 0.24 * len(bars))
        drawn = axes.barh(range(len(bars)), [bar.parts[0] for bar in bars], color=colour, height=0.72)
        for number, patch in enumerate(drawn):
            patch.set_gid(f"bar-{number}-0")
        axes.bar_label(drawn, [f"{bar.parts[0]:,}" for bar in bars], padding=4, color=INK)
        axes.set_yticks(range(len(bars)), [_short(bar.name, NAME_LETTERS) for bar in bars])
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.tick_params(length=0, labelbottom=False)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        return finished_chart(figure, name, label, bars)


def loss_curve(steps: Sequence[int], losses: Sequence[float]) -> Chart:
    """The loss of each step, and beyond twenty steps its running mean; with few steps, a dot for each."""
    means = running_mean(losses) if len(losses) > 20 else []
    # A picture has no room for more points than these.
    kept = slice(None, None, 1 + len(steps) // CURVE_STEPS)
    dots = list(zip(steps, losses, strict=True)) if len(steps) <= DOTS_SHOWN else []
    with style():
        from matplotlib.ticker import MaxNLocator

        figure, axes = chart_axes("optimizer step", y="nats per token")
        faint = 0.35 if means else 1.0
        axes.plot(steps[kept], losses[kept], color=TUNED, alpha=faint, linewidth=1 if means else 1.6)
        if means:
            axes.plot(steps[kept], means[kept], color=TUNED, linewidth=1.8)
        bars = tuple(Bar(name=f"step {step}", parts=(), title=f"step {step:,}: {loss:.3f}") for step, loss in dots)
        for number, (step, loss) in enumerate(dots):
            axes.plot([step], [loss], color=TUNED, marker="o", markersize=3 if means else 4, gid=f"bar-{number}-0")
        axes.xaxis.set_major_locator(MaxNLocator(MOST_LABELS, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        return finished_chart(figure, "loss", f"Training loss, mean {sum(losses) / len(losses):.2f}", bars)


def rings(pairs: Mapping[tuple[str, str], int]) -> Chart | None:
    """The most frequent verbs and, around each, its most frequent nouns (after Self-Instruct, figure 3); None without any."""
    verbs, around = verbs_and_nouns(pairs)
    if not verbs:
        return None
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(INCHES[0], INCHES[0]))
        axes = figure.add_axes((0, 0, 1, 1))
        inner = [(bar, _HUES[number % len(_HUES)], "85") for number, bar in enumerate(verbs)]
        outer: list[tuple[Bar, str, str]] = []
        for (verb, hue, _), nouns in zip(inner, around, strict=True):
            outer += [(noun, hue, "4d") for noun in nouns]
            # What is beyond the most frequent nouns stays empty.
            outer.append((Bar(name="", parts=(verb.parts[0] - sum(noun.parts[0] for noun in nouns),), title=""), hue, "00"))
        _ring(axes, inner, 1 - RING, 0)
        _ring(axes, outer, 1, len(inner))
        axes.set(xlim=(-1.02, 1.02), ylim=(-1.02, 1.02))
        label = (
            f"The most frequent verbs, and around each the nouns after it: {', '.join(f'{b.name} {b.parts[0]}' for b in verbs)}"
        )
        chart = finished_chart(figure, "verbs", label, [bar for bar, _, _ in (*inner, *outer)])
    return Chart(
        label=label,
        bars=tuple(bar for verb, nouns in zip(verbs, around, strict=True) for bar in (verb, *nouns)),
        markup=chart.markup,
    )


def verbs_and_nouns(pairs: Mapping[tuple[str, str], int]) -> tuple[list[Bar], list[list[Bar]]]:
    """The most frequent verbs, and for each of them its most frequent nouns."""
    verbs: Counter[str] = Counter()
    nouns: dict[str, Counter[str]] = {}
    for (verb, noun), count in pairs.items():
        verbs[verb] += count
        nouns.setdefault(verb, Counter())[noun] += count

    def bars(ranked: Sequence[tuple[str, int]]) -> list[Bar]:
        return [Bar(name=word, parts=(count,), title=f"{word}: {count:,}") for word, count in ranked]

    chosen = verbs.most_common(VERBS_SHOWN)
    return bars(chosen), [bars(nouns[verb].most_common(NOUNS_SHOWN)) for verb, _ in chosen]


def _ring(axes: "Axes", sections: Sequence[tuple[Bar, str, str]], radius: float, first: int) -> None:
    """A ring of sections clockwise from the top, with labels where there is room."""
    sizes = [bar.parts[0] for bar, _, _ in sections]
    total = sum(sizes)
    wedges, texts = axes.pie(
        sizes, radius=radius, startangle=90, counterclock=False, colors=[hue + shade for _, hue, shade in sections],
        labels=[_short(bar.name, 9) if bar.parts[0] > LABELLED * total else "" for bar, _, _ in sections],
        labeldistance=1 - RING / 2 / radius, rotatelabels=True, wedgeprops={"width": RING, "edgecolor": CARD, "linewidth": 0.7},
        textprops={"ha": "center", "va": "center", "rotation_mode": "anchor", "color": INK, "fontsize": 8},
    )  # fmt: skip
    for number, (wedge, text, (bar, _, shade)) in enumerate(zip(wedges, texts, sections, strict=True)):
        wedge.set_gid(f"bar-{first + number}-0")
        wedge.set_visible(bool(bar.name))
        text.set_fontweight("bold" if shade == "85" else "normal")


def chart_axes(x: str, *, y: str = "", height: float = INCHES[1]) -> tuple["Figure", "Axes"]:
    """A figure of a chart's size, with its axes named."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES[0], height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=False, axis="x")
    return figure, axes


def _columns(axes: "Axes", places: Sequence[float], width: float, bars: Sequence[Bar]) -> None:
    """Bars that stand; the first part of each below, in the colour of what was accepted."""
    from matplotlib.ticker import MaxNLocator

    floor = [0] * len(bars)
    for part, colour in zip(range(len(bars[0].parts)), (TUNED, FAINT), strict=False):
        heights = [bar.parts[part] for bar in bars]
        for number, patch in enumerate(axes.bar(places, heights, width=0.88 * width, bottom=floor, color=colour)):
            patch.set_gid(f"bar-{number}-{part}")
        floor = [below + height for below, height in zip(floor, heights, strict=True)]
    axes.set_ylim(0, 1.06 * max(*floor, 1))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _line_at(axes: "Axes", x: float, label: str) -> None:
    """A dashed line with its label above the bars, on the side with more room."""
    axes.axvline(x, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    low, high = axes.get_xlim()
    right = (x - low) < 0.6 * (high - low)
    axes.annotate(
        label, (x, 1), xycoords=("data", "axes fraction"), xytext=(0, 2), textcoords="offset points", color=INK,
        ha="left" if right else "right", va="bottom",
    )  # fmt: skip


def finished_chart(figure: "Figure", name: str, label: str, bars: Sequence[Bar]) -> Chart:
    """The figure as a part of the page, with each bar's sentence on hover."""
    vector = io.StringIO()
    figure.savefig(vector, format="svg", metadata={"Date": None}, transparent=True)
    parts = max((len(bar.parts) for bar in bars), default=1) or 1
    titles = {f"bar-{number}-{part}": bar.title for number, bar in enumerate(bars) for part in range(parts)}
    return Chart(label=label, bars=tuple(bars), markup=for_page(vector.getvalue(), f"chart-{name}", label, titles))


def _short(text: str, letters: int) -> str:
    text = " ".join(legible(text).split())
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
