"""Reference answers from outside: found by instruction, keyed by content, refused where they do not fit the prompts."""

import json
from pathlib import Path

import pytest

from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.evaluate.answers import build_references
from minilima.formats.eval_sets import load_eval_set, read_references
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.pipeline import stages
from minilima.run.sources import resolve
from minilima.store.job import Job
from tests.cli.test_commands import minilima, refused

PROMPTS = [{"id": str(n), "instruction": f"Say {n}", "output": f"own {n}"} for n in range(3)]
PUBLISHED = [{"instruction": f"Say {n}", "output": f"theirs {n}", "generator": "gpt4"} for n in (2, 0, 1, 7)]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "eval.jsonl", PROMPTS)
    file = tmp_path / "model_outputs.json"
    file.write_text(json.dumps(PUBLISHED))
    return file


def settings(folder: Path, reference: object, *more: str) -> list[str]:
    return [f"eval_set.path={folder / 'eval.jsonl'}", f"eval.reference={reference}", f"paths.outputs={folder / 'out'}", *more]


def keys(*overrides: str) -> dict[str, str]:
    config = load_config(list(overrides))
    return {node.role: node.stage.key for node in stages(config, resolve(config)).until(config.until)}


def test_a_published_file_is_judged_against_by_its_content(tmp_path: Path, published: Path) -> None:
    base = keys(f"eval_set.path={tmp_path / 'eval.jsonl'}")
    theirs = keys(*settings(tmp_path, published))
    assert {role for role in theirs if base.get(role) != theirs[role]} == {"other_answers", "verdicts"}, "nothing else changes"
    moved = tmp_path / "elsewhere.json"
    moved.write_bytes(published.read_bytes())
    assert keys(*settings(tmp_path, moved)) == theirs
    moved.write_text(json.dumps(PUBLISHED[:3]))
    assert keys(*settings(tmp_path, moved))["other_answers"] != theirs["other_answers"]
    assert keys(*settings(tmp_path, "own"))["other_answers"] not in (base["base_answers"], theirs["other_answers"])


def test_answers_are_found_by_instruction_whatever_their_order(tmp_path: Path, published: Path, tiny_model: Path) -> None:
    config = load_config(settings(tmp_path, published, f"model.path={tiny_model}"))
    job = Job(
        kind="other_answers", role="other_answers", key="k", work=tmp_path / "work", inputs={}, config=config,
        sources=resolve(config), cache=tmp_path / "c.sqlite",
    )  # fmt: skip
    assert Job.from_json(job.to_json()) == job
    build_references(job, lambda progress: None)
    rows = read_jsonl(job.work / "answers.jsonl")
    assert [row["output"] for row in rows] == ["theirs 0", "theirs 1", "theirs 2"] and rows[0]["generator"] == "gpt4"
    assert len(read_jsonl(job.work / "reference_loss.jsonl")) == 3, "the base model's loss is still there to compare with"
    assert not job.cache.exists(), "no model was asked for answers"


def test_the_sets_own_answers_and_another_runs_answers_are_references(tmp_path: Path, published: Path) -> None:
    prompts = load_eval_set(resolve(load_config(settings(tmp_path, "own"))).eval_set.local_path, None)
    own = resolve(load_config(settings(tmp_path, "own"))).reference
    assert own is not None and [answer.output for answer in read_references(own.local_path, own.name, prompts)] == [
        "own 0",
        "own 1",
        "own 2",
    ]
    run, entry = tmp_path / "runs" / "one-12345678", tmp_path / "store" / "answers-1"
    run.mkdir(parents=True)
    entry.mkdir(parents=True)
    (entry / "model_outputs.json").write_text(json.dumps(PUBLISHED))
    told = {"stages": [{"role": "answers", "path": "../../store/answers-1"}, {"role": "reference_answers", "path": "../x"}]}
    (run / "run.json").write_text(json.dumps(told))
    other = resolve(load_config(settings(tmp_path, run))).reference
    assert other is not None and other.name == "one-12345678"
    assert [answer.output for answer in read_references(other.local_path, other.name, prompts)] == [
        "theirs 0",
        "theirs 1",
        "theirs 2",
    ]
    assert keys(*settings(tmp_path, run)) == keys(*settings(tmp_path, published)), "the same answers are the same reference"


def test_answers_of_a_run_that_were_cut_are_known_to_be(tmp_path: Path, published: Path, tiny_model: Path) -> None:
    before = keys(*settings(tmp_path, published))
    rows = [{**row, "id": str(n), "tokens": 7, "truncated": n == 1} for n, row in enumerate(PUBLISHED)]
    write_jsonl(tmp_path / "answers.jsonl", rows)
    assert keys(*settings(tmp_path, published)) == before, "a file that somebody else laid beside it"
    (tmp_path / "manifest.json").write_text("{}")
    assert keys(*settings(tmp_path, published))["other_answers"] != before["other_answers"]
    config = load_config(settings(tmp_path, published, f"model.path={tiny_model}"))
    job = Job(
        kind="other_answers", role="other_answers", key="k", work=tmp_path / "work", inputs={}, config=config,
        sources=resolve(config), cache=tmp_path / "c.sqlite",
    )  # fmt: skip
    assert build_references(job, lambda progress: None).metrics["truncated"] == 1
    assert [row["truncated"] for row in read_jsonl(job.work / "answers.jsonl")] == [True, False, False]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (PUBLISHED[:2], "lacks answers to 1 of 3"),
        ([*PUBLISHED, PUBLISHED[0]], "several answers to 1"),
        ([], "lacks answers to 3"),
    ],
)
def test_answers_that_do_not_fit_are_refused(tmp_path: Path, published: Path, rows: list[object], named: str) -> None:
    published.write_text(json.dumps(rows))
    sources = resolve(load_config(settings(tmp_path, published)))
    reference = sources.reference
    assert reference is not None
    with pytest.raises(MinilimaError, match=named):
        read_references(reference.local_path, reference.name, load_eval_set(sources.eval_set.local_path, None))


def test_a_misfit_is_found_before_anything_is_built(tmp_path: Path, published: Path) -> None:
    published.write_text(json.dumps(PUBLISHED[:1]))
    paragraph = refused(minilima("+experiment=quickstart", *settings(tmp_path, published), "eval_set.size=null", cwd=tmp_path))
    assert "lacks answers to 2 of 3 prompts" in paragraph
    assert not (tmp_path / "out" / "store").exists() or not list((tmp_path / "out" / "store").glob("*-*"))


def test_the_sets_own_answers_cannot_lose_to_a_judge_that_compares_with_them(tmp_path: Path, published: Path) -> None:
    paragraph = refused(minilima("+experiment=quickstart", *settings(tmp_path, "own"), "eval_set.size=null", cwd=tmp_path))
    assert "cannot judge against" in paragraph and "they cannot lose" in paragraph


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, published: Path) -> None:
    with pytest.raises(MinilimaError, match="no answers of a finished run"):
        resolve(load_config(settings(tmp_path, tmp_path)))
