"""Pictures of a sweep, drawn once: as SVG and PNG files for papers, and the same SVG for the report's page.

matplotlib is imported by whoever draws, never before.
"""

import html
import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from minilima.formats.files import write_atomic
from minilima.report.compare import ComparedRun, Table, value
from minilima.report.render import legible
from minilima.report.series import Series, across, describe, natural, running_mean, series, unlike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PNG_DPI = 300
"""Dots an inch, as journals ask for."""
INCHES = (3.8, 2.9)
"""A page on a telephone shows it at about this size, so that its letters stay legible."""
LEGEND_LETTERS, LEGEND_LINE = 58, 0.15
"""As many fit in a line above a picture; the height of a line in inches."""
CURVE_POINTS = 150

INK, SOFT, LINE, FAINT, CARD = "#15191e", "#5a6470", "#dfe3e7", "#b9c4cf", "#fefefe"
_ON_PAGE = {
    INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", FAINT: "var(--faint)", CARD: "var(--card)",
    "#0072b2": "var(--tuned)", "#a85100": "var(--base)", "#000000": "var(--ink)",
}  # fmt: skip
"""What follows the page's light and dark."""

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same picture everywhere
    "font.size": 9, "axes.labelcolor": INK, "axes.edgecolor": SOFT, "axes.linewidth": 0.8, "xtick.color": SOFT,
    "ytick.color": SOFT, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": LINE,
    "axes.axisbelow": True, "legend.frameon": False, "legend.labelcolor": INK, "legend.fontsize": 9, "lines.linewidth": 1.4,
    "text.parse_math": False,  # a dollar in a setting is a dollar
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture in its files and for a page."""

    name: str
    title: str
    caption: str
    markup: Markup


@dataclass(frozen=True, kw_only=True)
class _Plan:
    name: str
    title: str
    caption: str
    draw: Callable[[], "Figure"]


def draw_all(table: Table, folder: Path) -> list[Picture]:
    """Draws what these points can show, writing NAME.svg and NAME.png for each picture into `folder`."""
    groups = series(table)
    titles = {f"point-{index}": describe(row, table) for index, row in enumerate(table.rows)}
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    with style():
        for plan in _plans(table, groups):
            figure = plan.draw()
            vector, pixels = io.StringIO(), io.BytesIO()
            figure.savefig(vector, format="svg", metadata={"Date": None}, transparent=True)
            figure.savefig(pixels, format="png", dpi=PNG_DPI, facecolor="white")
            write_atomic(folder / f"{plan.name}.svg", vector.getvalue())
            (folder / f"{plan.name}.png").write_bytes(pixels.getvalue())
            markup = for_page(vector.getvalue(), plan.name, plan.title, titles)
            pictures.append(Picture(name=plan.name, title=plan.title, caption=plan.caption, markup=markup))
    return pictures


@contextmanager
def style() -> Iterator[None]:
    """The look of every picture, on both pages and in files."""
    import matplotlib

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": "minilima"}), warnings.catch_warnings():
        # A setting in a script that the font lacks is a box in the PNG; the SVG has its text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _plans(table: Table, groups: Sequence[Series]) -> Iterator[_Plan]:
    rated = [row for row in table.rows if row.point.results.win_rate]
    sizes = {row.point.examples for row in rated}
    other = across(table)
    if len(sizes) > 1:
        caption = "95 % bootstrap intervals over prompts; the dashed line is no difference from the base model."
        yield _Plan(name="win_rate_by_size", title="Win rate against data size", caption=caption, draw=lambda: by_size(groups))
    if len(sizes) > 1 and other and not unlike(table, other):
        title = f"Win rate by data size and {other.rpartition('.')[2].replace('_', ' ')}"
        caption = "In percent; where several runs share a cell, their mean, with their number in brackets."
        yield _Plan(name="win_rate_map", title=title, caption=caption, draw=lambda: heat_map(rated, other))
    if any(row.point.losses for row in table.rows):
        caption = "Nats per trained token; running means over a twentieth of each training."
        yield _Plan(name="training_loss", title="Training loss", caption=caption, draw=lambda: loss_curves(groups))
    if len(rated) > 1:
        caption = "Judges tend to prefer longer answers: a win rate that only follows the length is not worth much."
        yield _Plan(
            name="win_rate_by_length", title="Win rate against answer length", caption=caption, draw=lambda: by_length(groups)
        )


def _axes(x: str, y: str) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _mark(axes: "Axes", x: float, row: ComparedRun, index: int, of: Series) -> None:
    """A point with its interval."""
    rate = row.point.results.win_rate
    assert rate is not None
    interval = rate.win_rate
    reach = [[max(0.0, interval.value - interval.low)], [max(0.0, interval.high - interval.value)]]
    drawn = axes.errorbar(x, interval.value, yerr=reach, fmt=of.marker, color=of.colour, capsize=2.5, elinewidth=1, markersize=6)
    drawn.lines[0].set_gid(f"point-{index}")


def _percent(axes: "Axes") -> None:
    axes.set_ylim(0, 100)
    axes.axhline(50, color=SOFT, linestyle=(0, (4, 3)), linewidth=1, zorder=1)


def _legend(figure: "Figure", axes: "Axes", groups: Sequence[Series], *, lines: bool = False) -> None:
    if len(groups) < 2:
        return
    from matplotlib.lines import Line2D

    line = "-" if lines else "none"
    # A mark and its margin take as much as nine letters.
    room = LEGEND_LETTERS - 9
    labels = [textwrap.fill(textwrap.shorten(of.label, 2 * room - 9, placeholder="…"), room) for of in groups]
    handles = [
        Line2D([], [], color=of.colour, marker=of.marker, linestyle=line, label=label)
        for of, label in zip(groups, labels, strict=True)
    ]
    shown = [line for label in labels for line in label.split("\n")]
    columns = max(1, min(3, len(groups), LEGEND_LETTERS // (9 + max(map(len, shown)))))
    figure.set_size_inches(INCHES[0], INCHES[1] + LEGEND_LINE * max(0.0, len(shown) / columns - 2))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, borderaxespad=0.2)


def by_size(groups: Sequence[Series]) -> "Figure":
    figure, axes = _axes("examples in the data set (log axis)", "win rate, %")
    axes.set_xscale("log")
    _percent(axes)
    sizes: set[int] = set()
    for number, of in enumerate(groups):
        # Beside each other, not on top of each other.
        shift = 1.035 ** (number - (len(groups) - 1) / 2)
        rated = [(index, row) for index, row in of.rows if row.point.results.win_rate]
        means: dict[int, list[float]] = {}
        for index, row in rated:
            assert row.point.results.win_rate is not None
            _mark(axes, row.point.examples * shift, row, index, of)
            means.setdefault(row.point.examples, []).append(row.point.results.win_rate.win_rate.value)
        places = sorted(means)
        axes.plot(
            [size * shift for size in places], [sum(means[size]) / len(means[size]) for size in places],
            color=of.colour, alpha=0.55, zorder=1.5,
        )  # fmt: skip
        sizes |= set(places)
    _size_ticks(axes, sorted(sizes))
    _legend(figure, axes, groups)
    return figure


def _size_ticks(axes: "Axes", sizes: Sequence[int]) -> None:
    """The sizes themselves, where they leave each other room."""
    from matplotlib.ticker import NullFormatter, NullLocator

    kept = [sizes[0]]
    for size in sizes[1:]:
        if size / kept[-1] > (sizes[-1] / sizes[0]) ** 0.07:
            kept.append(size)
    axes.set_xticks(kept, [f"{size:,}" for size in kept])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def heat_map(rows: Sequence[ComparedRun], name: str) -> "Figure":
    import numpy as np
    from matplotlib.colors import Normalize

    sizes = sorted({row.point.examples for row in rows})
    values = sorted({value(row.point, name) for row in rows}, key=natural)
    cells: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        assert row.point.results.win_rate is not None
        index = values.index(value(row.point, name)), sizes.index(row.point.examples)
        cells.setdefault(index, []).append(row.point.results.win_rate.win_rate.value)
    means = {index: sum(rates) / len(rates) for index, rates in cells.items()}
    grid = [[means.get((down, along), float("nan")) for along in range(len(sizes))] for down in range(len(values))]
    figure, axes = _axes("examples in the data set", legible(name.rpartition(".")[2].replace("_", " ")))
    axes.grid(visible=False)
    low, high = min(means.values()), max(means.values())
    # cividis is even for the colour-blind and in grey (Nunez et al. 2018). A mesh, not an image: it stays sharp in an SVG.
    norm = Normalize(low, max(high, low + 1e-9))
    axes.pcolormesh(np.ma.masked_invalid(grid), cmap="cividis", norm=norm, edgecolors="white", linewidth=1)
    axes.set_xticks([index + 0.5 for index in range(len(sizes))], [f"{size:,}" for size in sizes])
    axes.set_yticks([index + 0.5 for index in range(len(values))], [legible(value) for value in values])
    axes.tick_params(length=0)
    for (down, along), rates in cells.items():
        many = f" ({len(rates)})" if len(rates) > 1 else ""
        colour = "#0a0a0a" if norm(means[down, along]) > 0.55 else "#fafafa"
        size = 9 if len(cells) <= 40 else 6
        axes.text(
            along + 0.5, down + 0.5, f"{means[down, along]:.1f}{many}", ha="center", va="center", color=colour, fontsize=size
        )
    return figure


def loss_curves(groups: Sequence[Series]) -> "Figure":
    figure, axes = _axes("optimizer step", "training loss, nats per token")
    lengths = []
    crowd = sum(len(of.rows) for of in groups)
    for of in groups:
        for index, row in of.rows:
            if not row.point.losses:
                continue
            steps, losses = smoothed(row.point.losses)
            lengths.append(row.point.losses[-1][0])
            every = max(1, len(steps) // 6)
            axes.plot(
                steps, losses, color=of.colour, marker=of.marker, markevery=(every // 2, every), markersize=3.5,
                alpha=1 if crowd <= 12 else 0.5, linewidth=1.2 if crowd <= 12 else 0.8, gid=f"point-{index}",
            )  # fmt: skip
    if max(lengths) > 4 * min(lengths):
        # A small data set has few steps; on a straight axis its curve would be a line upwards.
        axes.set_xscale("log")
        axes.set_xlabel("optimizer step (log axis)")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    else:
        axes.locator_params(axis="x", integer=True, nbins=6)
    _legend(figure, axes, groups, lines=True)
    return figure


def smoothed(losses: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Steps and their running means; at most CURVE_POINTS of them."""
    means = running_mean([loss for _, loss in losses])
    kept = sorted({round(index * (len(means) - 1) / (CURVE_POINTS - 1)) for index in range(CURVE_POINTS)})
    return [losses[index][0] for index in kept], [means[index] for index in kept]


def by_length(groups: Sequence[Series]) -> "Figure":
    figure, axes = _axes("mean words per answer", "win rate, %")
    _percent(axes)
    rated = [(of, index, row) for of in groups for index, row in of.rows if row.point.results.win_rate]
    for of, index, row in rated:
        _mark(axes, row.point.words, row, index, of)
    bases = {round(row.point.base_words, 1) for _, _, row in rated}
    if len(bases) == 1:
        base = bases.pop()
        axes.axvline(base, color=SOFT, linestyle=":", linewidth=1.2, zorder=1)
        axes.annotate("base model", (base, 1), xytext=(3, 3), textcoords="offset points", color=SOFT, fontsize=8)
    _legend(figure, axes, groups)
    return figure


def for_page(svg: str, name: str, title: str, titles: Mapping[str, str]) -> Markup:
    """An SVG of matplotlib's as a part of a page: the page's colours and font, ids of its own, and what each point is."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r' xmlns(:xlink)?="[^"]*"', "", body)
    body = body.replace("xlink:href", "href")
    body = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", body, count=1)
    for colour, variable in _ON_PAGE.items():
        body = body.replace(colour, variable)
    body = body.replace("'DejaVu Sans'", "system-ui, sans-serif")
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    for identity, text in titles.items():
        mark = f'<g id="{name}-{identity}">'
        body = body.replace(mark, f"{mark}<title>{html.escape(legible(text))}</title>")
    # Text in it was escaped by matplotlib, or just above.
    return Markup(body.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1))  # noqa: S704
