"""A training that goes wrong says so, with the step, the row and what to lower; a finished one is never lost in saving."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minilima.config.schema import SftConfig
from minilima.errors import MinilimaError
from minilima.formats.files import write_jsonl
from minilima.models.packing import IGNORED
from minilima.store.job import Job, Outcome
from minilima.train.finite import FiniteWatch, check_weights
from minilima.train.sft import build_model
from minilima.train.tokenize import TokenizedExample, check_trained
from tests.conformance.families import build, named
from tests.conformance.test_families import EXAMPLES, job_of


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(named("SmolLM2"), tmp_path_factory.mktemp("sound"))


def run(job: Job) -> Outcome:
    return build_model(job, lambda progress: None)


def test_a_loss_that_is_no_number_stops_the_run_with_step_and_rows(sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    job = job_of(folder, tmp_path / "run", "sft.epochs=2", "sft.batch_size=1", "compute.micro_batch_tokens=1")
    with pytest.raises(MinilimaError, match=r"Step 1: the loss is nan.*row row-\d;.*sft\.learning_rate \(now 1e-05\)"):
        run(job)
    assert not list(job.work.glob("*.safetensors"))


def test_a_rate_that_breaks_the_weights_stops_the_run(sound: Path, tmp_path: Path) -> None:
    job = job_of(sound, tmp_path / "run", "sft.epochs=40", "sft.learning_rate=1e30", "sft.max_grad_norm=0")
    with pytest.raises(MinilimaError, match=r"Step \d+: the (loss|norm of the gradient) is|hold values that are no numbers"):
        run(job)


def test_a_gradient_that_is_no_number_names_the_rows_of_its_step() -> None:
    watch = FiniteWatch(["a", "b", "c"], SftConfig())
    watch.begin(1, [0])
    watch.begin(2, [1, 2])
    watch.check("grad_norm", 1.0, 2)
    with pytest.raises(MinilimaError, match=r"Step 1: the norm of the gradient is inf.*row a;"):
        watch.check("grad_norm", float("inf"), 1)
    with pytest.raises(MinilimaError, match="rows b, c;"):
        watch.check("loss", float("nan"), 2)


def test_weights_that_are_no_numbers_are_not_saved() -> None:
    check_weights({"a": torch.zeros(2)})
    with pytest.raises(MinilimaError, match="the weights b hold"):
        check_weights({"a": torch.zeros(2), "b": torch.tensor([1.0, float("inf")])})


def test_a_generation_config_that_is_invalid_together_loses_no_training(sound: Path, tmp_path: Path) -> None:
    for number, told in enumerate(({"temperature": 0.6, "top_p": 0.9}, {"do_sample": False, "temperature": 0.6, "num_beams": 0})):
        folder = Path(shutil.copytree(sound, tmp_path / f"model{number}"))
        file = folder / "generation_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **told}))
        job = job_of(folder, tmp_path / f"run{number}", "sft.epochs=1")
        run(job)
        saved = json.loads((job.work / "generation_config.json").read_text())
        assert saved["eos_token_id"] == 2
        assert number or (saved["do_sample"], saved["temperature"]) == (True, 0.6)


def test_a_step_without_a_token_to_learn_changes_no_number(sound: Path, tmp_path: Path) -> None:
    job = job_of(sound, tmp_path / "run", "sft.epochs=1", "sft.batch_size=1", "sft.max_tokens=60")
    rows = [replace(row, id=f"{row.id}-{copy}") for copy in range(10) for row in EXAMPLES]
    write_jsonl(job.inputs["dataset"] / "dataset.jsonl", [*rows, replace(EXAMPLES[0], id="long", instruction="word " * 90)])
    metrics = run(job).metrics
    assert (metrics["examples_without_loss"], metrics["examples_with_end_of_turn"], metrics["steps"]) == (1, 30, 31)
    assert metrics["last_loss"] >= 0


def test_too_many_examples_without_a_token_to_learn_are_refused() -> None:
    learns = TokenizedExample(input_ids=[1, 2], labels=[IGNORED, 2])
    nothing = TokenizedExample(input_ids=[1, 2], labels=[IGNORED, IGNORED])
    assert check_trained([learns] * 19 + [nothing], 8) == 1
    with pytest.raises(MinilimaError, match=r"2 of 20 examples have nothing to learn.*sft\.max_tokens=8"):
        check_trained([learns] * 18 + [nothing] * 2, 8)


def test_examples_longer_than_absolute_positions_are_cut_there(tmp_path: Path) -> None:
    folder = build(named("GPT-2"), tmp_path / "gpt2")
    job = job_of(folder, tmp_path / "run", "sft.epochs=1")
    long = [replace(EXAMPLES[0], id="long", output="word " * 400)]
    write_jsonl(job.inputs["dataset"] / "dataset.jsonl", [*EXAMPLES, *long])
    metrics = run(job).metrics
    assert (metrics["longest_tokens"], metrics["examples_with_end_of_turn"]) == (256, 3)


@pytest.mark.parametrize("name", ["GPT-2", "Pythia"])
def test_limas_dropout_works_where_blocks_are_named_otherwise(name: str, tmp_path: Path) -> None:
    folder = build(named(name), tmp_path / "model")
    plain = run(job_of(folder, tmp_path / "plain", "sft.epochs=1")).metrics["first_loss"]
    dropped = run(job_of(folder, tmp_path / "dropped", "sft.epochs=1", "sft.residual_dropout=0.5")).metrics["first_loss"]
    assert plain != dropped
