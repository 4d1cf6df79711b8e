"""Training on a tiny model: packing changes nothing, runs go on where they stopped, models stop by themselves."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from minilima.compose import load_config
from minilima.config import Device, SftConfig
from minilima.errors import MinilimaError
from minilima.files import read_jsonl, write_jsonl
from minilima.launch import run_stage
from minilima.llm.chat import Request, Sampling, ask
from minilima.llm.local import LocalModel
from minilima.records import Example
from minilima.sources import resolve
from minilima.store import Outcome
from minilima.train.checkpoints import newest_checkpoint
from minilima.train.dropout import add_residual_dropout
from minilima.train.trainer import rate_factor
from minilima.worker import Job

EXAMPLES = [
    Example(
        id=str(n), instruction=f"What is {n} plus one?", input="", output=f"It is {n + 1}." + " Yes." * (n % 5), source="seed"
    )
    for n in range(12)
]


def train(tmp_path: Path, model: Path, *overrides: str) -> tuple[Outcome, Path]:
    """Trains in a process of its own, as the pipeline does."""
    config = load_config(
        [
            f"model.path={model}", "compute=cpu", "sft.epochs=2", "sft.batch_size=4", "sft.learning_rate=1e-3",
            "sft.warmup_ratio=0", "compute.precision=float32", *overrides,
        ]
    )  # fmt: skip
    dataset, work = tmp_path / "dataset", tmp_path / "work"
    dataset.mkdir(parents=True, exist_ok=True)
    write_jsonl(dataset / "dataset.jsonl", EXAMPLES)
    (work / "scratch").mkdir(parents=True, exist_ok=True)
    job = Job(
        role="model", key="k", work=work, inputs={"dataset": dataset}, config=config, sources=resolve(config),
        cache=tmp_path / "cache.sqlite",
    )  # fmt: skip
    return run_stage(job, lambda progress: None), work


def losses(work: Path) -> list[float]:
    return [row["loss"] for row in read_jsonl(work / "training_log.jsonl")]


def test_the_length_of_rows_does_not_change_what_is_learned(tmp_path: Path, tiny_model: Path) -> None:
    _, one = train(tmp_path / "one", tiny_model, "compute.micro_batch_tokens=1")
    _, all_of_them = train(tmp_path / "all", tiny_model, "compute.micro_batch_tokens=4096")
    assert losses(one) == pytest.approx(losses(all_of_them), abs=1e-5)
    assert losses(one)[-1] < losses(one)[0]


@pytest.mark.parametrize("zero", [None, 1, 2, 3])
def test_two_processes_learn_what_one_learns(tmp_path: Path, tiny_model: Path, zero: int | None) -> None:
    _, one = train(tmp_path / "one", tiny_model)
    outcome, two = train(tmp_path / "two", tiny_model, "compute.processes=2", f"compute.zero_stage={json.dumps(zero)}")
    assert outcome.metrics["processes"] == 2
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    weights = [AutoModelForCausalLM.from_pretrained(work, dtype=torch.float32).state_dict() for work in (one, two)]
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=4e-3), name


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(MinilimaError, match="cannot be divided among 2 processes"):
        train(tmp_path, tiny_model, "compute.processes=2", "sft.batch_size=3")


def test_training_goes_on_from_a_checkpoint_exactly(tmp_path: Path, tiny_model: Path) -> None:
    settings = ("sft.residual_dropout=0.3", "compute.checkpoint_seconds=0")
    _, whole = train(tmp_path / "whole", tiny_model, *settings)
    work = tmp_path / "killed" / "work"
    checkpoints = tmp_path / "whole" / "work" / "scratch" / "checkpoints"
    newest = newest_checkpoint(checkpoints)
    assert newest is not None and newest.endswith("checkpoint-5"), "six steps; the last needs no checkpoint"
    (work / "scratch").mkdir(parents=True)
    checkpoints.rename(work / "scratch" / "checkpoints")
    _, resumed = train(tmp_path / "killed", tiny_model, *settings)
    assert losses(resumed) == losses(whole)
    one, two = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_half_written_checkpoint_is_not_taken(tmp_path: Path) -> None:
    for step, complete in ((2, True), (4, True), (6, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if complete:
            (folder / "complete").write_text(str(step))
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    assert not (tmp_path / "checkpoint-6").exists()
    assert newest_checkpoint(tmp_path / "nothing") is None


def test_adapters_are_merged_into_a_model_that_loads(tmp_path: Path, tiny_model: Path) -> None:
    outcome, work = train(tmp_path, tiny_model, "sft=lora", "sft.batch_size=4", "sft.learning_rate=1e-2", "sft.epochs=3")
    assert outcome.metrics["last_loss"] < outcome.metrics["first_loss"]
    before, after = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (tiny_model, work))
    assert set(before.state_dict()) == set(after.state_dict())
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(before.state_dict()[name].bfloat16(), after.state_dict()[name].bfloat16())


def test_a_model_trained_long_enough_answers_and_stops_by_itself(tmp_path: Path, tiny_model: Path) -> None:
    _, work = train(tmp_path, tiny_model, "sft.epochs=60", "sft.learning_rate=5e-3")
    model = LocalModel(str(work), "trained", device=Device.cpu, batch=4)
    asked = [Request(messages=ask(item.instruction), sampling=Sampling(temperature=0.0, max_tokens=60)) for item in EXAMPLES]
    replies = model.reply_many(asked, lambda index, reply: None)
    assert all(reply.finish == "stop" for reply in replies)
    assert sum(reply.text == item.output for reply, item in zip(replies, EXAMPLES, strict=True)) >= 10


def test_the_rate_falls_linearly_to_its_floor_at_the_last_step() -> None:
    sft = SftConfig(learning_rate=1e-5, final_learning_rate=1e-6)
    rates = [sft.learning_rate * rate_factor(step, 11, sft) for step in range(11)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[5] == pytest.approx(5.5e-6)
    assert rates[-1] == pytest.approx(1e-6)


def test_the_rate_rises_in_the_warm_up() -> None:
    sft = SftConfig(learning_rate=1.0, warmup_ratio=0.3)
    rates = [rate_factor(step, 10, sft) for step in range(10)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[-1] == 0.0


def test_residual_dropout_rises_with_depth_and_is_off_outside_training(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = torch.arange(10, 30).unsqueeze(0)
    plain = model.eval()(ids).logits
    assert add_residual_dropout(model.get_decoder().layers, 0.3) == [0.0, 0.3]
    assert torch.equal(model(ids).logits, plain)
    model.train()
    assert not torch.allclose(model(ids).logits, plain)


def test_the_outcome_counts_steps_and_ends_of_turn(tmp_path: Path, tiny_model: Path) -> None:
    outcome, work = train(tmp_path, tiny_model, "sft.epochs=1")
    assert outcome.metrics["steps"] == 3 == len(losses(work))
    assert outcome.metrics["examples_with_end_of_turn"] == 12
