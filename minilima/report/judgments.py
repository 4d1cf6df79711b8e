"""What each judge of a finished run prefers on each evaluation set: what two runs are paired by.

verdicts.jsonl and manifests of a run ─> Judgments, the run's own and by name those of further judges, sets and the majority
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minilima.evaluate.judged import OPPONENTS, opponent
from minilima.evaluate.panel import majority
from minilima.evaluate.statistics import Estimate
from minilima.formats.files import canonical_json, read_jsonl
from minilima.formats.records import Verdict

Manifests = Mapping[str, Mapping[str, Any]]
"""The manifest of each stage, by its role."""


@dataclass(frozen=True, kw_only=True)
class Judgments:
    """One judge's verdicts on one evaluation set."""

    preferences: Mapping[str, float]
    """Id of each prompt with a verdict that could be read: 1 = the reference is better, 2 = the tuned model is."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """How often the verdict on each prompt counts, by its id; none where each counts once."""
    yardstick: Mapping[str, str]
    """What makes verdicts comparable (prompts, baseline, judge): runs can be paired only where all agree."""
    prompts: int
    """All that were asked."""
    rate: Estimate | None
    """The win rate in percent; None where too few verdicts could be read."""


def read_verdicts(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Preferences and weights by the prompts' ids."""
    rows = read_jsonl(folder / "verdicts.jsonl")
    found = ({row["id"]: row[name] for row in rows if row.get(name) is not None} for name in ("preference", "weight"))
    preferences, weights = found
    return preferences, weights


def further_judgments(
    panel: Sequence[Mapping[str, Any]], paths: Mapping[str, Path], manifests: Manifests
) -> dict[str, Judgments]:
    """Those of all judges and sets but the first, which is the run's own, and of the majority: `by cot`, `on alpaca_eval`.

    Args:
        panel: of run.json.
        paths: the store entry of each role.
        manifests: of the same roles.
    """
    found: dict[str, Judgments] = {}
    for number, one in enumerate(panel):
        where = f" on {one['set']}" if one["set"] else ""
        behind = f"_on_{one['set']}" if number else ""
        of_set = {role: manifests[role + behind] for role in ("answers", *OPPONENTS) if role + behind in manifests}
        judges = [_of_judge(judge, of_set, paths, manifests) for judge in one["judges"]]
        names = [f"by {judge['judge']}" if judge["judge"] else "" for judge in one["judges"]]
        if one["majority"] is not None:
            names, judges = [*names, "by the majority"], [*judges, _of_majority(one["majority"], judges)]
        found |= {f"{who}{where}".strip(): judgments for who, judgments in zip(names, judges, strict=True)}
    return dict(list(found.items())[1:])


def _of_judge(judge: Mapping[str, Any], of_set: Manifests, paths: Mapping[str, Path], manifests: Manifests) -> Judgments:
    preferences, weights = read_verdicts(paths[judge["stage"]])
    results = judge["results"]
    return Judgments(
        preferences=preferences,
        weights=weights,
        yardstick=yardstick({**of_set, "verdicts": manifests[judge["stage"]]}),
        prompts=results["coverage"]["prompts"],
        rate=_rate(results["win_rate"]),
    )


def _of_majority(rate: Mapping[str, Any] | None, judges: Sequence[Judgments]) -> Judgments:
    voting = [judge for judge in judges if judge.rate is not None]
    verdicts = [{name: Verdict(id=name, preference=value) for name, value in judge.preferences.items()} for judge in voting]
    ids = list(dict.fromkeys(name for judge in voting for name in judge.preferences))
    most = dict(zip(ids, majority(verdicts, ids), strict=True))
    return Judgments(
        preferences={name: value for name, value in most.items() if value is not None},
        yardstick={**judges[0].yardstick, "judge": canonical_json([judge.yardstick["judge"] for judge in voting])},
        prompts=judges[0].prompts,
        rate=_rate(rate),
    )


def _rate(found: Mapping[str, Any] | None) -> Estimate | None:
    return Estimate(**found["win_rate"]) if found is not None else None


def yardstick(manifests: Manifests) -> dict[str, str]:
    """What verdicts depend on beside the tuned model's answers, given the manifests of verdicts and of what they compare with."""
    asked = dict(opponent(manifests)["recipe"])
    # Seeds draw other answers of the same baseline; the prompts are still the same.
    asked.pop("seed", None)
    if "reference" in asked:
        # Answers from outside are the same baseline whichever model's loss is measured beside them.
        asked.pop("model", None)
    prompts = [asked.pop(name, None) for name in ("eval_set", "size")]
    recipe = manifests["verdicts"]["recipe"]
    # A judge that reads the set's own answers has the prompts in its recipe; on another set it is the same judge.
    judge = [{name: value for name, value in recipe.items() if name not in ("eval_set", "size")}]
    judge.append(manifests["verdicts"]["inputs"].get("judge"))
    return {
        "evaluation prompts": canonical_json(prompts),
        "baseline": canonical_json(asked),
        "judge": canonical_json(judge),
    }


def unlike(first: Mapping[str, str], second: Mapping[str, str]) -> str:
    """The parts in which two yardsticks differ, in words; empty where they are the same."""
    return ", ".join(part for part, value in first.items() if value != second[part])
