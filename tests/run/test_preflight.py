"""Checks before a run: what cannot succeed, or is less than what was asked for, is said before the first stage."""

import json
from pathlib import Path

import pytest

from minilima import environment
from minilima.config.compose import load_config
from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.formats.files import write_jsonl
from minilima.pipeline import stages
from minilima.run import gpus, preflight
from minilima.run.sources import resolve
from minilima.run.stages.answers import ANSWERS
from minilima.run.stages.dataset import DATASET
from minilima.run.stages.verdicts import VERDICTS
from minilima.store.entries import Store


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
