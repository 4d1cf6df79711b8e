"""The HTML report of a run: one self-contained file, figures with their intervals first, every answer to be read.

`write_report` gathers the figures from the store, works out the geometry of the pictures, and fills page/report.html.j2;
the browser of verdicts reads its rows from a data block (page/verdicts.js).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from minilima.config.choices import JudgeKind
from minilima.config.compose import to_dict
from minilima.config.schema import Config
from minilima.evaluate.benchmark_scores import BenchmarkChange
from minilima.evaluate.judge_cards import Figure, JudgeCard
from minilima.evaluate.judge_forms import form_shown
from minilima.evaluate.judged import Judged, opponent
from minilima.evaluate.results import Results
from minilima.evaluate.statistics import Estimate, WinRate, win_rate
from minilima.formats.files import read_jsonl, write_atomic
from minilima.report.dataset_section import dataset_section
from minilima.report.origin import origin
from minilima.report.panel import Panel
from minilima.report.render import interval, render
from minilima.report.run_figures import loss_curve
from minilima.report.runs import Cost, stage_cost
from minilima.report.sameness import DEVICE, made_with
from minilima.report.verdicts import all_rows
from minilima.store.entries import Artifact


def write_report(
    path: Path,
    config: Config,
    artifacts: Mapping[str, Artifact],
    *,
    outcomes: Mapping[str, str],
    judged: Judged | None,
    results: Results | None,
    worth: str,
    warnings: Sequence[str] = (),
    benchmarks: Sequence[BenchmarkChange] = (),
    references: Mapping[str, str] | None = None,
    panel: Panel | None = None,
) -> None:
    """Writes the report of a run; sections of stages that did not run are left out.

    Args:
        path: the HTML file.
        config: the run's settings.
        artifacts: the stages that are done.
        outcomes: what came out of each, in a few words.
        judged: None where nothing was.
        results: None where nothing was judged.
        worth: a sentence on the judge.
        warnings: what a reader of the win rate must know besides.
        benchmarks: what alignment cost or gained, without a judge.
        references: the evaluation set's own answers, by the prompts' ids.
        panel: what all judges say on all evaluation sets, where there are several.
    """
    verdicts = all_rows(judged, references, panel)
    page = render(
        "report.html.j2",
        scripts=("texts.js", "verdicts.js") if verdicts else (),
        data=verdicts or None,
        key=path.parent.name.removeprefix(f"{config.name}-"),
        config=config,
        origin=origin(config),
        model=Path(config.model.path).name if config.model.path else config.model.hub or config.model.packaged or "the model",
        settings=OmegaConf.to_yaml(OmegaConf.create(to_dict(config))),
        win=_win(results),
        whose=f", {panel.opinions[0].whose}" if panel is not None else "",
        loss=_loss(results),
        categories=_categories([row for row in verdicts if panel is None or row["set"] == panel.sets[0].set]),
        benchmarks=[{"change": change, **_around_zero(change.paired.difference)} for change in benchmarks],
        panel=_panel(panel),
        judge=_judge(config, results, worth, warnings),
        dataset=dataset_section(artifacts, config),
        curve=_curve(artifacts),
        facets=_facets(verdicts, results.other if results is not None else ""),
        **_stages(artifacts, outcomes),
    )
    write_atomic(path, page)


def _win(results: Results | None) -> dict[str, Any] | None:
    if results is None:
        return None
    rate = results.win_rate
    return {
        "coverage": results.coverage,
        "cut": results.cut,
        "rate": rate,
        "bar": interval(rate.win_rate, 0.0, 100.0, 50.0) if rate else None,
        "against": results.against,
        "other": results.other,
        "before": "before" if results.other == "base" else results.other,
        "paired": results.paired,
        "loss": results.loss_against,
        "controlled": results.length_controlled,
        "scores": results.scores,
        "turns": results.turn_scores,
    }


def _panel(panel: Panel | None) -> list[dict[str, Any]]:
    """Each evaluation set with a row for each judge, the majority's below, and what any two judges agree on."""
    sets = []
    for one in panel.sets if panel is not None else ():
        rates = [(opinion.asked.judge or "the judge", opinion.results) for opinion in one.opinions]
        rows: list[dict[str, Any]] = [
            {"who": who, "rate": found.win_rate, "scores": found.scores, "judged": found.coverage.judged} for who, found in rates
        ]
        if one.majority is not None:
            rows.append({"who": "majority", "rate": one.majority, "scores": None, "judged": one.majority.judged})
        for row in rows:
            rate = row["rate"]
            row["bar"] = interval(rate.win_rate, 0.0, 100.0, 50.0) if isinstance(rate, WinRate) else None
        prompts = one.opinions[0].results.coverage.prompts
        sets.append({"name": one.set, "rows": rows, "concords": one.concords, "prompts": prompts})
    return sets


def _categories(verdicts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The win rate in each category of the evaluation set, with its interval; none where there are not two of them."""
    names = sorted({row["category"] for row in verdicts if row["category"]})
    found = {name: [row for row in verdicts if row["category"] == name] for name in names}
    rates = {name: win_rate([row["preference"] for row in rows], [row["weight"] for row in rows]) for name, rows in found.items()}
    return [
        {"name": name, "rate": rate, "bar": interval(rate.win_rate, 0.0, 100.0, 50.0)} for name, rate in rates.items() if rate
    ] * (len(names) > 1)


def _loss(results: Results | None) -> dict[str, Any] | None:
    if results is None or results.loss_change is None:
        return None
    return {"change": results.loss_change, **_around_zero(results.loss_change.change)}


def _around_zero(change: Estimate) -> dict[str, Any]:
    """The interval of a change along an axis with 0 in its middle, and how far the axis reaches."""
    reach = 1.25 * max(abs(change.low), abs(change.high), 1e-6)
    return {"bar": interval(change, -reach, reach, 0.0), "reach": reach}


def _judge(config: Config, results: Results | None, worth: str, warnings: Sequence[str]) -> dict[str, Any] | None:
    """The judge's card, and what its verdicts in this run show of it."""
    if results is None:
        return None
    card, judge, order = results.judge_card, config.judge, results.positions
    here = [
        ("both orders agreed", order.consistency if order else None, "of a judge that goes by the answers alone: 100 %"),
        ("the answer shown first won", order.first_wins if order else None, "of a judge that does not care: 50 %"),
        ("the longer answer won", results.length_preference, "people in AlpacaEval's data: 64 %"),
    ]
    named = judge.model or judge.annotators_config or ("the base model" if judge.kind == JudgeKind.local else "")
    return {
        "name": f"{judge.kind}{f', {named}' if named else ''}" + (f", {form}" if (form := form_shown(judge)) else ""),
        "worth": worth[:1].upper() + worth[1:],
        "warnings": warnings,
        "card": card,
        "good": card is not None and card.above_floor,
        "measured": [_measured(card, number) for number in range(len(card.measured))] if card else [],
        "here": [{"what": what, "found": share, "beside": beside} for what, share, beside in here if share is not None],
    }


def _measured(card: JudgeCard, number: int) -> dict[str, Any]:
    item = card.measured[number]
    figures: list[tuple[str, Figure | None, str]] = [
        (f"agrees with {item.by}", item.agreement, "%"),
        ("“the longer answer” agrees", item.longest, "%"),
        ("gain over it", item.gain, "points"),
        ("human-human agreement", item.people, "%"),
        ("Cohen's kappa", item.kappa, ""),
        ("both orders agreed", item.consistency, "%"),
        ("the answer shown first won", item.first_wins, "%"),
        ("the longer answer won", item.longer_wins, "%"),
    ]
    return {"item": item, "figures": [{"what": what, "figure": figure, "unit": unit} for what, figure, unit in figures if figure]}


def _stages(artifacts: Mapping[str, Artifact], outcomes: Mapping[str, str]) -> dict[str, Any]:
    """What each stage did and took, all together, and what it was made with."""
    costs = {role: stage_cost(artifact.manifest) for role, artifact in artifacts.items()}
    metrics = {role: artifact.metrics for role, artifact in artifacts.items()}
    stages = [
        {
            "role": role.replace("_", " "),
            "how": artifact.how,
            "directory": artifact.stage.directory,
            "what": outcomes.get(role, ""),
            "cost": costs[role],
            "usage": artifact.manifest["usage"],
        }
        for role, artifact in artifacts.items()
    ]
    return {
        "stages": stages,
        "total": sum(costs.values(), start=Cost()),
        "metrics": metrics,
        "opponent": opponent(metrics) if "answers" in metrics else None,
        "made_with": _made_with(artifacts),
    }


def _curve(artifacts: Mapping[str, Artifact]) -> dict[str, Any] | None:
    if "model" not in artifacts:
        return None
    log = read_jsonl(artifacts["model"].path / "training_log.jsonl")
    return {"chart": loss_curve([entry["step"] for entry in log], [entry["loss"] for entry in log]), "steps": len(log)}


def _facets(verdicts: Sequence[Mapping[str, Any]], other: str) -> dict[str, Any]:
    """What the browser's filters can choose, with counts; `other` names whose answers are not the tuned model's."""
    outcomes = {name: sum(row["outcome"] == name for row in verdicts) for name in ("won", "lost", "tied", "unread")}
    return {
        "total": len(verdicts),
        "other": other,
        "outcomes": {name: count for name, count in outcomes.items() if count},
        "flipped": sum(row["flipped"] for row in verdicts),
        "split": sum(row.get("split", False) for row in verdicts),
        "sets": list(dict.fromkeys(row["set"] for row in verdicts if row.get("set"))),
        "cut": sum(row["tuned"]["cut"] or row["base"]["cut"] for row in verdicts),
        "categories": sorted({row["category"] for row in verdicts if row["category"]}),
    }


def _made_with(artifacts: Mapping[str, Artifact]) -> str:
    """Versions and commit of the last stage that was built. The machine's name stays out of what is passed on."""
    newest = max((artifact.manifest for artifact in artifacts.values()), key=lambda manifest: str(manifest.get("created_at")))
    parts = [f"{name} {version}" for name, version in newest["packages"].items() if name in ("minilima", "torch", "transformers")]
    if commit := newest["git"].get("commit"):
        parts.append(f"commit {commit[:10]}{' with changes' if newest['git'].get('dirty') else ''}")
    devices = made_with({role: artifact.manifest for role, artifact in artifacts.items()}).get(DEVICE, ())
    return ", ".join([*parts, f"Python {newest['python']}", *devices])
