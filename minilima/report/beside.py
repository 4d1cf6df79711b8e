"""The answers of several runs to the same prompts, beside each other: the rows of the browser on the page of a sweep.

verdicts.jsonl and answers.jsonl of each run ─> a row a prompt, with each run's answer and verdict ─> page/beside.js
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.evaluate.judged import read_judged
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import sha256_file
from minilima.report.finished import OpenedRun, open_run
from minilima.report.runs import FinishedRun
from minilima.report.verdicts import verdict_rows

MOST_RUNS = 6
"""As many answers can be read beside each other; each adds all its answers to the page's size."""

_Key = tuple[str, str]
"""A prompt's id and text: evaluation sets may number different prompts alike."""


def answers_beside(points: Sequence[FinishedRun], labels: Sequence[str], kept: FinishedRun | None) -> dict[str, Any] | None:
    """What page/beside.js shows of the first runs; None where fewer than two have their answers in the store.

    Args:
        points: the runs, in the order of the page's table.
        labels: how the page calls each of them.
        kept: a run that is shown also where it is not among the first.
    """
    chosen = list(range(min(MOST_RUNS, len(points))))
    place = next((place for place, point in enumerate(points) if point is kept), 0)
    if place not in chosen:
        chosen[-1] = place
    found = [(labels[place], answers) for place in chosen if (answers := _answers(points[place])) is not None]
    if len(found) < 2:
        return None
    prompts: dict[_Key, dict[str, Any]] = {}
    for number, (_, answers) in enumerate(found):
        for row in answers.rows:
            prompt = prompts.setdefault((row["id"], row["instruction"]), _prompt(row, len(found)))
            prompt["reference"] = prompt["reference"] or row["reference"]
            said = {"said": row["words"]} if row["words"] else {}
            prompt["runs"][number] = {**row["tuned"], **said, "outcome": row["outcome"], "against": row["base"]}
    for prompt in prompts.values():
        _share_opponent(prompt)
    return {
        "labels": [label for label, _ in found],
        "opponents": [answers.opponent for _, answers in found],
        "left_out": len(points) - len(found),
        "rows": list(prompts.values()),
    }


def _prompt(row: Mapping[str, Any], runs: int) -> dict[str, Any]:
    return {**{name: row[name] for name in ("id", "instruction", "category", "reference")}, "base": None, "runs": [None] * runs}


def _share_opponent(prompt: dict[str, Any]) -> None:
    """Says once what all runs were compared with, where it is the same answer; runs of other seeds may have another one."""
    answers = [run["against"] for run in prompt["runs"] if run is not None]
    if all(answer == answers[0] for answer in answers):
        prompt["base"] = answers[0]
        prompt["runs"] = [run and {name: value for name, value in run.items() if name != "against"} for run in prompt["runs"]]


@dataclass(frozen=True, kw_only=True)
class _Answers:
    """A run's answers and verdicts, a row a prompt, and what its answers were compared with."""

    opponent: str
    rows: Sequence[Mapping[str, Any]]


def _answers(point: FinishedRun) -> _Answers | None:
    """None where they are no longer in the store."""
    try:
        run = open_run(str(point.folder))
        judged = read_judged(run.entries)
    except (MinilimaError, OSError, KeyError, TypeError, ValueError):
        return None
    opponent = run.settings.get("eval.reference")
    rows = verdict_rows(judged, _references(run))
    return _Answers(opponent=Path(str(opponent)).name if opponent else "base", rows=rows)


def _references(run: OpenedRun) -> dict[str, str]:
    """The evaluation set's own answers by the prompts' ids, where its file is here and is still the same."""
    for source in run.record.get("sources", ()):
        file = Path(source["path"])
        if source["what"] == "eval_set" and file.is_file() and sha256_file(file) == source["sha256"]:
            prompts = load_eval_set(file, run.settings.get("eval_set.size"))
            return {prompt.id: prompt.output for prompt in prompts if prompt.output}
    return {}
