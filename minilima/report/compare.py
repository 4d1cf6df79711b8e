"""Points beside each other: what differs, which is best, which are worth their cost, and which differ significantly. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from minilima.errors import MinilimaError, options
from minilima.evaluate.benchmark_scores import BenchmarkChange
from minilima.evaluate.significance import Paired, compare, holm
from minilima.evaluate.statistics import Estimate
from minilima.report import judgments
from minilima.report.over_seeds import SEED, SeedGroup, group_by_seed
from minilima.report.runs import FinishedRun
from minilima.report.sameness import unlike_builds

_YARDSTICK = ("judge", "eval_set")
"""Settings that must be seen wherever they differ: win rates by other judges or on other prompts are no comparison."""
_KINDS = {"sft": "sft.method"}
"""The setting that says what a group's others mean, where it is not called `kind`."""
_SOURCES = ("kind", "packaged", "path", "hub", "model")
"""Names that a setting has in several groups."""


@dataclass(frozen=True, kw_only=True)
class Against:
    """How a point compares with the chosen one; `paired` is None, with a reason, where it cannot be compared."""

    paired: Paired | None
    note: str = ""
    """Why there is no comparison, or what limits it."""


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """A point and what the others say of it."""

    point: FinishedRun
    against: Against | None
    """None for the chosen point itself, and where none was chosen."""
    best: bool
    pareto: bool
    """Above 50 % at a price, and no other point has both a higher win rate and a lower price, or one with the other equal."""
    others: Mapping[str, Against | None] = field(default_factory=dict)
    """As `against`, by each further judge and on each further set."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """All points, the highest win rate first."""

    rows: tuple[ComparedRun, ...]
    settings: tuple[str, ...]
    """Names of the settings in which points differ, judges and evaluation sets first."""
    naming: tuple[str, ...]
    """Those of them that tell the points apart: labels and legends name no others."""
    comparable: bool
    """Whether all points share prompts, baseline and judge; if not, none is best."""
    groups: tuple[SeedGroup, ...] = ()
    """Points that differ by their seed alone, taken together, the highest mean first."""


def tabulate(points: Sequence[FinishedRun], against: FinishedRun | None = None) -> Table:
    """Compares points; `against` is the one that all others are paired with."""
    names = sorted(
        {name for point in points for name in point.settings}, key=lambda name: (not name.startswith(_YARDSTICK), name)
    )
    differ = [name for name in names if len({repr(point.settings.get(name)) for point in points}) > 1 and name != "name"]
    settings = tuple(name for name in differ if not _implied_by_kind(name, differ, points))
    # Time is no such cost: it depends on what else the machine did.
    priced = all(point.usd is not None for point in points)
    comparable = len({tuple(point.yardstick.items()) for point in points}) == 1
    rated = sorted(points, key=lambda point: (-_score(point), point.seconds))
    pairs = _pairs(rated, against)
    further = {name: _pairs(rated, against, name) for name in dict.fromkeys(name for point in rated for name in point.others)}
    rows = tuple(
        ComparedRun(
            point=point,
            against=pairs[rank],
            best=comparable and point.results.win_rate is not None and _score(point) == _score(rated[0]),
            pareto=comparable
            and priced
            and bool(point.usd)
            and _score(point) > 50  # cheap is no merit of what answers no better than the baseline
            and not any(_dominates(other, point) for other in rated),
            others={name: column[rank] for name, column in further.items()},
        )
        for rank, point in enumerate(rated)
    )
    naming, groups = tuple(distinguishing(points, settings)), group_by_seed(points, settings, against)
    return Table(rows=rows, settings=settings, naming=naming, comparable=comparable, groups=groups)


def _implied_by_kind(name: str, differ: Sequence[str], points: Sequence[FinishedRun]) -> bool:
    """Whether the group's kind says all that the setting does, as where data of two kinds have their own filters."""
    group = name.partition(".")[0]
    kind = _KINDS.get(group, f"{group}.kind")
    if name == kind or kind not in differ:
        return False
    kinds = {repr(point.settings.get(kind)) for point in points}
    return len({(repr(point.settings.get(kind)), repr(point.settings.get(name))) for point in points}) == len(kinds)


def distinguishing(points: Sequence[FinishedRun], names: Sequence[str]) -> list[str]:
    """The settings that tell the points apart as well as all of `names` do; what follows from the others is left out."""

    def kinds(chosen: Sequence[str]) -> int:
        return len({tuple(repr(point.settings.get(name)) for name in chosen) for point in points})

    kept = list(names)
    for name in reversed(names):
        fewer = [other for other in kept if other != name]
        if kinds(fewer) == kinds(names):
            kept = fewer
    return kept


def choose(name: str | None, points: Sequence[FinishedRun]) -> FinishedRun | None:
    """The point of that name, or the only one whose name begins so or that has these settings; None where none is asked for.

    Args:
        name: `lima_1k-0123abcd`, `lima_1k-01`, or `dataset.size=300,sft.learning_rate=1e-5`.

    Raises:
        MinilimaError: no point, or several, are named so.
    """
    if name is None:
        return None
    named = [point for point in points if point.name == name] or [point for point in points if point.name.startswith(name)]
    named = named or [point for point in points if "=" in name and _has(point, name)]
    if len(named) == 1:
        return named[0]
    what = f"{len(named)} points are {name}." if named else f"There is no point {name}."
    fix = "Name one of them in full, or by the settings that it alone has: --against dataset.size=300,sft.learning_rate=1e-5"
    raise MinilimaError(what, f"The points are: {options([point.name for point in named or points])}.", fix)


def _has(point: FinishedRun, settings: str) -> bool:
    """Whether a point has all of `dataset.size=300,sft.learning_rate=1e-5`; numbers are the same however they are written."""
    asked = [item.strip().partition("=") for item in settings.split(",")]
    return all(name in point.settings and _same(str(point.settings[name]), value) for name, _, value in asked)


def _same(value: str, asked: str) -> bool:
    try:
        return float(value) == float(asked)
    except ValueError:
        return value == asked


def unlike(table: Table) -> str:
    """What the points cannot be compared by."""
    yardsticks = [row.point.yardstick for row in table.rows]
    differ = [name for name in yardsticks[0] if len({yardstick[name] for yardstick in yardsticks}) > 1]
    return f"The points differ in {' and '.join(differ)}, so none is called best."


def notes(table: Table, best: str = "* best win rate", front: str = "+ no other point") -> list[str]:
    """What a reader must know to read the table correctly; `best` and `front` say how it marks points."""
    other = any(row.point.settings.get("eval.reference") for row in table.rows)
    baseline = "what eval.reference names" if other else "the base model"
    lines = [f"Win rates are in percent against {baseline}, with 95 % bootstrap intervals over prompts."]
    if table.comparable:
        worth = f"; {front} is both better and cheaper in USD" if any(row.pareto for row in table.rows) else ""
        lines.append(f"{best}{worth}. Shared stages count in each point.")
        if len(table.rows) > 1:
            lines.append(
                "The best of many points is chosen partly by luck; the paired p-values say which differences are significant."
            )
    else:
        lines.append(unlike(table))
    if (builds := unlike_builds([row.point for row in table.rows])) is not None:
        lines.append(builds)
    if benchmarks_of(table):
        lines.append("Benchmarks: change from base to tuned model in points, on the same items; no judge is involved.")
    if any(row.against and row.against.paired for row in table.rows):
        lines.append(
            "Differences are paired over shared prompts. p: of the bootstrap, with Holm's correction over all points; of the "
            "exact McNemar test. Detectable: the smallest difference detectable at 80 % power."
        )
        if others_of(table):
            lines.append("Each judge and each evaluation set has paired differences of its own, corrected apart.")
    return lines


def label_of_group(group: SeedGroup, table: Table) -> str:
    """The settings by which a group of seeds differs from the others."""
    return label(group.runs[0], [name for name in table.naming if name != SEED]) if len(table.groups) > 1 else "all seeds"


def label(point: FinishedRun, settings: Sequence[str]) -> str:
    """The settings by which a point differs, in short: `size 300, learning rate 2e-05`; its name where there are none."""
    return ", ".join(f"{_brief(name)} {value(point, name)}" for name in settings) or point.name


def _brief(name: str) -> str:
    """The last part of a setting's name, or its group's where every group has such a part: `data file`, `judge reference`."""
    group, _, last = name.rpartition(".")
    return (group if group and last in _SOURCES else last).replace("_", " ")


def value(point: FinishedRun, name: str) -> str:
    """A setting's value for a table; where nothing packaged is named, the file, folder or repository that is."""
    group, _, last = name.rpartition(".")
    found = point.settings.get(name)
    if found is None and last == "packaged":
        named = (point.settings.get(f"{group}.{other}") for other in ("path", "hub", "hub_file"))
        found = next((Path(str(other)).name for other in named if other), None)
    return shown(found)


def shown(value: object) -> str:
    """A setting's value for a table."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _score(point: FinishedRun) -> float:
    return point.results.win_rate.win_rate.value if point.results.win_rate else float("-inf")


def _dominates(one: FinishedRun, other: FinishedRun) -> bool:
    better, cheaper = _score(one) - _score(other), (other.usd or 0.0) - (one.usd or 0.0)
    return better >= 0 and cheaper >= 0 and (better > 0 or cheaper > 0)


def _pairs(points: Sequence[FinishedRun], chosen: FinishedRun | None, name: str = "") -> list[Against | None]:
    """Each point's comparison with the chosen one, by its own judge and set or by another one of this name."""
    if chosen is None:
        return [None] * len(points)
    position = next(position for position, point in enumerate(points) if point is chosen)
    comparisons = _paired(points, [(other, position) for other in range(len(points)) if other != position], name)
    return corrected([comparisons.get((other, position)) for other in range(len(points))])


def every_pair(points: Sequence[FinishedRun], name: str = "") -> list[list[Against | None]]:
    """For each point how all compare with it, as `tabulate` does with a chosen one."""
    positions = range(len(points))
    comparisons = _paired(points, [(one, other) for one in positions for other in positions if one < other], name)
    comparisons |= {(other, one): _mirrored(item) for (one, other), item in comparisons.items()}
    return [corrected([comparisons.get((one, chosen)) for one in positions]) for chosen in positions]


def _paired(points: Sequence[FinishedRun], pairs: Sequence[tuple[int, int]], name: str) -> dict[tuple[int, int], Against]:
    """The comparisons of the points at these pairs of positions."""

    def shared(positions: tuple[int, int]) -> int:
        first, second = (found.preferences if (found := points[position].judgments(name)) else {} for position in positions)
        return len(first.keys() & second.keys())

    # Comparisons over equally many prompts use the same resamples, which are kept for one such number at a time.
    return {(one, other): pair(points[one], points[other], name) for one, other in sorted(pairs, key=shared)}


def _mirrored(item: Against) -> Against:
    """The same comparison, seen from the other point."""
    if (paired := item.paired) is None:
        return item
    # Subtracted, not negated: the other side of +0.0 is +0.0.
    there = paired.difference
    difference = Estimate(value=0.0 - there.value, low=0.0 - there.high, high=0.0 - there.low)
    better = {"first_better": paired.second_better, "second_better": paired.first_better}
    return replace(item, paired=replace(paired, difference=difference, **better))


def corrected(items: Sequence[Against | None]) -> list[Against | None]:
    """With Holm's correction, which counts the comparisons that could be made."""
    values = iter(holm([item.paired.p_bootstrap for item in items if item and item.paired]))
    return [replace(item, paired=replace(item.paired, p_holm=next(values))) if item and item.paired else item for item in items]


def pair(point: FinishedRun, chosen: FinishedRun, name: str = "") -> Against:
    """The paired comparison over the prompts that both runs have a verdict on, by their own judge and set or another one."""
    run, against = point.judgments(name), chosen.judgments(name)
    if run is None or against is None:
        return Against(paired=None, note="cannot be paired: not judged so in both")
    if other := judgments.unlike(run.yardstick, against.yardstick):
        return Against(paired=None, note=f"cannot be paired: other {other}")
    shared = [prompt for prompt in run.preferences if prompt in against.preferences]
    if not shared:
        return Against(paired=None, note="cannot be paired: no prompt has a verdict in both")
    every = max(run.prompts, against.prompts)
    note = f"only {len(shared)} of {every} prompts have a verdict in both" if len(shared) < every else ""
    ours, theirs = ([one.preferences[item] for item in shared] for one in (run, against))
    weighted = run.weights or against.weights
    often = [[one.weights.get(item, 1.0) for item in shared] for one in (run, against)]
    return Against(paired=compare(ours, theirs, (often[0], often[1]) if weighted else None), note=note)


def benchmarks_of(table: Table) -> list[str]:
    """The benchmarks that any of the points was run on."""
    return list(dict.fromkeys(change.task for row in table.rows for change in row.point.benchmarks))


def change_on(point: FinishedRun, task: str) -> BenchmarkChange | None:
    """A point's main figure of a benchmark; None where it was not run on it."""
    return next((change for change in point.benchmarks if change.task == task and change.main), None)


def others_of(table: Table) -> list[str]:
    """Further judges and evaluation sets of any of the points, and the majority: `by cot`, `on alpaca_eval`."""
    return list(dict.fromkeys(name for row in table.rows for name in row.point.others))
