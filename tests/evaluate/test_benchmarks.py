"""Benchmarks without a judge: what enters their keys, their scores, and what base and tuned model differ in."""

from pathlib import Path

import pytest

from minilima.config.compose import load_config
from minilima.config.schema import Config
from minilima.evaluate.answers import build_base_answers
from minilima.evaluate.benchmark_scores import changes_on, read_benchmarks
from minilima.evaluate.benchmarks import build_base_benchmark, build_benchmark
from minilima.evaluate.verifiable import load_items, score
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.pipeline import stages
from minilima.run.sources import resolve
from minilima.store.job import Job

SET = "minilima_verifiable"


def keys(*overrides: str) -> dict[str, str]:
    config = load_config(list(overrides))
    return {node.role: node.stage.key for node in stages(config, resolve(config)).until(config.until)}


def job_of(config: Config, folder: Path, kind: str, role: str, **inputs: Path) -> Job:
    return Job(
        kind=kind, role=role, key=role, work=folder / role, inputs=inputs, config=config, sources=resolve(config),
        cache=folder / "replies.sqlite",
    )  # fmt: skip


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Config:
    return load_config([f"model.path={tiny_model}", f"benchmarks=[{SET}]", "benchmark.size=16", "benchmark.max_tokens=8"])


def test_a_benchmark_adds_two_stages_and_changes_no_other_key() -> None:
    without, both = keys(), keys(f"benchmarks=[{SET}]")
    assert both == {**without, f"{SET}_base": both[f"{SET}_base"], f"{SET}_tuned": both[f"{SET}_tuned"]}
    assert keys(f"benchmarks=[{SET},{SET}]") == both, "named twice, it is run once"


def test_a_key_depends_on_model_task_size_and_length_and_not_on_how_answers_are_sampled() -> None:
    named = f"benchmarks=[{SET}]"
    first = keys(named)
    for changed in ("benchmark.size=8", "benchmark.max_tokens=9", "model.thinking=keep"):
        assert keys(named, changed)[f"{SET}_base"] != first[f"{SET}_base"], changed
    other = keys(named, "sft.learning_rate=3e-5", "eval.temperature=1", "eval_set.size=5")
    assert other[f"{SET}_base"] == first[f"{SET}_base"] and other[f"{SET}_tuned"] != first[f"{SET}_tuned"]


def test_every_answer_is_scored_by_its_own_checks_and_asked_for_once(tmp_path: Path, config: Config) -> None:
    job = job_of(config, tmp_path, "base_benchmark", f"{SET}_base")
    seen: list[int] = []
    outcome = build_base_benchmark(job, lambda progress: seen.append(progress.done))
    rows = read_jsonl(job.work / "items.jsonl")
    items = load_items(16)
    assert [row["id"] for row in rows] == [item.id for item in items] and seen[-1] == 16
    for row, item in zip(rows, items, strict=True):
        checked = score(item, row["output"])
        assert row["scores"] == {"strict": float(checked.strict), "loose": float(checked.loose)}
    assert outcome.metrics["figures"]["strict"] == sum(row["scores"]["strict"] for row in rows) / 16
    assert outcome.usage.calls == 16
    again = build_base_benchmark(job, lambda progress: None)
    assert (again.usage.calls, again.usage.cached) == (0, 16) and read_jsonl(job.work / "items.jsonl") == rows


def test_the_tuned_model_is_the_one_of_the_run(tmp_path: Path, config: Config, tiny_model: Path) -> None:
    job = job_of(config, tmp_path, "benchmark", f"{SET}_tuned", model=tiny_model)
    assert build_benchmark(job, lambda progress: None).usage.calls == 16
    # The same weights under the base model's name answer the same.
    base = job_of(config, tmp_path, "base_benchmark", f"{SET}_base")
    build_base_benchmark(base, lambda progress: None)
    assert read_jsonl(base.work / "items.jsonl") == read_jsonl(job.work / "items.jsonl")


def test_a_benchmark_and_the_answers_ask_a_model_in_the_same_way(tmp_path: Path, config: Config) -> None:
    """A prompt asked in both stages, sampled alike, is one reply of the cache."""
    items = load_items(2)
    write_jsonl(tmp_path / "set.jsonl", [{"id": item.id, "instruction": item.instruction} for item in items])
    config.eval_set.path, config.eval_set.packaged = str(tmp_path / "set.jsonl"), None
    config.eval.temperature, config.eval.top_p, config.eval.repetition_penalty, config.eval.max_tokens = 0.0, 1.0, None, 8
    config.benchmark.size = 2
    assert build_base_answers(job_of(config, tmp_path, "base_answers", "base_answers"), lambda progress: None).usage.calls == 2
    outcome = build_base_benchmark(job_of(config, tmp_path, "base_benchmark", f"{SET}_base"), lambda progress: None)
    assert (outcome.usage.calls, outcome.usage.cached) == (0, 2)


def rows_of(right: set[int], count: int = 20) -> list[dict[str, object]]:
    return [{"id": str(number), "scores": {"strict": float(number in right)}} for number in range(count)]


def test_base_and_tuned_are_paired_item_by_item() -> None:
    """Gained 7, lost 1: McNemar's exact p is 2 * (1 + 8) / 2**8."""
    (change,) = changes_on("t", rows_of({0, 1}), rows_of({0, 2, 3, 4, 5, 6, 7, 8}))
    assert (change.base.value, change.tuned.value, change.items, change.main) == (10.0, 40.0, 20, True)
    assert change.paired.difference.value == pytest.approx(30.0)
    assert change.paired.difference.low < 30 < change.paired.difference.high
    assert (change.paired.first_better, change.paired.second_better) == (7, 1)
    assert change.paired.p_mcnemar == pytest.approx(2 * 9 / 256)


def test_items_that_only_one_model_has_are_left_out() -> None:
    (change,) = changes_on("t", rows_of({0}, 3), rows_of({0, 1}, 5))
    assert change.items == 3 and change.tuned.value == pytest.approx(200 / 3)
    assert changes_on("t", [], rows_of({0})) == [] == changes_on("t", rows_of({0}), [])


def test_p_values_are_corrected_for_the_number_of_benchmarks(tmp_path: Path) -> None:
    folders = {}
    for task, tuned in (("one", {0, 1, 2, 3, 4, 5}), ("two", {0, 1, 2, 3, 4, 5, 6, 7})):
        for role, right in ((f"{task}_base", set()), (f"{task}_tuned", tuned)):
            folders[role] = tmp_path / role
            folders[role].mkdir()
            write_jsonl(folders[role] / "items.jsonl", rows_of(right))
    one, two = read_benchmarks(folders)
    assert (one.paired.p_mcnemar, two.paired.p_mcnemar) == (2 / 64, 2 / 256)
    assert (one.p_holm, two.p_holm) == (2 / 64, 4 / 256)
    assert read_benchmarks({}) == ()
