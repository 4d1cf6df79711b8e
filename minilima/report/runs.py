"""Finished runs as points to compare: the settings that differ, the figures, and what each point cost.

Reads run.json, and through it the manifests and verdicts in the store; nothing is built and nothing is changed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from minilima.config.renames import result_settings_of
from minilima.errors import MinilimaError, may_look_into, no_permission
from minilima.evaluate.benchmark_scores import BenchmarkChange
from minilima.evaluate.judge_cards import read_card
from minilima.evaluate.judged import opponent, read_judged
from minilima.evaluate.results import Coverage, Results, compute_results
from minilima.evaluate.statistics import Estimate, LossChange, ScoreChange, WinRate
from minilima.formats.files import read_jsonl, recorded
from minilima.report.judgments import Judgments, further_judgments, read_verdicts, yardstick
from minilima.report.sameness import MadeWith, made_with

_AGAIN = "Run its command again, which writes the file again, or leave it out."
FIX = "Name folders of finished runs, as in: minilima compare outputs/runs/NAME-KEY outputs/runs"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a stage, or several, took; `usd` is None where calls were made whose price is not known."""

    tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Cost(tokens=self.tokens + other.tokens, usd=usd, seconds=self.seconds + other.seconds)


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One finished run."""

    name: str
    """The name of the run's folder."""
    settings: Mapping[str, Any]
    """Dotted names and values, without those that cannot change a result."""
    results: Results
    preferences: Mapping[str, float]
    """Id of each prompt with a verdict that could be read: 1 = the reference is better, 2 = the tuned model is."""
    yardstick: Mapping[str, str]
    """What makes verdicts comparable (prompts, baseline, judge): runs can be paired only where all agree."""
    tokens: int
    usd: float | None
    """None where calls were made whose price is not known."""
    seconds: float
    """To build every stage of the point once, also those that other points share."""
    length_controlled: tuple[float, Estimate | None] | None = None
    """The win rate in percent if both answers were equally long, with its interval; None where it is not known."""
    folder: Path = Path()
    costs: Mapping[str, Cost] = field(default_factory=dict)
    """What each stage took, by its store entry: shared stages can be counted once over many points."""
    examples: int = 0
    """In the data set."""
    words: float = 0.0
    """Mean length of the tuned model's answers."""
    base_words: float = 0.0
    """Mean length of the base model's."""
    benchmarks: tuple[BenchmarkChange, ...] = ()
    """What alignment cost or gained, without a judge."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """How often the verdict on each prompt counts, by its id; none where each counts once."""
    others: Mapping[str, Judgments] = field(default_factory=dict)
    """What further judges prefer, also on further evaluation sets, and the majority: `by cot`, `on alpaca_eval`."""
    worth: str = ""
    """What is known of its judge, in a sentence."""
    made_with: MadeWith = field(default_factory=dict)
    """Threads, GPUs and library versions of its stages."""
    losses: tuple[tuple[float, float], ...] = ()
    """(step, nats per trained token) of the training."""

    def judgments(self, name: str = "") -> Judgments | None:
        """Those of the run's own judge and set, or of another one of this name; None where it has none such."""
        if name:
            return self.others.get(name)
        prompts, rate = self.results.coverage.prompts, self.results.win_rate
        return Judgments(
            preferences=self.preferences,
            weights=self.weights,
            yardstick=self.yardstick,
            prompts=prompts,
            rate=rate.win_rate if rate else None,
        )


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The runs' folders: each named one, the runs directly in it, or the finished ones of a sweep; each once.

    Raises:
        MinilimaError: a folder does not exist or holds no finished run.
    """
    unique: dict[Path, None] = {}
    for folder in folders:
        runs = [folder] if (folder / "run.json").is_file() else sorted(file.parent for file in folder.glob("*/run.json"))
        if (sweep := folder / "sweep.json").is_file():
            points = recorded(sweep, lambda written: [(point["run"], point["status"]) for point in written["points"]], _AGAIN)
            runs = [folder / run for run, status in points if status == "done"]
        if not runs:
            if closed := [item for item in _folders(folder) if not may_look_into(item)]:
                raise no_permission(closed[0])
            if not folder.is_dir():
                raise MinilimaError(f"There is no folder {folder}.", "Finished runs are looked for in it.", FIX)
            why = "It holds no run.json, and neither does a folder in it."
            raise MinilimaError(f"{folder} is not a finished run.", why, FIX)
        unique.update(dict.fromkeys(run.resolve() for run in runs))
    return list(unique)


def _folders(folder: Path) -> list[Path]:
    """A folder and those in it, as far as this user may see them."""
    inner = sorted(item for item in folder.iterdir() if item.is_dir()) if folder.is_dir() and may_look_into(folder) else []
    return [folder, *inner] if folder.is_dir() else []


@dataclass(frozen=True, kw_only=True)
class FinishedRuns:
    """The runs that could be read, and for each other one why not."""

    points: tuple[FinishedRun, ...]
    skipped: tuple[str, ...]


def read_points(folders: Sequence[Path]) -> FinishedRuns:
    """All runs in the folders; one that stopped before its verdicts is skipped with its reason.

    Raises:
        MinilimaError: a folder holds no finished run, or no run can be read.
    """
    points, skipped, fixes = [], [], []
    for folder in find_runs(folders):
        try:
            points.append(read_point(folder))
        except MinilimaError as error:
            skipped.append(f"{error.what} {error.why}")
            fixes.append(error.fix)
    for folder in folders:
        skipped += _unfinished(folder)
        closed = [no_permission(item) for item in _folders(folder) if not may_look_into(item)]
        skipped += [f"{error.what} {error.why}" for error in closed]
    if not points:
        raise MinilimaError("None of these runs can be compared.", " ".join(skipped[:3]), [*fixes, "Run them to the end."][0])
    return FinishedRuns(points=tuple(points), skipped=tuple(skipped))


def _unfinished(folder: Path) -> list[str]:
    """The points of a sweep that are not done, each with its cause where that is known."""
    sweep, reasons = folder / "sweep.json", []
    for point in recorded(sweep, lambda written: written["points"], _AGAIN) if sweep.is_file() else []:
        if point["status"] != "done":
            axes = ", ".join(f"{name}={value}" for name, value in point["axes"].items())
            reasons.append(f"{axes}: {point['status']}. {point['cause'] or ''}".rstrip())
    return reasons


def read_point(folder: Path) -> FinishedRun:
    """One run.

    Raises:
        MinilimaError: the run stopped before its verdicts, or what it refers to is no longer in the store.
    """
    try:
        return _read_point(folder)
    except PermissionError as error:
        raise no_permission(error.filename) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"run.json or a manifest that it names is damaged ({type(error).__name__}: {error})."
        raise MinilimaError(f"{folder.name} cannot be read.", why.replace("\n", " "), _AGAIN) from None


def _read_point(folder: Path) -> FinishedRun:
    run_json = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    paths = {stage["role"]: folder / stage["path"] for stage in run_json["stages"]}
    if "verdicts" not in paths:
        raise MinilimaError(f"{folder.name} has no verdicts.", "It was run only up to an earlier stage.", "Run it to the end.")
    try:
        manifests = {role: json.loads((path / "manifest.json").read_text(encoding="utf-8")) for role, path in paths.items()}
    except FileNotFoundError as error:
        raise MinilimaError(
            f"{folder.name} cannot be read.", f"{error.filename} no longer exists.", "Run its command again, or leave it out."
        ) from None
    preferences, weights = read_verdicts(paths["verdicts"])
    costs = {paths[role].name: stage_cost(manifest) for role, manifest in manifests.items()}
    total = sum(costs.values(), start=Cost())
    return FinishedRun(
        name=folder.name,
        settings=result_settings_of(run_json["config"]),
        results=_results(run_json, paths),
        length_controlled=_length_controlled(run_json),
        preferences=preferences,
        weights=weights,
        yardstick=yardstick(manifests),
        tokens=total.tokens,
        usd=total.usd,
        seconds=total.seconds,
        folder=folder,
        costs=costs,
        examples=manifests["dataset"]["metrics"]["examples"],
        words=manifests["answers"]["metrics"]["mean_words"],
        base_words=opponent(manifests)["metrics"]["mean_words"],
        benchmarks=tuple(BenchmarkChange.from_json(change) for change in run_json.get("benchmarks", ())),
        others=further_judgments(run_json.get("panel") or (), paths, manifests),
        worth=_worth(run_json, folder),
        made_with=made_with(manifests),
        losses=tuple((entry["step"], entry["loss"]) for entry in read_jsonl(paths["model"] / "training_log.jsonl")),
    )


def _worth(run_json: Mapping[str, Any], folder: Path) -> str:
    """What is known of the run's judge: the card that was measured since, or what the run said."""
    card = folder.parent.parent / "judges" / f"{run_json.get('judge_identity')}.json"
    return read_card(card).sentence() if card.is_file() else run_json.get("judge") or ""


def _results(run_json: Mapping[str, Any], paths: Mapping[str, Path]) -> Results:
    """Read from run.json, so that a hundred runs need no new bootstrap; computed again where an older run.json lacks a field."""
    try:
        results = run_json["results"]
        rate, loss = results["win_rate"], results["loss_change"]
        return Results(
            coverage=Coverage(**results["coverage"]),
            win_rate=WinRate(**_known(WinRate, rate, win_rate=Estimate(**rate["win_rate"]))) if rate else None,
            loss_change=LossChange(**_known(LossChange, loss, change=Estimate(**loss["change"]))) if loss else None,
            scores=_scores(results.get("scores")),
        )
    except (KeyError, TypeError):
        judged = read_judged(paths)
        assert judged is not None, "a point has verdicts"
        # Runs from before this setting have none.
        return compute_results(judged, min_coverage=run_json["config"]["judge"].get("min_coverage", 0.9))


def _scores(found: Mapping[str, Any] | None) -> ScoreChange | None:
    if found is None:
        return None
    return ScoreChange(**{**found, **{name: Estimate(**found[name]) for name in ("base", "tuned", "change")}})


def _known(kind: type[Any], values: Mapping[str, Any], **parts: Estimate) -> dict[str, Any]:
    """The fields that there are today; a KeyError where an earlier version did not write one."""
    return {item.name: parts.get(item.name) or values[item.name] for item in fields(kind)}


def _length_controlled(run_json: Mapping[str, Any]) -> tuple[float, Estimate | None] | None:
    controlled = (run_json["results"] or {}).get("length_controlled") or {}
    if "value" not in controlled:
        return None
    return controlled["value"], Estimate(**controlled["interval"]) if controlled["interval"] else None


def stage_cost(manifest: Mapping[str, Any]) -> Cost:
    """What a store entry took."""
    usage, recipe = manifest["usage"], manifest["recipe"]
    tokens = usage["prompt_tokens"] + usage["completion_tokens"]
    # A recipe has the name of a model at an endpoint; what ran here is described in full, and nobody charged for it.
    described = isinstance(recipe.get("model", recipe.get("rated_by")), Mapping)
    local = described or (manifest["stage"] in ("answers", "benchmark") and "model" not in recipe)
    unpriced = 0.0 if local or not usage["calls"] else None
    return Cost(tokens=tokens, usd=unpriced if usage["usd"] is None else usage["usd"], seconds=manifest["seconds"])
