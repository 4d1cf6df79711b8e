"""The plan: every stage once, what it takes, and a question before much is spent."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import speeds
from minilima import console, environment
from minilima import plan as plan_of
from minilima.cli.sweep import graphs
from minilima.config.compose import load_config
from minilima.config.schema import ComputeConfig
from minilima.config.sweep_grid import expand
from minilima.errors import MinilimaError
from minilima.formats.records import Usage
from minilima.pipeline import stages
from minilima.run.plan import Plan, PlannedStage, make_sweep_plan
from minilima.run.plan_table import as_json, show, show_sweep
from minilima.run.preflight import confirm_spending
from minilima.run.resources import Resources
from minilima.run.sources import resolve
from minilima.run.speed import TABLE, needs
from minilima.run.stages.pool import POOL
from minilima.train.memory import Device
from tests.cli.test_commands import minilima, refused

LIMA = ["+experiment=lima_1k", "eval_set=minilima_100", "model=smollm2_135m"]


def sweep(folder: Path, *overrides: str) -> tuple[int, Plan]:
    points = expand([*LIMA, f"paths.outputs={folder}", *overrides]).points
    return len(points), make_sweep_plan(graphs([point.config for point in points]))


def test_a_sweep_pays_once_for_what_its_points_share(tmp_path: Path) -> None:
    _, one = sweep(tmp_path, "dataset.size=100,100")
    points, many = sweep(tmp_path, "dataset.size=100,200", "sft.learning_rate=1e-5,2e-5,3e-5")
    assert points == 6 and len({stage.directory for stage in many.stages}) == len(many.stages)
    pool, verdicts = one.stages[1], one.stages[-1]
    assert pool.role == "pool" and one.needs.usd == pytest.approx((pool.needs.usd or 0) + (verdicts.needs.usd or 0))
    assert many.needs.usd == pytest.approx((pool.needs.usd or 0) + 6 * (verdicts.needs.usd or 0))
    assert many.needs.requests == (pool.needs.requests or 0) + 6 * 200


def test_a_sweep_is_shown_by_what_differs_with_its_sums(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console._out, "width", 200)
    points, many = sweep(tmp_path, "dataset.size=range(100,120)", "sft.learning_rate=1e-5,2e-5,3e-5,4e-5,5e-5")
    show_sweep("lima", points, many)
    text = " ".join(capfd.readouterr().out.split())
    assert "lima: 100 points, 323 stages, 323 to build" in text
    assert "100 times: the tuned model" in text and "20 times: full fine-tuning" in text and "and 16 more: 16 to build" in text
    assert f"{many.needs.requests:,}" in text and f"{many.needs.usd:,.2f}" in text and "27.2 GB" in text


def test_a_plan_for_programs_holds_every_stage(tmp_path: Path) -> None:
    _, many = sweep(tmp_path, "dataset.size=100,200")
    told = json.loads(as_json(many))
    assert [stage["directory"] for stage in told["stages"]] == [stage.directory for stage in many.stages]
    assert told["needs"] == asdict(many.needs)


def test_a_retired_judge_is_named_before_it_is_asked(tmp_path: Path) -> None:
    def notes(*overrides: str) -> str:
        config = load_config(["+experiment=quickstart", "judge=alpaca_eval", f"paths.outputs={tmp_path}", *overrides])
        return " ".join(plan_of(config).notes)

    assert "retired gpt-4-1106-preview" in notes("judge.model=null"), "the config's own"
    assert "retired gpt-3.5-turbo-0301" in notes("judge=chatgpt", "judge.model=gpt-3.5-turbo-0301")
    assert "has retired" not in notes()
    assert "has retired" not in notes("judge.model=null", "endpoints.judge.base_url=http://localhost/v1"), (
        "others may still offer it"
    )


def test_what_a_judge_costs_is_said_to_be_missing_where_its_prompts_are(tmp_path: Path) -> None:
    where = [*LIMA, "eval_set=alpaca_eval", f"paths.outputs={tmp_path}"]
    unknown, known = plan_of(load_config([*where, "eval_set.hub_file=someone/prompts:some.json"])), plan_of(load_config(where))
    note = "What the judge will cost is not in the sum"
    assert any(note in told for told in unknown.notes) and unknown.stages[-1].needs.requests is None
    assert not any(note in told for told in known.notes) and known.stages[-1].needs.requests == 2 * 805
    assert known.needs.usd is not None and known.needs.usd > 2 * (known.stages[1].needs.usd or 0), "the judge costs most"


def test_a_model_that_is_not_fetched_yet_is_planned_by_its_published_shape(tmp_path: Path) -> None:
    plan = plan_of(load_config([*LIMA, "model=llama3_8b", "compute=cpu", f"paths.outputs={tmp_path}"]))
    model = next(stage for stage in plan.stages if stage.role == "model")
    assert model.needs.disk_bytes == pytest.approx(16.06e9, rel=0.001)
    assert (model.needs.memory_bytes or 0) > 16 * 8.03e9, "float32 weights, gradients and two moments"
    assert any("one H100 about 0.1 hours" in note for note in plan.notes)


def test_a_small_model_on_a_fast_gpu_takes_as_long_as_its_kernels_take_to_launch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """benchmarks/results/lima_run.json: 103 seconds for these 480 steps of 30 layers, of which arithmetic would take seconds."""
    gpu = Device(bytes=80 * 2**30, bf16=True, flops=989e12, name="A GPU")
    monkeypatch.setattr("minilima.run.plan.device_here", lambda compute: gpu)
    plan = plan_of(load_config([*LIMA, f"paths.outputs={tmp_path}"]))
    model = next(stage for stage in plan.stages if stage.role == "model")
    assert model.needs.seconds == pytest.approx(103, rel=0.1)


def test_which_engine_answers_is_said_where_there_is_a_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = [*LIMA, "eval_set.size=40", "eval.max_tokens=100", f"paths.outputs={tmp_path}"]
    assert not any("compute.engine" in note for note in plan_of(load_config(settings)).notes)
    monkeypatch.setattr("minilima.run.plan.find_spec", lambda name: name)
    monkeypatch.setattr("minilima.run.plan.may_have_gpu", lambda: True)
    assert any("takes transformers for up to 4,000 tokens" in note for note in plan_of(load_config(settings)).notes)
    chosen = load_config([*settings, "compute.engine=transformers"])
    assert not any("compute.engine" in note for note in plan_of(chosen).notes)


def test_in_a_narrow_terminal_the_figures_stand_in_a_table_of_their_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console._out, "width", 80)
    points, many = sweep(tmp_path, "dataset.size=100,200")
    show_sweep("lima", points, many)
    text = " ".join(capfd.readouterr().out.split())
    assert "instructions and instances, written by" in text, "what a stage is, has room"
    takes = text.partition("estimate")[2]
    assert f"{many.needs.usd:,.2f}" in takes and f"{many.needs.requests:,}" in takes


def test_a_price_that_is_not_known_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = load_config(["generator=vllm", "endpoints.generator.base_url=http://localhost:8000/v1", f"paths.outputs={tmp_path}"])
    show(config, plan_of(config))
    assert "The price is not known" in capfd.readouterr().out


def manifest(stage: str, seconds: float, host: str = "", **content: Any) -> dict[str, Any]:
    return {"stage": stage, "seconds": seconds, "host": host or environment.host(), "inputs": {}, "metrics": {}, **content}


def test_time_is_that_of_earlier_builds_for_the_amount_of_work() -> None:
    config = load_config(["+experiment=quickstart", "sft.epochs=4", "dataset.size=50"])
    sources = resolve(config)
    recipe = {"base": sources.base.recipe(), "method": "full", "epochs": 2}
    trained = [
        manifest("model", seconds, recipe=recipe, inputs={"dataset": "dataset-1"}, **host)
        for seconds, host in ((60.0, {}), (80.0, {}), (9999.0, {"host": "elsewhere"}))
    ]
    manifests = {f"model-{place}": found for place, found in enumerate(trained)}
    manifests["dataset-1"] = manifest("dataset", 1.0, recipe={}, metrics={"examples": 100})
    node = stages(config, sources).by_role()["model"]
    assert needs(node, manifests).seconds == pytest.approx(70)
    made = {**manifests, node.inputs["dataset"].stage.directory: manifests["dataset-1"]}
    assert needs(node, made).seconds == pytest.approx(140)
    lora = load_config(["+experiment=quickstart", "sft=lora", "dataset.size=50"])
    assert needs(stages(lora, sources).by_role()["model"], manifests).seconds is None, "another kind of work"


def test_the_first_plan_on_a_machine_tells_times_measured_on_another_or_says_that_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    plan = plan_of(load_config(["+experiment=quickstart", f"paths.outputs={tmp_path}"]))
    assert 60 < (plan.needs.seconds or 0) < 600 and all(stage.needs.seconds for stage in plan.stages)
    measured = [entry["machine"].split(" that ")[0] for entry in json.loads(TABLE.read_text()).values()]
    assert any(machine in note for note in plan.notes for machine in measured)
    other = plan_of(load_config(["+experiment=quickstart", "sft=lora", f"paths.outputs={tmp_path}"]))
    assert any(note.startswith("No time is known for model:") for note in other.notes)


def test_the_table_of_speeds_is_that_of_the_committed_result() -> None:
    assert json.loads(TABLE.read_text()) == speeds.table()


def test_a_sweep_asks_once_for_the_gpu_and_tells_time_and_memory_of_each_training(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def gpu(compute: ComputeConfig) -> Device:
        asked.append(compute)
        return Device(bytes=memory, bf16=True, processes=2, flops=1e12, name="A GPU")

    monkeypatch.setattr("minilima.run.plan.device_here", gpu)
    axes = [f"model.path={tiny_model}", "dataset.size=96,192", "sft.epochs=1,2"]
    memory = 80 * 10**9
    _, plan = sweep(tmp_path, *axes)
    trained = [stage.needs for stage in plan.stages if stage.role == "model"]
    assert len(asked) == 1 and len(trained) == 4
    seconds = [found.seconds or 0 for found in trained]
    assert seconds == pytest.approx([seconds[0] * times for times in (1, 2, 2, 4)]) and seconds[0] > 0
    assert plan.needs.memory_bytes == max(found.memory_bytes or 0 for found in trained) > 0
    memory = 10**6
    _, plan = sweep(tmp_path, *axes)
    assert sum("It does not fit" in note for note in plan.notes) == 1


def test_needs_add_up_and_only_the_largest_checkpoint_counts() -> None:
    total = Resources(requests=1, usd=0.5, scratch_bytes=3) + Resources(requests=2, seconds=4.0, scratch_bytes=5)
    assert total == Resources(requests=3, usd=0.5, seconds=4.0, scratch_bytes=5)


def costly(usd: float | None) -> Plan:
    stage = PlannedStage(role="pool", status="build", directory="pool-1", what="", needs=Resources(usd=usd))
    return Plan(stages=(stage,), notes=())


def test_much_is_spent_only_after_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(reply: bool) -> None:
        def confirm(question: str) -> bool:
            asked.append(question)
            return reply

        monkeypatch.setattr(console, "confirm", confirm)

    answer(False)
    for plan, limit in ((costly(5.0), 5.0), (costly(None), 0.0), (costly(1e6), None)):
        confirm_spending(plan, limit)
    assert not asked
    with pytest.raises(MinilimaError, match="Nothing was started"):
        confirm_spending(costly(5.01), 5.0)
    answer(True)
    confirm_spending(costly(5.01), 5.0)
    assert len(asked) == 2 and "5.01 USD" in asked[0]


def test_without_a_terminal_a_costly_run_needs_a_yes_on_its_command_line(tmp_path: Path) -> None:
    endpoint = "endpoints.generator"
    arguments = [
        "generator=vllm", "generator.model=any", "until=pool",
        f"{endpoint}.base_url=http://127.0.0.1:9/v1", f"{endpoint}.max_retries=0",
        f"{endpoint}.budget.usd_per_million_prompt_tokens=1000", f"{endpoint}.budget.usd_per_million_completion_tokens=1000",
    ]  # fmt: skip
    assert "Add --yes" in " ".join(refused(minilima(*arguments, cwd=tmp_path)).split())
    assert not (tmp_path / "outputs").exists(), "nothing was started"
    assert "did not answer" in refused(minilima("--yes", *arguments, cwd=tmp_path))
    swept = minilima("-m", *arguments, "seed=1,2", cwd=tmp_path)
    assert swept.returncode == 1 and "Add --yes" in " ".join(swept.stderr.split())


def test_what_a_stage_asked_and_why_it_stopped_is_told() -> None:
    used = Usage(
        calls=192, cached=3, prompt_tokens=2000, completion_tokens=880, usd=0.0012, faults={"busy": 9, "server_error": 7}
    )
    assert used.text() == "192 replies, 3 kept from before, 2,880 tokens, 0.0012 USD; on the way: 9 busy, 7 server error"
    assert Usage(calls=1, prompt_tokens=5).text() == "1 reply, 5 tokens" and Usage().text() == ""
    metrics = {"tasks": 56, "rejected": 4, "stopped_by": "max_rounds"}
    assert POOL.outcome(metrics) == "56 machine-written tasks, 4 rejected, stopped by max rounds"
    assert POOL.outcome({**metrics, "stopped_by": "target", "rejected": 0}) == "56 machine-written tasks"
