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
from minilima.evaluate.judged import Judged
from minilima.evaluate.length_control_tables import LengthControlled
from minilima.evaluate.results import Results
from minilima.evaluate.significance import p_text
from minilima.formats.files import write_atomic
from minilima.report.alpaca_files import write_alpaca_files
from minilima.report.run_page import write_report
from minilima.store.entries import Artifact
from minilima.store.sources import Sources


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """What one stage did in this run. `seconds` is the time it took here: 0 if it was reused."""

    role: str
    how: str
    seconds: float
    directory: str
    metrics: dict[str, Any]
    usage: dict[str, Any]
    outcome: str = ""
    """What came out, in a few words."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file from outside that stages of the run were made from."""

    what: str
    """seeds, data, eval_set, dev_set, reference or annotators."""
    name: str
    path: str
    sha256: str
    """As it entered the stages' keys."""
    stages: tuple[str, ...]
    """Their roles."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came out of a run; `run.json` holds the same."""

    name: str
    folder: Path
    stages: tuple[StageEntry, ...]
    results: Results | None
    judge: str
    sources: tuple[SourceFile, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """The win rate in percent, the objective of a search; None where there is none."""
        rate = self.results.win_rate if self.results else None
        return rate.win_rate.value if rate else None

    @property
    def built(self) -> bool:
        """Whether anything was built in this run."""
        return any(stage.how == "built" for stage in self.stages)

    def headlines(self) -> list[str]:
        """The end of a run in a few lines: the figures with their uncertainty, the report, and what the judge is worth."""
        lines = []
        if self.results and (rate := self.results.win_rate):
            lines.append(
                f"Win rate of the tuned model against {self.results.against}: {rate.win_rate.text('.1f', ' %')} "
                f"({rate.wins} won, {rate.losses} lost, {rate.ties} tied; {self.results.coverage})."
            )
            lines.extend(_paired_lines(self.results))
            lines.extend(_bias_lines(self.results))
        elif self.results:
            lines.append(self.results.coverage.refusal())
        if self.results and (loss := self.results.loss_change):
            lines.append(
                f"Loss on the reference answers, no judge involved: {loss.base:.3f} to {loss.tuned:.3f} nats per token, change "
                f"{loss.change.text('+.3f')} (paired, {loss.prompts} prompts)."
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
        smallest = (
            f"; smallest difference detectable at 80 % power: {paired.minimum_detectable:.1f} points"
            if paired.standard_error > 0
            else ""
        )
        lines.append(
            f"Against 50 %: {paired.difference.value:+.1f} points, {p_text(paired.p_bootstrap)} (paired bootstrap), "
            f"{p_text(paired.p_mcnemar)} (exact sign test){smallest}."
        )
    if (loss := results.loss_against) is not None:
        lines.append(
            f"Loss on the set's reference answers, {results.other} to this model: {loss.base:.3f} to {loss.tuned:.3f} nats per "
            f"token, difference {loss.change.text('+.3f')} (paired)."
        )
    return lines


def _bias_lines(results: Results) -> list[str]:
    """What length and position have to do with the win rate."""
    lines = []
    controlled = results.length_controlled
    if isinstance(controlled, LengthControlled):
        lines.append(f"Length-controlled, as if both answers were equally long: {controlled.text()} ({controlled.how}).")
    elif controlled is not None:
        lines.append(f"Length-controlled win rate: not known, {controlled.reason.rstrip('.')}.")
    where = results.positions
    shares = [
        ("the longer answer won", results.length_preference),
        ("the answer shown first won", where.first_wins if where else None),
        ("both orders agreed", where.consistency if where else None),
    ]
    texts = [f"{what} in {share.text()}" for what, share in shares if share is not None]
    return [*lines, f"In this run {'; '.join(texts)}."] if texts else lines


_NO_CARD = "its agreement with people has not been measured."


def judge_worth(config: Config, card: JudgeCard | None) -> str:
    """One sentence on the judge: its card, or that nobody has measured it."""
    if card is not None:
        return card.sentence()
    kind = config.judge.kind
    if kind == JudgeKind.reference:
        return (
            "it only measures which answer is closer to a reference answer in words and meaning; it knows nothing of "
            f"correctness and does not stand for people's preferences; {_NO_CARD}"
        )
    if kind == JudgeKind.local:
        return f"{_NO_CARD} Small models often judge no better than a coin."
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
    folder: Path,
    config: Config,
    sources: Sources,
    artifacts: Mapping[str, Artifact],
    *,
    outcomes: Mapping[str, str],
    judged: Judged | None = None,
    results: Results | None = None,
) -> Summary:
    """Writes the run's folder and returns what it says.

    Args:
        folder: the run's.
        config: its settings.
        sources: the files that it was made from.
        artifacts: the stages that are done, by role.
        outcomes: what came out of each, in a few words.
        judged: what was judged; None, as `results`, where the run stops before its verdicts.
        results: the figures.
    """
    card = results.judge_card if results is not None else None
    summary = Summary(
        name=config.name,
        folder=folder,
        stages=_entries(artifacts, outcomes),
        sources=source_files(sources),
        results=results,
        judge=judge_worth(config, card),
    )
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(to_dict(config))))
    write_atomic(folder / "run.json", json.dumps(as_json(summary, config, artifacts), indent=2, ensure_ascii=False))
    if judged is not None and results is not None:
        write_alpaca_files(folder, config.judge, judged, results)
    write_report(
        folder / "report.html",
        config,
        artifacts,
        outcomes=outcomes,
        judged=judged,
        results=results,
        worth=summary.judge,
        warnings=judge_warning(results) if results is not None else [],
    )
    return summary


def _entries(artifacts: Mapping[str, Artifact], outcomes: Mapping[str, str]) -> tuple[StageEntry, ...]:
    return tuple(
        StageEntry(
            role=role,
            how=artifact.how,
            seconds=artifact.manifest["seconds"] if artifact.how == "built" else 0.0,
            directory=artifact.stage.directory,
            metrics=artifact.metrics,
            usage=artifact.manifest["usage"],
            outcome=outcomes.get(role, ""),
        )
        for role, artifact in artifacts.items()
    )


_READ_BY = {
    "seeds": ("pool",),
    "data": ("pool",),
    "eval_set": ("answers", "reference_answers"),
    "dev_set": ("model",),
    "reference": ("reference_answers",),
    "annotators": ("verdicts",),
}
"""The stages that are made from each source file; not those that only compare their rows with it."""


def source_files(sources: Sources) -> tuple[SourceFile, ...]:
    """The source files of an experiment that are on this machine."""
    files = {what: getattr(sources, what) for what in _READ_BY}
    return tuple(
        SourceFile(what=what, name=file.name, path=str(file.path), sha256=file.sha256, stages=_READ_BY[what])
        for what, file in files.items()
        if file is not None and file.path is not None
    )


def as_json(summary: Summary, config: Config, artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """run.json: the settings, the source files, each stage with its store entry (relative to the run's folder), the figures."""
    return {
        "name": summary.name,
        "config": to_dict(config),
        "sources": [asdict(file) for file in summary.sources],
        "stages": [
            {**asdict(entry), "path": os.path.relpath(artifacts[entry.role].path, summary.folder)} for entry in summary.stages
        ],
        "results": asdict(summary.results) if summary.results else None,
        "judge": summary.judge,
    }


def with_note(summary: Summary, note: str) -> Summary:
    """The summary with one more line for its end."""
    return replace(summary, notes=(*summary.notes, note))
