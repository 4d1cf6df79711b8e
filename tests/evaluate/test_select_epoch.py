"""Which epoch becomes the model: the judge's, or that of the lowest loss, on prompts of their own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from minilima.config.choices import Pick
from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.evaluate.select_epoch import EpochScore, best_epoch, clean_prompts
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.formats.records import Example
from minilima.run.sources import resolve
from minilima.store.job import Job, Outcome
from tests.models.test_whole_runs import in_this_process
from tests.train.test_sft import EXAMPLES, train


@pytest.fixture(scope="module")
def epochs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Three epochs, the store's entry of them: so fast that the last one has forgotten what it knew."""
    outcome, work = train(
        tmp_path_factory.mktemp("epochs"), tiny_model, "sft.epochs=3", "sft.learning_rate=2e-2", "epoch.select=dev_loss",
        role="epochs",
    )  # fmt: skip
    (work / "manifest.json").write_text(json.dumps({"metrics": outcome.metrics}))
    return work


def job(epochs: Path, folder: Path, *overrides: str, rows: list[Example] | None = None) -> Job:
    config = load_config(
        [
            f"model.path={epochs / 'epochs' / 'epoch-001'}", "compute=cpu", "judge=reference", "judge.embedding_weight=0",
            "eval.max_tokens=8", *overrides,
        ]
    )  # fmt: skip
    work, dataset = folder / "work", folder / "data"
    (work / "scratch").mkdir(parents=True)
    dataset.mkdir()
    write_jsonl(dataset / "dataset.jsonl", rows or EXAMPLES)
    return Job(
        kind="choice", role="model", key="k", work=work, inputs={"epochs": epochs, "dataset": dataset}, config=config,
        sources=resolve(config), cache=folder / "cache.sqlite",
    )  # fmt: skip


def choose(epochs: Path, folder: Path, *overrides: str) -> tuple[Outcome, Path]:
    made = job(epochs, folder, *overrides)
    return in_this_process(made, None), made.work


def test_every_epoch_is_kept_as_a_model_and_no_epoch_is_chosen_yet(epochs: Path) -> None:
    kept = sorted(epochs.glob("epochs/*/model.safetensors"))
    assert [file.parent.name for file in kept] == ["epoch-001", "epoch-002", "epoch-003"]
    assert not (epochs / "model.safetensors").exists()
    first, last = (AutoModelForCausalLM.from_pretrained(file.parent).state_dict() for file in (kept[0], kept[-1]))
    assert any(not torch.equal(first[name], last[name]) for name in first)


def test_the_lowest_loss_on_the_dev_set_chooses_and_is_told_as_a_curve(epochs: Path, tmp_path: Path) -> None:
    outcome, work = choose(epochs, tmp_path, "epoch.select=dev_loss")
    curve = [row["dev_loss"] for row in read_jsonl(work / "dev_curve.jsonl")]
    assert len(curve) == 3
    chosen = outcome.metrics["chosen_epoch"]
    assert curve[chosen - 1] == min(curve) == outcome.metrics["chosen_dev_loss"]
    taken = (epochs / "epochs" / f"epoch-{chosen:03d}" / "model.safetensors").read_bytes()
    assert (work / "model.safetensors").read_bytes() == taken
    assert len(read_jsonl(work / "training_log.jsonl")) == 9 == outcome.metrics["steps"]


def test_the_judge_chooses_by_answers_to_the_dev_prompts(epochs: Path, tmp_path: Path) -> None:
    outcome, work = choose(epochs, tmp_path, "epoch.select=judge")
    scores = [EpochScore(**row) for row in read_jsonl(work / "dev_curve.jsonl")]
    assert scores[-1].preference == 1.5, "the last epoch is what the others are compared with"
    assert outcome.metrics["chosen_epoch"] == best_epoch(scores, Pick.judge)
    answers = read_jsonl(work / "dev_answers.jsonl")
    assert len(answers) == 3 * outcome.metrics["dev_prompts"] == 150


def test_of_equal_epochs_the_latest_is_chosen() -> None:
    scores = [
        EpochScore(epoch=n, dev_loss=loss, perplexity=None, preference=p)
        for n, loss, p in ((1, 2.0, 1.5), (2, 1.0, 1.6), (3, 1.0, 1.6))
    ]
    assert best_epoch(scores, Pick.judge) == best_epoch(scores, Pick.dev_loss) == 3
    assert best_epoch(scores[:2], Pick.judge) == 2


def test_dev_prompts_that_were_trained_on_or_are_evaluated_are_left_out(
    epochs: Path, tmp_path: Path, write_jsonl_file: Callable[..., Path]
) -> None:
    trained = Example(
        id="t", instruction="Name a river that flows through Vienna.", input="", output="The Danube.", source="file"
    )
    evaluated = "Which gas makes up most of the air we breathe, and what share of dry air is it?"
    words = ["boats", "lamps", "owls", "maps", "drums", "tea", "salt", "glass", "wool", "ink"]
    own = [f"Say {number} things about {word}." for number, word in enumerate(words)]
    rows = [{"instruction": text} for text in (trained.instruction, evaluated, *own)]
    settings = ("epoch.select=judge", f"epoch.dev_set={write_jsonl_file('dev.jsonl', *rows)}")
    prompts, left_out = clean_prompts(job(epochs, tmp_path / "a", *settings, rows=[trained]))
    assert ([prompt.instruction for prompt in prompts], left_out) == (own, 2)
    with pytest.raises(MinilimaError, match="no reference answers"):
        clean_prompts(job(epochs, tmp_path / "b", settings[1], "epoch.select=dev_loss", rows=[trained]))
    few = f"epoch.dev_set={write_jsonl_file('few.jsonl', *rows[:5])}"
    with pytest.raises(MinilimaError, match="Only 3 of the 5 prompts"):
        clean_prompts(job(epochs, tmp_path / "c", settings[0], few, rows=[trained]))
