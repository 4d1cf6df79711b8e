"""The folder of a run: settings, what each stage did, the figures, and the report.

    outputs/runs/quickstart-1a2b3c4d/config.yaml  run.json  report.html  annotations.json  leaderboard.csv
The folder's name follows from the settings, so the same command always refreshes the same folder.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from minilima.config.compose import to_dict
from minilima.config.schema import Config
from minilima.environment import PACKAGE
from minilima.evaluate.benchmark_scores import read_benchmarks
from minilima.evaluate.judged import Judged, read_judged
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import remembered, sha256_file, sha256_text, write_atomic
from minilima.report.alpaca_files import write_alpaca_files
from minilima.report.headlines import judge_warning, judge_worth
from minilima.report.panel import Asked, read_panel
from minilima.report.run_results import run_results
from minilima.report.summary import SourceFile, StageEntry, Summary
from minilima.store.entries import Artifact
from minilima.store.sources import Sources

PAGE = "report.html"


@dataclass(frozen=True, kw_only=True)
class StageNote:
    """What a stage's Spec says of a finished one."""

    outcome: str
    """What came out, in a few words."""
    files: tuple[str, ...] = ()
    """The source files that it was made from: seeds, data, eval_set, dev_set, reference or annotators."""


def write_run(
    folder: Path,
    config: Config,
    sources: Sources,
    artifacts: Mapping[str, Artifact],
    *,
    notes: Mapping[str, StageNote],
    judge_identity: str,
    asked: Sequence[Asked] = (),
) -> Summary:
    """Computes the figures, writes the run's folder, and returns what it says.

    Args:
        folder: the run's.
        config: its settings.
        sources: the files that it was made from.
        artifacts: the stages that are done, by role; without verdicts there are no figures.
        notes: what each stage's Spec says of it, by role.
        judge_identity: names the judge; its card is filed under it.
        asked: every judge on every evaluation set, where there are several.
    """
    judged, results = read_judged({role: artifact.path for role, artifact in artifacts.items()}), None
    if judged is not None:
        key = artifacts["verdicts"].stage.key
        results = run_results(judged, config, sources, verdicts_key=key, judge_identity=judge_identity)
    benchmarks = read_benchmarks({role: artifact.path for role, artifact in artifacts.items()})
    panel = read_panel(asked, artifacts)
    summary = Summary(
        name=config.name,
        folder=folder,
        stages=_entries(artifacts, notes),
        sources=source_files(sources, notes),
        results=results,
        judge=judge_worth(config, results.judge_card if results is not None else None),
        benchmarks=benchmarks,
        panel=panel,
    )
    record = {**as_json(summary, config, artifacts), "judge_identity": judge_identity}
    mark = _mark(record, artifacts)
    drawn = (folder / PAGE).is_file() and remembered(folder / "run.json", lambda written: str(written["page"])) == mark
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(to_dict(config))))
    if not drawn:
        _write_pages(folder, config, sources, artifacts, summary, judged, {role: note.outcome for role, note in notes.items()})
    # Last, so that a page that was not written whole is written again.
    write_atomic(folder / "run.json", json.dumps({**record, "page": mark}, indent=2, ensure_ascii=False))
    return summary


def _write_pages(
    folder: Path,
    config: Config,
    sources: Sources,
    artifacts: Mapping[str, Artifact],
    summary: Summary,
    judged: Judged | None,
    outcomes: Mapping[str, str],
) -> None:
    from minilima.report.run_page import write_report  # draws and renders: a finished run that is run again needs neither

    results = summary.results
    if judged is not None and results is not None:
        write_alpaca_files(folder, config.judge, judged, results)
    write_report(
        folder / PAGE,
        config,
        artifacts,
        outcomes=outcomes,
        judged=judged,
        results=results,
        worth=summary.judge,
        warnings=judge_warning(results) if results is not None else [],
        benchmarks=summary.benchmarks,
        references=_references(config, sources) if judged is not None else {},
        panel=summary.panel,
    )


def _mark(record: Mapping[str, Any], artifacts: Mapping[str, Artifact]) -> str:
    """A hash of all that the pages are made of: the record but for what was reused, this code, and data sets of the same pool."""
    stages = [{name: value for name, value in stage.items() if name not in ("how", "seconds")} for stage in record["stages"]]
    code = [sha256_file(file) for file in sorted((PACKAGE / "report").rglob("*")) if file.is_file() and file.suffix != ".pyc"]
    beside = sorted(entry.name for artifact in artifacts.values() for entry in artifact.path.parent.glob("dataset-*"))
    # As ASCII: names of files may hold half a character.
    return sha256_text(json.dumps([{**record, "stages": stages}, code, sorted(set(beside))], sort_keys=True))


def _references(config: Config, sources: Sources) -> dict[str, str]:
    """The evaluation set's own answers, by the prompts' ids; none where its file is not on this machine."""
    if sources.eval_set.path is None:
        return {}
    prompts = load_eval_set(sources.eval_set.path, config.eval_set.size)
    return {prompt.id: prompt.output for prompt in prompts if prompt.output}


def _entries(artifacts: Mapping[str, Artifact], notes: Mapping[str, StageNote]) -> tuple[StageEntry, ...]:
    return tuple(
        StageEntry(
            role=role,
            how=artifact.how,
            seconds=artifact.manifest["seconds"] if artifact.how == "built" else 0.0,
            directory=artifact.stage.directory,
            metrics=artifact.metrics,
            usage=artifact.manifest["usage"],
            outcome=notes[role].outcome,
        )
        for role, artifact in artifacts.items()
    )


def source_files(sources: Sources, notes: Mapping[str, StageNote]) -> tuple[SourceFile, ...]:
    """The source files that are on this machine, each with the stages that were made from it."""
    made_of: dict[str, list[str]] = {}
    for role, note in notes.items():
        for what in note.files:
            made_of.setdefault(what, []).append(role)
    return tuple(
        SourceFile(what=what, name=file.name, path=str(file.path), sha256=file.sha256, stages=tuple(roles), hub=file.hub)
        for what, roles in made_of.items()
        if (file := getattr(sources, what)) is not None and file.path is not None
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
        **({"panel": summary.panel.as_json()} if summary.panel else {}),
        **({"benchmarks": [asdict(change) for change in summary.benchmarks]} if summary.benchmarks else {}),
    }
