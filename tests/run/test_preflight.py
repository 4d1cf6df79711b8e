"""Checks before a run: what cannot succeed, or is less than what was asked for, is said before the first stage."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from minilima import environment
from minilima import plan as plan_of
from minilima.config.compose import load_config
from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.formats.files import write_jsonl
from minilima.pipeline import stages
from minilima.run import gpus, preflight
from minilima.run.plan_table import show
from minilima.run.sources import resolve
from minilima.run.stages.answers import ANSWERS
from minilima.run.stages.dataset import DATASET
from minilima.run.stages.verdicts import VERDICTS
from minilima.store.entries import Store
from tests.cli.test_commands import minilima, refused


def config_of(folder: Path, *overrides: str) -> Config:
    return load_config([f"paths.outputs={folder / 'out'}", *overrides])


@pytest.fixture
def eval_set(tmp_path: Path) -> Path:
    """Three prompts, of which two have no reference answer."""
    rows = [{"id": "a", "instruction": "Say one", "output": "one"}, {"instruction": "Say two"}, {"instruction": "Say three"}]
    write_jsonl(tmp_path / "eval.jsonl", rows)
    return tmp_path / "eval.jsonl"


def test_a_judge_that_compares_with_reference_answers_needs_them(tmp_path: Path, eval_set: Path) -> None:
    config = config_of(tmp_path, f"eval_set.path={eval_set}", "judge=reference")
    with pytest.raises(MinilimaError, match="2 of 3 prompts have no reference answer"):
        VERDICTS.check(config, resolve(config))
    first = config_of(tmp_path, f"eval_set.path={eval_set}", "judge=reference", "eval_set.size=1")
    VERDICTS.check(first, resolve(first))
    other = config_of(tmp_path, f"eval_set.path={eval_set}", "judge=chatgpt")
    VERDICTS.check(other, resolve(other))


@pytest.mark.parametrize(
    ("size", "said"), [("40", "all 3 (not 40) prompts of "), ("2", "the first 2 of "), ("3", "the first 3 of "), ("null", "on ")]
)
def test_a_plan_says_where_there_are_fewer_prompts_than_asked_for(tmp_path: Path, eval_set: Path, size: str, said: str) -> None:
    config = config_of(tmp_path, f"eval_set.path={eval_set}", f"eval_set.size={size}")
    description = ANSWERS.describe(config, resolve(config))
    assert said in description and ("not" in description) == (size == "40")


@pytest.mark.parametrize(
    ("size", "seeds", "said"), [(128, False, "at most 5 (not 128) examples"), (5, False, "5 examples"), (6, True, "6 examples")]
)
def test_a_plan_says_where_there_are_fewer_rows_than_examples_asked_for(
    tmp_path: Path, size: int, seeds: bool, said: str
) -> None:
    rows = [{"instruction": f"Name the number after {n}.", "output": str(n + 1)} for n in range(5)]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    config = config_of(
        tmp_path, "data=file", f"data.path={tmp_path / 'data.json'}", f"dataset.size={size}",
        f"dataset.include_seeds={str(seeds).lower()}",
    )  # fmt: skip
    assert DATASET.describe(config, resolve(config)).startswith(said)


def test_a_plan_counts_no_more_seeds_than_may_be_examples(tmp_path: Path) -> None:
    own = ["data=file", f"data.path={own_rows(tmp_path, 5)}", "dataset.include_seeds=true", "dataset.max_seeds=2"]
    config = config_of(tmp_path, *own, "dataset.size=7")
    assert DATASET.describe(config, resolve(config)) == "7 examples, at most 2 seeds among them"
    with pytest.raises(MinilimaError, match="there are only 7 examples"):
        plan_of(config_of(tmp_path, *own, "dataset.size=8"))


def check_gpu(tmp_path: Path, *overrides: str) -> None:
    config = config_of(tmp_path, "+experiment=quickstart", *overrides)
    sources = resolve(config)
    preflight.check_ready(config, sources, stages(config, sources), Store(tmp_path / "out" / "store"))


def test_a_gpu_that_is_demanded_and_not_there_is_noticed_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(MinilimaError, match="There is no GPU"):
        check_gpu(tmp_path, "compute.device=cuda")
    check_gpu(tmp_path, "compute.device=auto")


def test_a_gpu_may_be_there_without_its_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "visible_gpus", list)
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/kfd")
    assert gpus.may_have_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not gpus.may_have_gpu()


def test_the_provenance_of_a_result_names_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment.describe()["threads"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert int(environment.describe()["threads"]) >= 1


def own_rows(folder: Path, number: int) -> Path:
    write_jsonl(
        folder / "own.jsonl", [{"instruction": f"Name the number after {n}.", "output": str(n + 1)} for n in range(number)]
    )
    return folder / "own.jsonl"


def test_a_file_with_fewer_rows_than_the_data_set_is_refused_by_a_plan_too(tmp_path: Path) -> None:
    own = ["data=file", f"data.path={own_rows(tmp_path, 5)}", "dataset.include_seeds=false"]
    assert plan_of(config_of(tmp_path, *own, "dataset.size=5")).stages
    with pytest.raises(MinilimaError, match=r"dataset.size=8, and there are only 5 examples.*dataset.size=5"):
        plan_of(config_of(tmp_path, *own, "dataset.size=8"))


def test_a_plan_refuses_broken_seeds_and_missing_reference_answers(tmp_path: Path, eval_set: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text("{}\n")
    with pytest.raises(MinilimaError, match="has no proper instances"):
        plan_of(config_of(tmp_path, f"seeds.path={tmp_path / 'seeds.jsonl'}"))
    with pytest.raises(MinilimaError, match="2 of 3 prompts have no reference answer"):
        plan_of(config_of(tmp_path, f"eval_set.path={eval_set}"))


def test_a_plan_warns_of_what_is_less_than_asked_for_and_of_what_this_machine_lacks(
    tmp_path: Path, eval_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    overrides = [f"eval_set.path={eval_set}", "eval_set.size=9", "dataset.size=999", "judge=chatgpt", "compute.device=cuda"]
    warnings = plan_of(config_of(tmp_path, *overrides, "judge.model=x", "endpoints.judge.base_url=http://localhost/v1")).warnings
    assert len(warnings) == 3
    for warning, said in zip(warnings, ("at most 275 examples", "has only 3 prompts", "There is no GPU"), strict=True):
        assert said in warning
    assert not plan_of(config_of(tmp_path, "+experiment=quickstart")).warnings


def test_warnings_are_the_last_that_a_plan_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = config_of(tmp_path, "+experiment=quickstart", "eval_set.size=500")
    show(config, plan_of(config))
    said = " ".join(capfd.readouterr().out.split())
    assert said.endswith("minilima_100 has only 100 prompts: all of them are answered."), said
    assert "training memory" in said


def test_a_plan_counts_examples_prompts_and_pairs(tmp_path: Path) -> None:
    counts = {stage.role: stage.examples for stage in plan_of(config_of(tmp_path, "+experiment=quickstart")).stages}
    assert counts == {
        "base": None, "pool": 24, "dataset": 64, "model": None, "base_answers": 40, "answers": 40,
        "minilima_verifiable_base": 48, "minilima_verifiable_tuned": 48, "verdicts": 40,
    }  # fmt: skip


def test_two_sizes_above_what_passed_the_filters_do_not_train_twice_on_the_same_rows() -> None:
    def made(size: int | None, file: str = "f", seed: int = 0) -> dict[str, Any]:
        return {
            "stage": "dataset", "recipe": {"size": size, "seed": seed}, "inputs": {"pool": "pool-1"},
            "files": {"dataset.jsonl": {"sha256": file}}, "metrics": {"wanted": size, "examples": 38},
        }  # fmt: skip

    with pytest.raises(MinilimaError, match=r"dataset.size=128 gives the same 38 examples as dataset.size=64"):
        DATASET.accept(made(128), lambda: {"one": made(64), "other": made(128)})
    for others in ({}, {"larger": made(256)}, {"rows": made(64, file="g")}, {"seed": made(64, seed=1)}):
        DATASET.accept(made(128), partial(dict, others))
    DATASET.accept(made(None), lambda: {"one": made(64)})


def test_a_sweep_with_a_point_that_cannot_be_run_is_refused_as_a_whole(tmp_path: Path) -> None:
    own = ["-m", "data=file", f"data.path={own_rows(tmp_path, 5)}", "dataset.include_seeds=false", "dataset.size=4,8"]
    for verb in ("plan", "run"):
        paragraph = refused(minilima(verb, *own, f"paths.outputs={tmp_path / 'new'}"))
        assert "1 of 2 points cannot be run (dataset.size=8), and none was started" in paragraph
    assert not (tmp_path / "new").exists()
