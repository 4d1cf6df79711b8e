"""A run's verdicts in AlpacaEval's files: alpaca_eval itself reads them and arrives at our win rate."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from minilima.config.compose import load_config
from minilima.formats.annotations import read_annotations
from minilima.formats.files import write_jsonl
from minilima.report.run_folder import StageNote, write_run
from minilima.report.summary import Summary
from minilima.run.sources import resolve
from minilima.store.entries import Artifact, Store
from minilima.store.job import Outcome, Stage

PREFERENCES = [2.0, 1.0, 1.5, 1.25, 2.0, 1.75, None, 2.0]


def write(folder: Path, preferences: Sequence[float | None], *overrides: str) -> Summary:
    """A run's folder with these verdicts on answers of two models."""
    config = load_config([*overrides, "judge.min_coverage=0.5"])
    store = Store(folder / "store")

    def build(role: str, work: Path) -> Outcome:
        if role == "verdicts":
            write_jsonl(work / "verdicts.jsonl", [{"id": str(n), "preference": value} for n, value in enumerate(preferences)])
            return Outcome(metrics={"judged": 7, "prompts": 8, "wins": 4, "losses": 2, "ties": 1})
        rows: list[dict[str, Any]] = [
            {"instruction": f"Say {n}", "output": "good " * n + role, "generator": role} for n in range(len(preferences))
        ]
        (work / "model_outputs.json").write_text(json.dumps([{"dataset": "koala", **row} for row in rows]))
        write_jsonl(
            work / "answers.jsonl", [{"id": str(n), **row, "tokens": 1, "truncated": False} for n, row in enumerate(rows)]
        )
        write_jsonl(work / "reference_loss.jsonl", [])
        return Outcome(metrics={"answers": len(rows), "mean_words": 3.0, "truncated": 0})

    artifacts: dict[str, Artifact] = {
        role: store.get_or_build(Stage(name=role, version=1, recipe={}), partial(build, role))
        for role in ("answers", "base_answers", "verdicts")
    }
    run, notes = folder / "runs" / "run-1", {role: StageNote(outcome="") for role in artifacts}
    return write_run(run, config, resolve(config), artifacts, notes=notes, judge_identity="0" * 16)


def leaderboard(file: Path) -> dict[str, dict[str, str]]:
    with file.open() as lines:
        return {row[""]: row for row in csv.DictReader(lines)}


def test_annotations_hold_every_prompt_and_name_models_and_judge(tmp_path: Path) -> None:
    summary = write(tmp_path, PREFERENCES, "judge=cot")
    (run,) = read_annotations(summary.folder / "annotations.json")
    assert (run.generator, run.baseline, run.judge) == ("answers", "base_answers", "minilima_openai_explain_gpt-4o_both")
    assert run.preferences == PREFERENCES
    assert {row.dataset for row in run.annotations} == {"koala"}


def test_the_leaderboard_has_alpaca_evals_figures(tmp_path: Path) -> None:
    from alpaca_eval.metrics import get_winrate

    summary = write(tmp_path, PREFERENCES)
    row = leaderboard(summary.folder / "leaderboard.csv")["answers"]
    annotations = json.loads((summary.folder / "annotations.json").read_text())
    theirs = get_winrate([item for item in annotations if item["preference"] is not None])
    for name in ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate"):
        assert float(row[name]) == float(theirs[name]), name


def test_without_enough_verdicts_the_leaderboard_has_counts_alone(tmp_path: Path) -> None:
    summary = write(tmp_path, [2.0, None, None])
    row = leaderboard(summary.folder / "leaderboard.csv")["answers"]
    assert (row["n_total"], row["win_rate"], row["standard_error"]) == ("1", "", "")


def test_the_alpaca_eval_command_arrives_at_our_win_rate_from_our_files(tmp_path: Path) -> None:
    summary = write(tmp_path, PREFERENCES)
    annotator = read_annotations(summary.folder / "annotations.json")[0].judge
    # Every pair that we judged is in its cache; were one to be asked about, port 9 would refuse.
    judge = {"prompt_template": str(tmp_path / "judge" / "prompt.txt"), "completions_kwargs": {"model_name": "gpt-4"}}
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "prompt.txt").write_text("{instruction} {output_1} {output_2}")
    (tmp_path / "judge" / "configs.yaml").write_text(json.dumps({annotator: judge}))
    annotations = json.loads((summary.folder / "annotations.json").read_text())
    read = [row for row in annotations if row["preference"] is not None]
    cache = tmp_path / "cache.json"  # alpaca_eval writes into it
    shutil.copy(summary.folder / "annotations.json", cache)
    outputs = {}
    for name in ("answers", "base_answers"):
        (directory,) = (tmp_path / "store").glob(f"{name}-*")
        kept = {row["instruction"] for row in read}
        rows = [row for row in json.loads((directory / "model_outputs.json").read_text()) if row["instruction"] in kept]
        outputs[name] = tmp_path / f"{name}.json"
        outputs[name].write_text(json.dumps(rows))
    command = [
        sys.executable, "-m", "alpaca_eval.main", "evaluate", f"--model_outputs={outputs['answers']}",
        f"--reference_outputs={outputs['base_answers']}", f"--annotators_config={tmp_path / 'judge' / 'configs.yaml'}",
        f"--caching_path={cache}", f"--output_path={tmp_path / 'theirs'}",
        "--fn_metric=get_winrate", "--sort_by=win_rate", "--precomputed_leaderboard=None",
    ]  # fmt: skip
    environment = {**os.environ, "OPENAI_API_KEY": "none", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    (file,) = (tmp_path / "theirs").rglob("leaderboard.csv")
    row = leaderboard(file)["answers"]
    assert summary.score == float(row["win_rate"])
    assert int(row["n_total"]) == 7
