"""Tasks of lm-evaluation-harness give the figures of its own command on the same model, are cached, and go on after a kill."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from minilima.config.compose import load_config
from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.evaluate.benchmarks import build_base_benchmark
from minilima.evaluate.harness import item_rows
from minilima.evaluate.harness_tasks import folders_of
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.formats.records import OnProgress, Progress
from minilima.pipeline import stages
from minilima.run.sources import resolve
from minilima.run.stages.benchmarks import pairs
from minilima.store.job import Job
from tests.evaluate.test_verifiable_ifeval import save_sentence_tables
from tests.hub import Repository, running_hub


def question(number: int) -> dict[str, Any]:
    words = [f"the answer {number + place}" for place in range(4)]
    choices = {"text": words, "label": ["A", "B", "C", "D"]}
    return {"id": str(number), "question": f"What is thing {number}?", "choices": choices, "answerKey": "ABCD"[number % 4]}


def instruction(number: int) -> dict[str, Any]:
    kind, arguments = [
        ("punctuation:no_comma", {}),
        ("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 30}),
    ][number % 2]
    return {"key": number, "prompt": f"Write about thing {number}.", "instruction_id_list": [kind], "kwargs": [arguments]}


SUM = {"question": "What is 2 + 3?", "answer": "2 + 3 = 5\n#### 5"}
ENDINGS = {
    "ind": 1, "activity_label": "Cooking", "ctx_a": "A man cuts bread.", "ctx_b": "he", "ctx": "A man cuts bread. he",
    "endings": ["eats it.", "flies.", "sings.", "sleeps."], "source_id": "a", "split": "val", "split_type": "indomain",
    "label": "0",
}  # fmt: skip
TARGETS = {"choices": ["Yes.", "No.", "Perhaps."], "labels": [1, 0, 0]}
QUESTION = {"question": "Is water wet?", "mc1_targets": TARGETS, "mc2_targets": TARGETS}
ANATOMY = {"question": "What pumps blood?", "subject": "anatomy", "choices": ["heart", "lung", "skin", "bone"], "answer": 0}
ARC = {"train": [question(number) for number in range(20, 26)], "test": [question(number) for number in range(9)]}
SETS: dict[str, tuple[str, str, dict[str, list[dict[str, Any]]]]] = {
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy", {**ARC, "validation": ARC["train"]}),
    "gsm8k": ("openai/gsm8k", "main", {"train": [SUM] * 6, "test": [SUM] * 2}),
    "hellaswag": ("Rowan/hellaswag", "default", {"train": [ENDINGS] * 2, "validation": [ENDINGS] * 2, "test": [ENDINGS]}),
    "truthfulqa_mc2": ("truthfulqa/truthful_qa", "multiple_choice", {"validation": [QUESTION] * 2}),
    "mmlu_anatomy": ("cais/mmlu", "anatomy", {"test": [ANATOMY] * 2, "validation": [ANATOMY], "dev": [ANATOMY] * 5}),
    "ifeval": ("google/IFEval", "default", {"train": [instruction(number) for number in range(2)]}),
}
"""Rows of our own in the form of each set: its name on the hub, its configuration, its splits."""


def splits(config: str, *names: str) -> str:
    files = "\n".join(f"  - {{split: {name}, path: {name}.jsonl}}" for name in names)
    return f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}\n---\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the data sets."""
    folder = tmp_path_factory.mktemp("data")
    for name, config, rows in SETS.values():
        for split, of_split in rows.items():
            write_jsonl(folder / name / f"{split}.jsonl", of_split)
        (folder / name / "README.md").write_text(splits(config, *rows))
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


def own_figures(
    monkeypatch: pytest.MonkeyPatch, results: Path, model: Path, data: Path, task: str, *more: str
) -> dict[str, float]:
    """The figures that the harness's own command finds, in this process, where its import has been paid for."""
    import lm_eval.tasks
    from lm_eval.__main__ import cli_evaluate

    whole = lm_eval.tasks.TaskManager
    with monkeypatch.context() as patch:
        # It reads all its tasks' files, which takes seconds, where those of one task are enough.
        patch.setattr(lm_eval.tasks, "TaskManager", lambda **_: whole(include_path=folders_of(task), include_defaults=False))
        # In a folder that holds the copies under the names on the hub, the command reads them too.
        patch.chdir(data)
        command = [
            "lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--tasks", task, "--device", "cpu",
            "--apply_chat_template", "--fewshot_as_multiturn", "true", "--output_path", str(results), *more,
        ]  # fmt: skip
        patch.setattr(sys, "argv", command)
        cli_evaluate()
    found = json.loads(next(results.rglob("results_*.json")).read_text())["results"][task]
    return {name: value for name, value in found.items() if isinstance(value, float) and "stderr" not in name}


def test_the_figures_are_those_of_the_harness_own_command(
    tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = ["benchmark.size=5", "benchmark.shots=2", "compute.precision=float32"]
    outcome, rows, ours = score(config_of(model, data, "arc_easy", *exact), tmp_path, "arc_easy")
    theirs = own_figures(monkeypatch, tmp_path / "theirs", model, data, "arc_easy", "--limit", "5", "--num_fewshot", "2")
    assert theirs and {name: ours["results"]["arc_easy"][name] for name in theirs} == theirs
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
    with pytest.raises(MinilimaError, match="has no task arc_eazy") as refused:
        score(config_of(model, data, "arc_eazy"), tmp_path, "arc_eazy")
    assert "arc_easy" in refused.value.why
    config = config_of(model, data, "arc_easy")
    for task in ("arc_eazy", "zzz"):
        (base, _), *_ = pairs(config_of(model, data, task))
        with pytest.raises(MinilimaError, match=f"has no task {task}"):
            base.check(config, resolve(config))
    for task in ("arc_easy", "mmlu", "mmlu_anatomy", "gsm8k", "hellaswag", "truthfulqa_mc2", "arc_challenge", "leaderboard"):
        (base, _), *_ = pairs(config_of(model, data, task))
        base.check(config, resolve(config))
    with pytest.raises(MinilimaError, match="could not be read") as missing:
        score(config_of(model, tmp_path, "arc_easy"), tmp_path, "arc_easy")
    assert "benchmark.data" in missing.value.fix


def test_ifeval_is_refused_before_anything_runs_where_it_could_not_count_sentences(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk

    monkeypatch.setattr("minilima.run.stages.benchmarks.check_base", lambda config, sources: ())
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(nltk, "download", lambda *_, **__: False)
    config = config_of(model, data, "ifeval")
    ((base, _),) = pairs(config)
    with pytest.raises(MinilimaError, match="punkt_tab"):
        base.try_out(config, resolve(config))
    (tmp_path / "tokenizers" / "punkt_tab").mkdir(parents=True)
    base.try_out(config, resolve(config))


@pytest.mark.parametrize("task", ["wikitext", "paloma", "paloma_c4_en", "french_bench_perplexity", "pythia"])
def test_perplexity_of_whole_texts_is_refused_before_a_plan_is_shown(model: Path, data: Path, task: str) -> None:
    config = config_of(model, data, task)
    ((base, _),) = pairs(config)
    with pytest.raises(MinilimaError, match="perplexity of whole texts") as refused:
        base.check(config, resolve(config))
    assert "ifeval" in refused.value.why and f"--tasks {task}" in refused.value.fix


@pytest.mark.parametrize("task", ["gsm8k", "hellaswag", "truthfulqa_mc2", "mmlu_anatomy"])
def test_questions_and_texts_to_write_run(tmp_path: Path, model: Path, data: Path, task: str) -> None:
    outcome, rows, _ = score(config_of(model, data, task), tmp_path, task)
    assert len(rows) == 2
    figure = next(iter(rows[0]["scores"]))
    assert outcome.metrics["figures"][figure] == sum(row["scores"][figure] for row in rows) / 2


def kept(cache: Path) -> int:
    """How many replies a cache holds; 0 before there is one."""
    try:
        with sqlite3.connect(f"file:{cache}?mode=ro", uri=True, timeout=5) as database:
            return int(database.execute("SELECT count(*) FROM replies").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
def test_the_whole_command_with_ifeval_from_a_hub_is_killed_goes_on_and_has_the_harness_figures(
    tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk

    rows = tmp_path / "data.jsonl"
    write_jsonl(rows, [{"instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(4)])
    save_sentence_tables(tmp_path / "nltk")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])
    command = [
        sys.executable, "-m", "minilima", f"model.path={model}", "data=file", f"data.path={rows}", "dataset.include_seeds=false",
        "dataset.size=4", "sft.epochs=1", "sft.batch_size=2", "sft.learning_rate=1e-3", "compute=cpu", "tracking=none",
        "compute.generation_batch=1", "compute.precision=float32", "eval_set.size=2", "eval.max_tokens=1", "benchmarks=[ifeval]",
        f"paths.outputs={tmp_path}/out",
    ]  # fmt: skip
    name = SETS["ifeval"][0]
    with running_hub() as hub:
        hub.repositories[name] = Repository(files={file.name: file.read_bytes() for file in (data / name).iterdir()})
        reached = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
        environment = {**os.environ, **reached, "NLTK_DATA": str(tmp_path / "nltk")}
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        process = subprocess.Popen(command, env=environment, **quiet)
        replies = tmp_path / "out" / "cache" / "replies.sqlite"
        before: int | None = None
        while before is None or kept(replies) == before:  # until the first reply after the base model's benchmark is done
            assert process.poll() is None
            time.sleep(0.02)
            before = kept(replies) if before is None and list((tmp_path / "out").glob("store/benchmark-*")) else before
        os.killpg(process.pid, signal.SIGKILL)  # with the process that builds the stage: nothing is tidied up or waited for
        process.wait()
        again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert again.returncode == 0, again.stdout + again.stderr
    (run,) = (tmp_path / "out").glob("runs/*/run.json")
    stages = {stage["role"]: stage for stage in json.loads(run.read_text())["stages"]}
    assert (stages["model"]["how"], stages["ifeval_base"]["how"], stages["ifeval_tuned"]["how"]) == ("reused", "reused", "built")
    usage = stages["ifeval_tuned"]["usage"]
    assert (usage["cached"], usage["calls"]) == (1, 1), "nothing is computed twice"
    assert any(name in path for path in hub.asked)
    for role, weights in (("ifeval_base", model), ("ifeval_tuned", (run.parent / stages["model"]["path"]).resolve())):
        ours = json.loads((run.parent / stages[role]["path"] / "results.json").read_text())["results"]["ifeval"]
        theirs = own_figures(monkeypatch, tmp_path / role, weights, data, "ifeval")
        assert theirs and {figure: ours[figure] for figure in theirs} == theirs


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
