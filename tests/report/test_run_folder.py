"""The folder of a run: its files are read once, and run.json says what the run was made from and what came out."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.report.runs import finished_run, plain_prompts


def test_one_report_opens_each_file_of_verdicts_and_answers_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Counter[str] = Counter()
    real = Path.open

    def counted(path: Path, mode: str = "r", *arguments: Any, **settings: Any) -> Any:
        # As text: the store compares the hashes of an entry's files, in bytes, whenever it finds one.
        if mode == "r":
            opened[f"{path.parent.name.rpartition('-')[0]}/{path.name}"] += 1
        return real(path, mode, *arguments, **settings)

    finished_run(tmp_path, plain_prompts(8), "eval_set.size=8")
    monkeypatch.setattr(Path, "open", counted)
    again = finished_run(tmp_path, plain_prompts(8), "eval_set.size=8")
    assert again.results is not None and again.results.win_rate is not None
    read = {name: times for name, times in opened.items() if name.partition("/")[0] in ("answers", "verdicts")}
    # The reference answers are an entry of the same stage, so its files are there twice.
    assert read == {
        "verdicts/verdicts.jsonl": 1, "answers/answers.jsonl": 2, "answers/reference_loss.jsonl": 2,
        "answers/model_outputs.json": 1, "verdicts/manifest.json": 1, "answers/manifest.json": 2,
    }  # fmt: skip


def test_run_json_lists_the_source_files_with_the_stages_made_from_them(tmp_path: Path) -> None:
    run = json.loads((finished_run(tmp_path, plain_prompts(3)).folder / "run.json").read_text())
    stages = {file["what"]: file["stages"] for file in run["sources"]}
    assert stages == {"seeds": ["pool"], "eval_set": ["base_answers", "answers"]}
    assert all(Path(file["path"]).is_file() and len(file["sha256"]) == 64 for file in run["sources"])


def test_run_json_says_what_came_out_of_each_stage_and_the_report_shows_it(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, plain_prompts(3)).folder
    outcomes = {stage["role"]: stage["outcome"] for stage in json.loads((folder / "run.json").read_text())["stages"]}
    assert outcomes["model"] == "8 steps, mean loss 2.34"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(outcome in page for outcome in outcomes.values())
