"""Configuration: every file composes, every mistake is named with the valid choices."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from minilima.cli import reference
from minilima.config.choices import Until
from minilima.config.compose import load_config, to_dict
from minilima.config.groups import CONF, groups
from minilima.errors import MinilimaError
from minilima.evaluate.judge_forms import check_form

OPTIONS = [(group, option) for group, names in groups().items() for option in names]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_validates(group: str, option: str) -> None:
    if option.startswith("optuna"):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="its sweeper is an extra")
    config = load_config([f"{'+' if group in ('experiment', 'sweep') else ''}{group}={option}"])
    written = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"))
    assert isinstance(written, dict)
    whole = {key: value for key, value in written.items() if key not in ("defaults", "hydra")}
    everywhere = (CONF / group / f"{option}.yaml").read_text().startswith("# @package _global_")
    composed = to_dict(config) if everywhere else to_dict(config)[group]
    # Two kinds are settled while composing: vLLM is either an endpoint or an engine of this process.
    if option != "vllm":
        assert contains(composed, whole), "what the file says is what the experiment has"


def contains(composed: Any, written: Any) -> bool:
    if isinstance(written, dict):
        return all(contains(composed[key], value) for key, value in written.items())
    return bool(composed == written)


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda file: str(file.relative_to(CONF)))
def test_every_line_of_a_config_file_is_explained(file: Path) -> None:
    text = file.read_text()
    assert text.startswith("#"), "a file begins by saying what it is for"
    for line in text.splitlines():
        opens_a_block = line.rstrip().endswith(":")
        if line.strip() and not opens_a_block and line.strip() != "- _self_":
            assert "#" in line, f"{line!r} is not explained"


def test_the_command_line_wins_over_the_experiment_which_wins_over_the_group() -> None:
    assert load_config([]).sft.epochs == 3
    assert load_config(["+experiment=quickstart"]).sft.epochs == 1
    assert load_config(["+experiment=quickstart", "sft.epochs=5", "until=dataset"]).sft.epochs == 5
    assert load_config(["until=dataset"]).until is Until.dataset


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("sft.learning_rte=1", ["sft.learning_rte", "learning_rate", "Did you mean"]),
        ("+sft.learning_rte=1", ["sft.learning_rte", "learning_rate", "Did you mean"]),
        ("endpoints.judge.base_ur=x", ["endpoints.judge.base_ur", "base_url"]),
        ("sft.epochs=abc", ["sft.epochs", "whole number"]),
        ("until=pol", ["until", "pool"]),
        ("sft=loraa", ["sft=loraa", "full", "lora", "lima"]),
        ("+experiment=quikstart", ["experiment=quikstart", "quickstart"]),
        ("experiment=quickstart", ["+experiment=quickstart"]),
        ("sft", ["key=value"]),
        ("+experiment=inf", ["+experiment=inf names no option", "quickstart", "Write +experiment="]),
        ("+experiment={a:1}", ["names no option", "quickstart"]),
        ("sft=null", ["sft=null names no option", "lora", "Write sft=full"]),
        ("sft.learning_rate=-1", ["sft.learning_rate", "above 0"]),
        ("dataset.size=0", ["dataset.size", "at least 1"]),
        ("eval.top_p=1.5", ["eval.top_p", "between 0 and 1"]),
        ("name=../x", ["name", "folder"]),
        (f"name={'n' * 201}", ["name", "at most 200"]),
        ("judge.prompt=chose", ["judge.prompt", "choose", "weigh"]),
        ("judge.min_coverage=90", ["judge.min_coverage", "between 0 and 1"]),
        ("sft.quantise=nf4", ["sft=lora"]),
        ("compute.offload=optimizer", ["compute.zero_stage=1 or higher", "zero3_offload"]),
        ("compute.offload=all", ["compute.zero_stage=3"]),
        ("compute.nodes=0", ["compute.nodes", "at least 1"]),
        ("data.instances_per_task=0", ["data.instances_per_task", "at least 1"]),
        ("endpoints.generator.budget.usd=-1", ["endpoints.generator.budget.usd", "at least 0"]),
        ("endpoints.generator.base_url=localhost:8000/v1", ["endpoints.generator.base_url", "http://"]),
        ("endpoints.generator.base_url=", ["endpoints.generator.base_url", "http://"]),
        ("compute.served_at=[here]", ["compute.served_at", "http://"]),
    ],
)
def test_a_mistake_is_named_with_the_valid_choices(override: str, named: list[str]) -> None:
    with pytest.raises(MinilimaError) as caught:
        load_config([override])
    for part in named:
        assert part in str(caught.value)


def test_a_judges_prompt_must_be_read_as_it_is_meant() -> None:
    with pytest.raises(MinilimaError, match="do not fit together"):
        check_form(load_config(["judge=chatgpt", "judge.prompt=weigh"]).judge)


def test_a_typo_inside_an_experiment_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nsft:\n  learning_rte: 1\n")
    with pytest.raises(MinilimaError, match=r"no setting sft\.learning_rte"):
        load_config(["+experiment=mine"], config_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("just text", ["mine.yaml holds no settings", "It is one value", "# @package _global_"]),
        ("- a\n- b\n", ["mine.yaml holds no settings", "It is a list"]),
        ("", ["mine.yaml holds no settings", "It is empty"]),
        ("sft:\n  epochs: 2\n", ["mine.yaml are not where they belong", "below experiment", "first line: # @package _global_"]),
        ("# @package _global_\nsft:\n  epochs: many\n", ["sft.epochs in experiment/mine.yaml", "whole number"]),
        ("# @package _global_\nsft: 3\n", ["experiment/mine.yaml", "It is a group of settings, and 3 is one value"]),
        ("# @package _global_\ndefaults:\n  - /model: gemma3_270m\n", ["model is given twice", "- override /model: OPTION"]),
    ],
)
def test_a_file_of_the_users_own_that_cannot_be_used_is_named_with_what_to_write(
    tmp_path: Path, text: str, said: list[str]
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(MinilimaError) as caught:
        load_config(["+experiment=mine"], config_dir=str(tmp_path))
    assert not [part for part in said if part not in str(caught.value)]


def test_an_experiment_of_the_users_own_composes(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nsft:\n  epochs: 7\n")
    assert load_config(["+experiment=mine"], config_dir=str(tmp_path)).sft.epochs == 7


def test_lima_1k_is_what_it_says() -> None:
    config = load_config(["+experiment=lima_1k"])
    assert (config.dataset.size, config.sft.epochs, config.sft.learning_rate, config.sft.final_learning_rate) == (
        1000,
        15,
        1e-5,
        1e-6,
    )
    assert (config.sft.beta2, config.sft.weight_decay, config.sft.residual_dropout) == (0.95, 0.1, 0.2)
    assert (config.generator.kind, config.judge.kind) == ("openai", "openai")
    assert config.eval_set.hub_file is not None and "alpaca_eval" in config.eval_set.hub_file


def test_the_reference_of_settings_says_what_the_code_says() -> None:
    assert reference.stale() == [], (
        "a setting, an option or a command has changed: run `make reference` and commit docs/reference/"
    )


def test_the_reference_tells_range_unit_and_default_of_a_setting() -> None:
    found = {setting.name: setting for section in reference.lines_of_settings().values() for setting in section}
    assert found["judge.min_coverage"].valid == "number, between 0 and 1"
    assert found["compute.checkpoint_seconds"].valid == "number, in seconds, at least 0"
    assert found["sft.method"].valid == "`full`, `lora`"
    assert found["endpoints.generator.budget.usd"].valid == "number, in USD, at least 0, or null"
    assert found["dataset.size"].default == "null" and "null = all that pass" in found["dataset.size"].meaning
    assert all(setting.meaning for setting in found.values())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dataset.size=many", "It must be a whole number"),
        ("sft.learning_rate=fast", "It must be a number"),
        ("data.must_ask=perhaps", "It must be true or false"),
        ("sft.method=fool", "It must be one of full, lora"),
        ("model.path={a:1}", "It must be text"),
        ("sft.epochs=null", "It cannot be null"),
        ("endpoints.judge=3", "It is a group of settings"),
        ("benchmarks=ifeval", "It is a list: put the value into brackets"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_what_it_must_be(override: str, said: str) -> None:
    with pytest.raises(MinilimaError, match=rf"^{override.partition('=')[0]}.* has a value of the wrong kind. {said}"):
        load_config([override])
