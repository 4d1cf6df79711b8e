"""Training on a tiny model: packing changes nothing, runs go on where they stopped, models stop by themselves."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from minilima.config.choices import DeviceKind
from minilima.config.compose import load_config
from minilima.config.schema import SftConfig
from minilima.errors import MinilimaError
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.formats.records import Example
from minilima.models.chat import Request, Sampling, ask
from minilima.models.local import LocalModel
from minilima.run.launch import run_stage
from minilima.run.sources import resolve
from minilima.store.job import Job, Outcome
from minilima.train.dropout import add_residual_dropout
from minilima.train.trainer import rate_factor, refuse_rounding
from tests.models.test_whole_runs import in_this_process
from tests.train.ranks import Ranks

EXAMPLES = [
    Example(
        id=str(n), instruction=f"What is {n} plus one?", input="", output=f"It is {n + 1}." + " Yes." * (n % 5), source="seed"
    )
    for n in range(12)
]


def job_of(tmp_path: Path, model: Path, *overrides: str, role: str = "model") -> Job:
    """A training of EXAMPLES: two epochs of three steps."""
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
    return Job(
        kind=role, role=role, key="k", work=work, inputs={"dataset": dataset}, config=config, sources=resolve(config),
        cache=tmp_path / "cache.sqlite",
    )  # fmt: skip


def train(tmp_path: Path, model: Path, *overrides: str, role: str = "model") -> tuple[Outcome, Path]:
    """Trains as the pipeline does, in processes that have loaded torch already; one process is this one."""
    job = job_of(tmp_path, model, *overrides, role=role)
    return Ranks(job).outcome() if (job.config.compute.processes or 1) > 1 else in_this_process(job, None), job.work


def launch(tmp_path: Path, model: Path, *overrides: str) -> tuple[Outcome, Path]:
    """Trains as the pipeline does, from its launcher on."""
    job = job_of(tmp_path, model, *overrides)
    return run_stage(job, lambda progress: None), job.work


def losses(work: Path) -> list[float]:
    return [row["loss"] for row in read_jsonl(work / "training_log.jsonl")]


RATES = "sft.final_learning_rate=1e-4"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """What one process learns."""
    return train(tmp_path_factory.mktemp("alone"), tiny_model, RATES)[1]


def test_the_length_of_rows_does_not_change_what_is_learned(alone: Path, tmp_path: Path, tiny_model: Path) -> None:
    _, one = train(tmp_path, tiny_model, RATES, "compute.micro_batch_tokens=1")
    assert losses(one) == pytest.approx(losses(alone), abs=1e-5)
    assert losses(one)[-1] < losses(one)[0]


def test_computing_blocks_again_does_not_change_what_is_learned(alone: Path, tmp_path: Path, tiny_model: Path) -> None:
    _, again = train(tmp_path, tiny_model, RATES, "compute.activation_checkpointing=true")
    assert losses(again) == pytest.approx(losses(alone), abs=1e-5)


@pytest.mark.parametrize(
    ("start", "how"),
    [
        (train, "compute.micro_batch_tokens=64"),
        (train, "compute.zero_stage=1 compute.micro_batch_tokens=64"),
        (train, "compute.zero_stage=2 compute.offload=optimizer"),
        (launch, "compute.zero_stage=3 compute.compile=true"),
        (train, "compute.zero_stage=3 compute.offload=all"),
    ],
)
def test_two_processes_learn_what_one_learns(
    alone: Path, tmp_path: Path, tiny_model: Path, start: Callable[..., tuple[Outcome, Path]], how: str
) -> None:
    outcome, two = start(tmp_path, tiny_model, RATES, "compute.processes=2", *how.split())
    assert outcome.metrics["processes"] == 2
    assert losses(two) == pytest.approx(losses(alone), abs=1e-5)
    weights = [AutoModelForCausalLM.from_pretrained(work, dtype=torch.float32).state_dict() for work in (alone, two)]
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=4e-3), name
    rates = [row["learning_rate"] for row in read_jsonl(two / "training_log.jsonl")]
    assert (rates[0], rates[-1]) == pytest.approx((1e-3, 1e-4)), "DeepSpeed keeps to the schedule and its floor"


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(MinilimaError, match="cannot be divided among 2 processes"):
        launch(tmp_path, tiny_model, "compute.processes=2", "sft.batch_size=3")


def test_a_model_trained_long_enough_answers_and_stops_by_itself(tmp_path: Path, tiny_model: Path) -> None:
    _, work = train(tmp_path, tiny_model, "sft.epochs=60", "sft.learning_rate=5e-3")
    model = LocalModel(str(work), "trained", device=DeviceKind.cpu, batch=4)
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
    assert add_residual_dropout(model, 0.3) == [0.0, 0.3]
    assert torch.equal(model(ids).logits, plain)
    model.train()
    assert not torch.allclose(model(ids).logits, plain)


def test_the_outcome_counts_steps_and_ends_of_turn(tmp_path: Path, tiny_model: Path) -> None:
    outcome, work = train(tmp_path, tiny_model, "sft.epochs=1")
    assert outcome.metrics["steps"] == 3 == len(losses(work))
    assert outcome.metrics["examples_with_end_of_turn"] == 12
    assert outcome.metrics["device"].startswith("CPU, "), "threads can change what is learned"
    assert outcome.metrics["epoch_losses"] == [pytest.approx(sum(losses(work)) / 3, abs=1e-3)]
    row = read_jsonl(work / "training_log.jsonl")[-1]
    assert row["tokens_per_second"] > 0 and row["grad_norm"] > 0 and row["memory_gib"] > 0 and row["data_wait_seconds"] >= 0


def test_bfloat16_weights_without_masters_are_refused(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    with pytest.raises(MinilimaError, match="without float32 masters"):
        refuse_rounding(model)
    refuse_rounding(model.requires_grad_(False))
    refuse_rounding(model.float())
