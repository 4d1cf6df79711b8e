"""Keys: what changes a result changes its key and those that follow; how it runs changes none."""

from pathlib import Path

import pytest

from minilima.config.choices import Until
from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.formats.files import canonical_json
from minilima.pipeline import stages
from minilima.run.graph import run_key
from minilima.run.sources import resolve
from minilima.store.job import Stage

ALL = {"base", "pool", "dataset", "model", "base_answers", "answers", "verdicts"}


def keys(*overrides: str) -> dict[str, str]:
    config = load_config(["+experiment=quickstart", *overrides])
    return {node.role: node.stage.key for node in stages(config, resolve(config)).until(Until.report)}


def changed(*overrides: str) -> set[str]:
    before, after = keys(), keys(*overrides)
    return {role for role in ALL if before.get(role) != after.get(role)}


def test_the_stages_of_a_run_in_order() -> None:
    order = ["base", "pool", "dataset", "model", "base_answers", "answers", "verdicts"]
    assert list(keys("benchmarks=[]")) == order
    scored = ["minilima_verifiable_base", "minilima_verifiable_tuned"]
    assert list(keys()) == [*order[:-1], *scored, order[-1]], "the quickstart has a benchmark"
    assert {role: key for role, key in keys().items() if role not in scored} == keys("benchmarks=[]")


def test_embedded_models_are_converted_where_another_one_is_trained(tiny_model: Path) -> None:
    trained = f"model.path={tiny_model}"
    assert next(iter(keys(trained))) == "pool"
    assert list(keys(trained, "generator.model=smollm2_135m"))[:2] == ["generator_base", "pool"]
    judged = keys(trained, "judge=local", "judge.model=smollm2_135m")
    assert list(judged)[:2] == ["judge_base", "pool"] and judged["judge_base"] == keys()["base"]
    # The trained one also judges: it is converted once.
    assert list(keys("judge=local", "judge.model=smollm2_135m"))[:2] == ["base", "pool"]


@pytest.mark.parametrize(
    "override",
    [
        "compute=zero3",
        "compute.processes=4",
        "compute.micro_batch_tokens=99",
        "compute.generation_batch=3",
        "compute.answer_group=8",
        "compute.engine=vllm",
        "compute.served_at=[http://127.0.0.1:1]",
        "compute.engine=transformers",
        "endpoints.generator.concurrency=3",
        "endpoints.judge.base_url=http://127.0.0.1:1",
        "paths.outputs=/elsewhere",
        "tracking=none",
        "name=other",
        "sft.lora_rank=99",
        "compute=zero3_offload",
        "compute=multinode",
        "compute.activation_checkpointing=true",
    ],
)
def test_how_it_runs_changes_no_key(override: str) -> None:
    assert changed(override) == set()


@pytest.mark.parametrize(
    ("override", "rebuilt"),
    [
        ("sft.learning_rate=1e-3", {"model", "answers", "verdicts"}),
        ("sft=lora", {"model", "answers", "verdicts"}),
        ("dataset.size=50", {"dataset", "model", "answers", "verdicts"}),
        ("judge.tie_margin=0.2", {"verdicts"}),
        ("eval.max_tokens=9", {"base_answers", "answers", "verdicts"}),
        ("eval_set.size=7", {"base_answers", "answers", "verdicts"}),
        ("data.instructions=5", {"pool", "dataset", "model", "answers", "verdicts"}),
        ("generator.temperature=0.1", {"pool", "dataset", "model", "answers", "verdicts"}),
    ],
)
def test_a_setting_rebuilds_its_stage_and_what_follows(override: str, rebuilt: set[str]) -> None:
    assert changed(override) == rebuilt


def test_settings_added_later_enter_the_key_only_where_they_are_used() -> None:
    config = load_config(["+experiment=quickstart", "sft=lora"])
    written = canonical_json(stages(config, resolve(config))["model"].recipe)
    assert '"lora_rank"' in written
    assert not [name for name in ("lora_dora", "quantise", "weights", "select", "dev_set") if f'"{name}"' in written]
    assert keys("sft=lora")["model"] != keys("sft=lora", "sft.lora_dora=true")["model"]


def test_another_choice_among_the_epochs_trains_nothing_anew() -> None:
    by_judge, by_loss = keys("epoch.select=judge"), keys("epoch.select=dev_loss")
    assert list(by_judge)[3:5] == ["epochs", "model"]
    assert by_judge["epochs"] == by_loss["epochs"]
    assert by_judge["model"] != by_loss["model"] != keys()["model"]
    assert keys("epoch.select=judge", "judge.tie_margin=0.2")["epochs"] == by_judge["epochs"]
    assert keys("epoch.select=judge", "judge.tie_margin=0.2")["model"] != by_judge["model"]
    assert keys("epoch.select=dev_loss", "judge.tie_margin=0.2")["model"] == by_loss["model"]


def test_a_model_is_not_chosen_by_the_evaluation_set() -> None:
    with pytest.raises(MinilimaError, match="is the evaluation set"):
        keys("epoch.select=judge", "epoch.dev_set=minilima_100")


def test_stopping_early_leaves_later_stages_out_and_keeps_the_keys() -> None:
    config = load_config(["+experiment=quickstart"])
    graph = stages(config, resolve(config))
    assert [node.role for node in graph.until(Until.dataset)] == ["base", "pool", "dataset"]
    assert run_key(graph, Until.dataset) != run_key(graph, Until.report)


def test_a_raised_cap_makes_a_larger_pool_and_goes_on_in_the_same_account() -> None:
    def pool(*overrides: str) -> Stage:
        config = load_config(["generator=openai", *overrides])
        return stages(config, resolve(config))["pool"]

    five, ten = pool("endpoints.generator.budget.usd=5"), pool("endpoints.generator.budget.usd=10")
    assert len({five.key, ten.key, pool().key}) == 3, "what stopped at a cap is not taken for what did not"
    assert five.account == ten.account == pool().account == pool().key
    prices = [f"endpoints.generator.budget.usd_per_million_{what}_tokens=1" for what in ("prompt", "completion")]
    assert pool(*prices).key == pool().key, "prices are no caps"
