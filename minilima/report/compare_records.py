"""Compared points as flat records: what CSV, JSON and data frames hold of a table."""

from collections.abc import Sequence
from typing import Any

from minilima.report.compare import ComparedRun, Table, benchmarks_of, change_on, others_of
from minilima.report.over_seeds import SEED, SeedGroup
from minilima.report.runs import FinishedRun


def records(table: Table) -> list[dict[str, Any]]:
    """One flat record a point, for CSV, JSON and data frames; what is not known is None."""
    tasks = benchmarks_of(table)
    rows = [_record(row, table.settings, tasks, others_of(table)) for row in table.rows]
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def records_of_groups(table: Table) -> list[dict[str, Any]]:
    """One flat record for each group of points that differ by their seed alone."""
    return [_record_of_group(group, table.settings) for group in table.groups]


def _record_of_group(group: SeedGroup, settings: Sequence[str]) -> dict[str, Any]:
    mean, found = group.mean, group.against
    known = found is not None and found.prompts > 1
    return {
        **{name: group.runs[0].settings.get(name) for name in settings if name != SEED},
        "points": [run.name for run in group.runs],
        "seeds": [run.settings.get(SEED) for run in group.runs],
        **{f"win_rate{end}": getattr(mean.estimate, name) for end, name in _ENDS.items()},
        "prompts": mean.prompts,
        "spread": group.spread,
        **{f"difference{end}": getattr(found.estimate, name) if found else None for end, name in _ENDS.items()},
        "p": found.p_value if found else None,
        "p_holm": found.p_holm if found else None,
        "minimum_detectable_difference": found.minimum_detectable if found and known else None,
        "shared_prompts": found.prompts if found else None,
        "note": group.note,
    }


def _record_of_benchmark(point: FinishedRun, task: str) -> dict[str, Any]:
    change = change_on(point, task)
    difference = change.paired.difference if change else None
    return {
        task: change.tuned.value if change else None,
        f"{task}_base": change.base.value if change else None,
        f"{task}_change": difference.value if difference else None,
        f"{task}_change_low": difference.low if difference else None,
        f"{task}_change_high": difference.high if difference else None,
        f"{task}_p_mcnemar": change.paired.p_mcnemar if change else None,
    }


_ENDS = {"": "value", "_low": "low", "_high": "high"}


def _record_of_scores(point: FinishedRun) -> dict[str, Any]:
    """The scores of a judge that sees each answer alone; nothing for other judges."""
    scores = point.results.scores
    own = {"score": scores.tuned.value, "score_base": scores.base.value} if scores else {}
    return {**own, **({f"score_change{end}": getattr(scores.change, name) for end, name in _ENDS.items()} if scores else {})}


def _record_of_other(row: ComparedRun, name: str) -> dict[str, Any]:
    """The win rate of a further judge or set, and how it compares with the chosen point's."""
    judged, against, behind = row.point.judgments(name), row.others.get(name), f"_{name.replace(' ', '_')}"
    paired = against.paired if against else None
    rate, difference = judged.rate if judged else None, paired.difference if paired else None
    return {
        **{f"win_rate{behind}{end}": getattr(rate, part) if rate else None for end, part in _ENDS.items()},
        **{f"difference{behind}{end}": getattr(difference, part) if difference else None for end, part in _ENDS.items()},
        f"p_holm{behind}": paired.p_holm if paired else None,
        f"p_mcnemar{behind}": paired.p_mcnemar if paired else None,
        f"shared_prompts{behind}": paired.prompts if paired else None,
    }


def _record(row: ComparedRun, settings: Sequence[str], tasks: Sequence[str], others: Sequence[str]) -> dict[str, Any]:
    point, paired = row.point, row.against.paired if row.against else None
    rate, loss = point.results.win_rate, point.results.loss_change
    return {
        "point": point.name,
        **{name: point.settings.get(name) for name in settings},
        "win_rate": rate.win_rate.value if rate else None,
        "win_rate_low": rate.win_rate.low if rate else None,
        "win_rate_high": rate.win_rate.high if rate else None,
        **{name: value for other in others for name, value in _record_of_other(row, other).items()},
        "length_controlled_win_rate": point.length_controlled[0] if point.length_controlled else None,
        "judged": point.results.coverage.judged,
        "prompts": point.results.coverage.prompts,
        **_record_of_scores(point),
        "loss_change": loss.change.value if loss else None,
        "loss_change_low": loss.change.low if loss else None,
        "loss_change_high": loss.change.high if loss else None,
        **{name: value for task in tasks for name, value in _record_of_benchmark(point, task).items()},
        "mean_words": row.point.words,
        "base_mean_words": row.point.base_words,
        "tokens": point.tokens,
        "usd": point.usd,
        "seconds": point.seconds,
        "best": row.best,
        "pareto": row.pareto,
        "difference": paired.difference.value if paired else None,
        "difference_low": paired.difference.low if paired else None,
        "difference_high": paired.difference.high if paired else None,
        "p_bootstrap": paired.p_bootstrap if paired else None,
        "p_holm": paired.p_holm if paired else None,
        "p_mcnemar": paired.p_mcnemar if paired else None,
        "minimum_detectable_difference": paired.minimum_detectable if paired and paired.prompts > 1 else None,
        "shared_prompts": paired.prompts if paired else None,
        "note": row.against.note if row.against else "",
    }
