"""Tasks of lm-evaluation-harness give the figures of its own command on the same model, are cached, and go on after a kill."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from minilima.config.compose import load_config
from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.evaluate.benchmarks import build_base_benchmark
from minilima.evaluate.harness import item_rows
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.formats.records import OnProgress, Progress
from minilima.pipeline import stages
from minilima.run.sources import resolve
from minilima.run.stages.benchmarks import pairs
from minilima.store.job import Job

ARC = """---
configs:
- config_name: ARC-Easy
  data_files:
  - {split: train, path: train.jsonl}
  - {split: validation, path: train.jsonl}
  - {split: test, path: test.jsonl}
---
"""


def question(number: int) -> dict[str, Any]:
    words = [f"the answer {number + place}" for place in range(4)]
    choices = {"text": words, "label": ["A", "B", "C", "D"]}
    return {"id": str(number), "question": f"What is thing {number}?", "choices": choices, "answerKey": "ABCD"[number % 4]}


def instruction(number: int) -> dict[str, Any]:
    kind, arguments = [
        ("punctuation:no_comma", {}),
        ("keywords:forbidden_words", {"forbidden_words": ["the"]}),
        ("length_constraints:number_words", {"relation": "less than", "num_words": 300}),
    ][number % 3]
    return {"key": number, "prompt": f"Write about thing {number}.", "instruction_id_list": [kind], "kwargs": [arguments]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of two data sets, rows of our own in their form."""
    folder = tmp_path_factory.mktemp("data")
    arc, ifeval = folder / "allenai" / "ai2_arc", folder / "google" / "IFEval"
    write_jsonl(arc / "train.jsonl", [question(number) for number in range(20, 26)])
    write_jsonl(arc / "test.jsonl", [question(number) for number in range(9)])
    (arc / "README.md").write_text(ARC)
    write_jsonl(ifeval / "train.jsonl", [instruction(number) for number in range(6)])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tiny model with the long context that IFEval's answers need."""
    folder = tmp_path_factory.mktemp("long") / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    return folder


def config_of(model: Path, data: Path, task: str, *more: str) -> Config:
    return load_config([f"model.path={model}", f"benchmarks=[{task}]", f"benchmark.data={data}", *more])


def score(
    config: Config, folder: Path, task: str, on_progress: OnProgress = lambda progress: None
) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    job = Job(
        kind="base_benchmark", role=f"{task}_base", key="k", work=folder / task, inputs={}, config=config,
        sources=resolve(config), cache=folder / "replies.sqlite",
    )  # fmt: skip
    outcome = build_base_benchmark(job, on_progress)
    return outcome, read_jsonl(job.work / "items.jsonl"), json.loads((job.work / "results.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("task", "shots"), [("ifeval", None), ("arc_easy", 2)])
def test_the_figures_are_those_of_the_harness_own_command(
    tmp_path: Path, model: Path, data: Path, task: str, shots: int | None
) -> None:
    few = ["benchmark.shots=2"] if shots else []
    outcome, rows, ours = score(config_of(model, data, task, "benchmark.size=5", *few), tmp_path, task)
    command = [
        sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--tasks", task,
        "--device", "cpu", "--limit", "5", "--apply_chat_template", "--fewshot_as_multiturn", "true",
        "--output_path", str(tmp_path / "theirs"), *(["--num_fewshot", str(shots)] if shots else []),
    ]  # fmt: skip
    # In a folder that holds the copies under the names on the hub, the command reads them too.
    done = subprocess.run(
        command, cwd=data, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(next((tmp_path / "theirs").rglob("results_*.json")).read_text())["results"][task]
    mine = ours["results"][task]
    figures = [name for name, value in theirs.items() if isinstance(value, float) and "stderr" not in name]
    assert figures and {name: mine[name] for name in figures} == {name: theirs[name] for name in figures}
    first = next(iter(outcome.metrics["figures"]))
    assert len(rows) == 5 == outcome.metrics["items"]
    assert sum(row["scores"][first] for row in rows) / 5 == theirs[f"{first},none"]


def test_a_run_that_stops_in_the_middle_goes_on_with_the_replies_that_came(tmp_path: Path, model: Path, data: Path) -> None:
    config, seen = config_of(model, data, "arc_easy", "benchmark.size=2"), 0

    def stops(progress: Progress) -> None:
        nonlocal seen
        seen = progress.done
        if seen == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(config, tmp_path, "arc_easy", stops)
    outcome, rows, _ = score(config, tmp_path, "arc_easy")
    assert (outcome.usage.cached, outcome.usage.calls) == (3, 5), "four continuations of each question"
    _, whole, _ = score(config, tmp_path / "apart", "arc_easy")
    assert rows == whole


def test_what_was_computed_is_not_computed_again(tmp_path: Path, model: Path, data: Path) -> None:
    config = config_of(model, data, "arc_easy", "benchmark.size=6")
    _, part, _ = score(config_of(model, data, "arc_easy", "benchmark.size=2"), tmp_path, "arc_easy")
    outcome, rows, _ = score(config, tmp_path, "arc_easy")
    assert rows[:2] == part, "what was there before the kill stays as it was"
    assert outcome.usage.cached == 8 and outcome.usage.calls == 16, "four continuations of each question"
    again, same, _ = score(config, tmp_path, "arc_easy")
    assert (again.usage.calls, again.usage.cached) == (0, 24) and same == rows


def test_an_unknown_task_and_missing_data_are_said_in_words(
    tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both read the environment when they are imported, which another test may have done before.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("minilima.run.stages.benchmarks.check_base", lambda config, sources: ())
    with pytest.raises(MinilimaError, match="has no task arc_eazy") as refused:
        score(config_of(model, data, "arc_eazy"), tmp_path, "arc_eazy")
    assert "arc_easy" in refused.value.why
    config = config_of(model, data, "arc_easy")
    for task in ("arc_eazy", "zzz"):
        (base, _), *_ = pairs(config_of(model, data, task))
        with pytest.raises(MinilimaError, match=f"has no task {task}"):
            base.try_out(config, resolve(config))
    for task in ("arc_easy", "mmlu", "gsm8k", "hellaswag", "truthfulqa_mc2", "arc_challenge"):
        (base, _), *_ = pairs(config_of(model, data, task))
        base.try_out(config, resolve(config))
    with pytest.raises(MinilimaError, match="could not be read") as missing:
        score(config_of(model, tmp_path, "arc_easy"), tmp_path, "arc_easy")
    assert "benchmark.data" in missing.value.fix


def test_ifeval_is_refused_before_anything_runs_where_it_could_not_count_sentences(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(nltk, "download", lambda *_, **__: False)
    config = config_of(model, data, "ifeval")
    ((base, _),) = pairs(config)
    with pytest.raises(MinilimaError, match="punkt_tab"):
        base.try_out(config, resolve(config))
    (tmp_path / "tokenizers" / "punkt_tab").mkdir(parents=True)
    base.try_out(config, resolve(config))


def test_a_key_holds_task_size_shots_data_and_the_harness_version(model: Path, data: Path, tmp_path: Path) -> None:
    def key(*more: str) -> str:
        config = config_of(model, data, "arc_easy", *more)
        return {node.role: node.stage.key for node in stages(config, resolve(config)).until(config.until)}["arc_easy_base"]

    shutil.copytree(data, tmp_path / "copy")
    assert key(f"benchmark.data={tmp_path / 'copy'}") == key(), "the copies' content counts, not where they lie"
    assert len({key(), key("benchmark.size=3"), key("benchmark.shots=1"), key("benchmark.data=null")}) == 4
    write_jsonl(tmp_path / "copy" / "allenai" / "ai2_arc" / "test.jsonl", [question(1)])
    assert key(f"benchmark.data={tmp_path / 'copy'}") != key()


def test_each_item_has_the_figures_that_are_one_number_of_each_filter() -> None:
    given = {"filtered_resps": ["7"], "doc_id": 3, "metrics": ["exact_match", "parts"], "parts": [True, False]}
    samples = {"t": [{**given, "filter": "strict", "exact_match": 0.0}, {**given, "filter": "none", "exact_match": 1}]}
    scores = {"exact_match,strict": 0.0, "exact_match": 1.0}
    assert item_rows(samples) == [{"id": "t/3", "scores": scores, "output": "7"}]
