"""The folder of a run: settings, what each stage did, the figures, and the report.

    outputs/runs/quickstart-1a2b3c4d/config.yaml  run.json  report.html  annotations.json  leaderboard.csv
The folder's name follows from the settings, so the same command always refreshes the same folder.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from minilima.config.choices import JudgeKind
from minilima.config.compose import to_dict
from minilima.config.schema import Config
from minilima.evaluate.judge_cards import JudgeCard
from minilima.evaluate.length_control_tables import LengthControlled
from minilima.evaluate.results import Results
from minilima.evaluate.significance import p_text
from minilima.formats.files import write_atomic
from minilima.report.alpaca_files import write_alpaca_files
from minilima.report.run_page import write_report
from minilima.store.entries import Artifact


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """What one stage did in this run. `seconds` is the time it took here: 0 if it was reused."""

    role: str
    how: str
    seconds: float
    directory: str
    metrics: dict[str, Any]
    usage: dict[str, Any]
    outcome: str
    """What came out, in a few words."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came out of a run; `run.json` holds the same."""

    name: str
    folder: Path
    stages: tuple[StageEntry, ...]
    results: Results | None
    judge: str
    notes: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """The win rate in percent, the objective of a search; None where there is none."""
        found = self.results.win_rate if self.results else None
        return found.win_rate.value if found else None

    @property
    def built(self) -> bool:
        """Whether anything was built in this run."""
        return any(stage.how == "built" for stage in self.stages)

    def headlines(self) -> list[str]:
        """The end of a run in a few lines: the figures with their uncertainty, the report, and what the judge is worth."""
        lines = []
        if self.results and (rate := self.results.win_rate):
            found = rate.win_rate
            lines.append(
                f"Win rate of the tuned model against {self.results.against}: {found.value:.1f} %, "
                f"95 % interval {found.low:.1f} to {found.high:.1f} "
                f"({rate.wins} won, {rate.losses} lost, {rate.ties} tied; {self.results.coverage})."
            )
            lines.extend(_paired_lines(self.results))
            lines.extend(_bias_lines(self.results))
        elif self.results:
            lines.append(self.results.coverage.refusal())
        if self.results and (loss := self.results.loss_change):
            change = loss.change
            lines.append(
                f"Loss on the reference answers, no judge involved: {loss.base:.3f} to {loss.tuned:.3f} nats per token, change "
                f"{change.value:+.3f}, 95 % interval {change.low:+.3f} to {change.high:+.3f} (paired, {loss.prompts} prompts)."
            )
        if self.results:
            lines.append(f"What this judge is worth: {self.judge}")
            lines.extend(judge_warning(self.results))
        if not self.built:
            lines.append("Everything was reused; nothing was computed.")
        lines.extend(self.notes)
        lines.append(f"Report: {self.folder / 'report.html'}")
        return lines


def _paired_lines(results: Results) -> list[str]:
    """How sure it is that the win rate is not 50 %, and, against another run, how the losses differ."""
    lines = []
    if (paired := results.paired) is not None:
        smallest = f"; {paired.minimum_detectable:.1f} points could have been detected" if paired.standard_error > 0 else ""
        lines.append(
            f"Against 50 %: {paired.difference.value:+.1f} points, {p_text(paired.p_bootstrap)} (paired bootstrap), "
            f"{p_text(paired.p_mcnemar)} (exact sign test){smallest}."
        )
    if (loss := results.loss_against) is not None:
        change = loss.change
        lines.append(
            f"Loss on the set's reference answers, {results.other} to this model: {loss.base:.3f} to {loss.tuned:.3f} nats per "
            f"token, difference {change.value:+.3f}, 95 % interval {change.low:+.3f} to {change.high:+.3f} (paired)."
        )
    return lines


def _bias_lines(results: Results) -> list[str]:
    """What length and place have to do with the win rate."""
    lines = []
    controlled = results.length_controlled
    if isinstance(controlled, LengthControlled):
        bounds = controlled.interval
        interval = f", 95 % interval {bounds.low:.1f} to {bounds.high:.1f}" if bounds else ""
        lines.append(
            f"Length-controlled, as if both answers were equally long: {controlled.value:.1f} %{interval} ({controlled.how})."
        )
    elif controlled is not None:
        lines.append(f"Length-controlled win rate: not known, {controlled.reason.rstrip('.')}.")
    where = results.positions
    shares = [
        ("the longer answer won", results.length_preference),
        ("the answer shown first won", where.first_wins if where else None),
        ("both orders agreed on", where.consistency if where else None),
    ]
    told = [
        f"{what} {found.share.value:.0%} of {found.decided:,} ({found.share.low:.0%} to {found.share.high:.0%})"
        for what, found in shares
        if found is not None
    ]
    return [*lines, f"In this run {'; '.join(told)}."] if told else lines


_NO_CARD = "it has no card: its agreement with people was not measured."


def judge_worth(config: Config, card: JudgeCard | None) -> str:
    """One honest sentence on the judge: its card, or that it has none."""
    if card is not None:
        return card.sentence()
    kind = config.judge.kind
    if kind == JudgeKind.reference:
        return (
            "it only measures which answer is closer to a reference answer in words and meaning; it knows nothing of "
            "correctness and does not stand for people's preferences. It has no card."
        )
    if kind == JudgeKind.local:
        return f"{_NO_CARD} Small models judge no better than a coin."
    if kind == JudgeKind.alpaca_eval:
        asked = config.judge.model or "the model in its config"
        return f"alpaca_eval's {config.judge.annotators_config} asked {asked}; {_NO_CARD}"
    return f"{config.judge.model} was asked; {_NO_CARD}"


def judge_warning(results: Results) -> list[str]:
    """A line where the judge was not shown to be better than choosing the longer answer; none where it was."""
    card = results.judge_card
    if card is not None and card.above_floor:
        return []
    return [
        'Warning: this judge was not shown to be better than "the longer answer wins". '
        "To measure it: python -m minilima agreement --labels FILE judge=…"
    ]


def write_run(
    folder: Path, config: Config, artifacts: Mapping[str, Artifact], results: Results | None, outcomes: Mapping[str, str]
) -> Summary:
    """Writes the run's folder and returns what it says."""
    entries = tuple(
        StageEntry(
            role=role,
            how=artifact.how,
            seconds=artifact.manifest["seconds"] if artifact.how == "built" else 0.0,
            directory=artifact.stage.directory,
            metrics=artifact.metrics,
            usage=artifact.manifest["usage"],
            outcome=outcomes[role],
        )
        for role, artifact in artifacts.items()
    )
    card = results.judge_card if results is not None else None
    summary = Summary(name=config.name, folder=folder, stages=entries, results=results, judge=judge_worth(config, card))
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(to_dict(config))))
    write_atomic(folder / "run.json", json.dumps(as_json(summary, config, artifacts), indent=2, ensure_ascii=False))
    if results is not None:
        write_alpaca_files(folder, config, artifacts, results)
    warnings = judge_warning(results) if results is not None else []
    write_report(folder / "report.html", config, artifacts, results, summary.judge, outcomes, warnings)
    return summary


def as_json(summary: Summary, config: Config, artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """run.json: the configuration, each stage with its store entry (relative to the run's folder), and the figures."""
    return {
        "name": summary.name,
        "config": to_dict(config),
        "stages": [
            {**asdict(entry), "path": os.path.relpath(artifacts[entry.role].path, summary.folder)} for entry in summary.stages
        ],
        "results": asdict(summary.results) if summary.results else None,
        "judge": summary.judge,
    }


def with_note(summary: Summary, note: str) -> Summary:
    """The summary with one more line for its end."""
    return replace(summary, notes=(*summary.notes, note))
