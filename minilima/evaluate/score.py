"""Scores annotations files: the figures of each run, and a paired comparison of every two that can be compared.

Reads files and returns values; `minilima score` prints them as tables, or as JSON for other programs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.evaluate.length_control import length_controlled, minimal_length_controlled, own_length_controlled
from minilima.evaluate.length_control_tables import BASELINE, LengthControlled, NotKnown, Tables
from minilima.evaluate.significance import Paired, compare, holm
from minilima.evaluate.statistics import Estimate, Share, WinRate, length_preference, share, win_rate
from minilima.formats.annotations import Run, by_prompt, mean_length, read_annotations


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The figures of one run."""

    name: str
    """The model's name, made unique by judge, baseline or file where several runs share it."""
    run: Run
    file: Path
    win_rate: WinRate
    length_controlled: LengthControlled | NotKnown
    minimal: LengthControlled | NotKnown
    mean_length: float
    length_preference: Share | None
    first_wins: Share | None
    """P(first wins), where the judge's replies name the position."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two runs, and how they compare; `comparison` is None, with a reason, where they cannot be."""

    first: str
    second: str
    comparison: Paired | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All runs in the order given, and all pairs of them."""

    runs: tuple[Scored, ...]
    pairs: tuple[Pair, ...]


def score(files: Sequence[Path], tables: Tables, *, positional: bool = False) -> Scores:
    """Scores annotations files.

    Args:
        files: annotations.json of alpaca_eval, plain or gzip.
        tables: what length control needs; see `length_tables`.
        positional: take difficulties by row number, as alpaca_eval 0.6.6 does.

    Raises:
        MinilimaError: a file cannot be understood, or a run in it has no verdict that can be read.
    """
    files_and_runs = [(file, run) for file in files for run in read_annotations(file)]
    names = _names(files_and_runs)
    runs = [_score(name, file, run, tables, positional) for name, (file, run) in zip(names, files_and_runs, strict=True)]
    return Scores(runs=tuple(runs), pairs=tuple(_pairs(runs)))


def _score(name: str, file: Path, run: Run, tables: Tables, positional: bool) -> Scored:
    rate = win_rate(run.preferences)
    if rate is None:
        raise MinilimaError(
            f"{file} has no verdict for {run.generator}.",
            f"None of its {len(run.annotations):,} preferences could be read: they are null, NaN or -1.",
            "Judge the answers again, or leave the file out.",
        )
    lengths = [(len(row.output_1), len(row.output_2)) for row in run.annotations]
    positions = [row.first_won for row in run.annotations if row.preference is not None]
    return Scored(
        name=name,
        run=run,
        file=file,
        win_rate=rate,
        length_controlled=_length_controlled(run, tables, positional),
        # Where AlpacaEval's own figure exists, a second one that is not comparable would only confuse.
        minimal=NotKnown(reason="the baseline is AlpacaEval's; its own form applies")
        if run.baseline == BASELINE
        else minimal_length_controlled(run),
        mean_length=mean_length([row.output_2 for row in run.annotations]),
        length_preference=length_preference(lengths, run.preferences),
        first_wins=share([(float(first), 1.0) for first in positions if first is not None]),
    )


def _length_controlled(run: Run, tables: Tables, positional: bool) -> LengthControlled | NotKnown:
    """The value computed here; failing that, the one alpaca_eval left in the file."""
    computed = length_controlled(run, tables, positional=positional)
    return computed if isinstance(computed, LengthControlled) else own_length_controlled(run) or computed


def _names(files_and_runs: Sequence[tuple[Path, Run]]) -> list[str]:
    """A name for each run: the model; where runs share it also the judge, the baseline and the file, as far as needed."""
    names = [run.generator for _, run in files_and_runs]
    for detail in ("judge", "baseline", "file"):
        shared = {name for name, times in Counter(names).items() if times > 1}
        for index, (file, run) in enumerate(files_and_runs):
            if names[index] in shared:
                more = {"judge": run.judge, "baseline": run.baseline, "file": str(file)}[detail]
                names[index] += f" ({more or f'{detail} not named'})"
    # Only the same run of the same file given twice is left.
    return [name if names.count(name) == 1 else f"{name} #{number}" for number, name in enumerate(names, start=1)]


def _pairs(runs: Sequence[Scored]) -> list[Pair]:
    """Every two runs; the p-values are corrected for the number of pairs that could be compared."""
    pairs = [_pair(first, second) for first, second in combinations(runs, 2)]
    corrected = iter(holm([pair.comparison.p_bootstrap for pair in pairs if pair.comparison is not None]))
    return [
        pair if pair.comparison is None else replace(pair, comparison=replace(pair.comparison, p_holm=next(corrected)))
        for pair in pairs
    ]


def _pair(first: Scored, second: Scored) -> Pair:
    one, two = first.run, second.run
    reason = None
    if one.judge != two.judge:
        reason = f"they have different judges: {one.judge or 'not named'} and {two.judge or 'not named'}"
    elif one.baseline != two.baseline:
        reason = f"they have different baselines: {one.baseline or 'not named'} and {two.baseline or 'not named'}"
    theirs = by_prompt(two)
    both = [(row.preference, theirs[key].preference) for key, row in by_prompt(one).items() if reason is None and key in theirs]
    read = [(mine, other) for mine, other in both if mine is not None and other is not None]
    if not read:
        return Pair(first=first.name, second=second.name, comparison=None, reason=reason or "they share no judged prompt")
    comparison = compare([mine for mine, _ in read], [other for _, other in read])
    return Pair(first=first.name, second=second.name, comparison=comparison)


def as_json(scores: Scores) -> dict[str, Any]:
    """The scores as plain values; what is not known is null, with the reason beside it where there is one to give."""
    return {"runs": [_run_json(run) for run in scores.runs], "pairs": [_pair_json(pair) for pair in scores.pairs]}


def _run_json(scored: Scored) -> dict[str, Any]:
    rate = scored.win_rate
    return {
        "name": scored.name,
        "generator": scored.run.generator,
        "baseline": scored.run.baseline,
        "judge": scored.run.judge,
        "file": str(scored.file),
        "n_total": rate.judged,
        "n_unread": rate.prompts - rate.judged,
        "win_rate": rate.win_rate.value,
        "standard_error": _finite(rate.standard_error),
        "ci95": _bounds(rate.win_rate),
        "n_wins": rate.wins,
        "n_wins_base": rate.losses,
        "n_draws": rate.ties,
        "discrete_win_rate": rate.discrete_win_rate,
        "avg_length": scored.mean_length,
        **_controlled_json("length_controlled_win_rate", scored.length_controlled),
        **_controlled_json("minimal_length_controlled_win_rate", scored.minimal),
        "length_preference": _share_json(scored.length_preference),
        "first_wins": _share_json(scored.first_wins),
    }


def _controlled_json(field: str, value: LengthControlled | NotKnown) -> dict[str, Any]:
    if isinstance(value, NotKnown):
        return {field: None, f"{field}_ci95": None, f"{field}_how": f"not known: {value.reason}"}
    return {field: value.value, f"{field}_ci95": _bounds(value.interval), f"{field}_how": value.how}


def _share_json(value: Share | None) -> dict[str, Any] | None:
    return None if value is None else {"share": value.share.value, "ci95": _bounds(value.share), "decided": value.decided}


def _pair_json(pair: Pair) -> dict[str, Any]:
    names = {"first": pair.first, "second": pair.second}
    if pair.comparison is None:
        return {**names, "difference": None, "reason": pair.reason}
    paired = pair.comparison
    return {
        **names,
        "n_prompts": paired.prompts,
        "difference": paired.difference.value,
        "standard_error": _finite(paired.standard_error),
        "ci95": _bounds(paired.difference),
        "p_bootstrap": paired.p_bootstrap,
        "p_holm": paired.p_holm,
        "p_mcnemar": paired.p_mcnemar,
        "first_better": paired.first_better,
        "second_better": paired.second_better,
        "minimum_detectable_difference": _finite(paired.minimum_detectable),
    }


def _bounds(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None else [estimate.low, estimate.high]


def _finite(value: float) -> float | None:
    """NaN is no JSON; a single prompt has no standard error."""
    return value if value == value else None
