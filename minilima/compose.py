"""From command-line overrides to a strictly checked `Config`, and from Hydra's errors to one paragraph.

Hydra merges groups < config.yaml < experiment < command line. The result is then merged into a fresh schema, since
Hydra itself accepts any key that is added with `+`.
"""

import dataclasses
import difflib
import operator
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from minilima.config import (
    ComputeConfig,
    Config,
    Engine,
    GeneratorKind,
    JudgeConfig,
    JudgeKind,
    Method,
    Offload,
    SftConfig,
    Weights,
)
from minilima.errors import MinilimaError, options
from minilima.groups import CONF, groups

ConfigStore.instance().store("schema", node=Config)


def load_config(overrides: Sequence[str] = (), *, config_dir: str | None = None) -> Config:
    """Composes one experiment.

    Args:
        overrides: as on the command line: `["+experiment=quickstart", "sft.epochs=2"]`.
        config_dir: a folder with groups of the user's own, searched after the packaged ones.

    Raises:
        MinilimaError: a key, value or option does not exist or has the wrong type; the valid ones are named.
    """
    try:
        with composing():
            return strict(compose("config", overrides=[*overrides, *searchpath(config_dir)]))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain_composition(error, overrides) from None


@contextmanager
def composing() -> Iterator[None]:
    """Hydra, ready to compose from conf/; a block inside such a block shares its state."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF), job_name="minilima"):
        yield


def searchpath(config_dir: str | None) -> list[str]:
    """The override with which Hydra finds the user's own groups too."""
    return [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []


def strict(composed: DictConfig) -> Config:
    """Merges a composed config into a fresh schema, so that no unknown key survives, and checks the ranges."""
    config = to_config(composed)
    check_ranges(config)
    return config


def to_config(composed: DictConfig) -> Config:
    """A composed config as the schema has it; its ranges are not checked yet."""
    values = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), values))
    assert isinstance(config, Config)
    if config.generator.kind == GeneratorKind.vllm:
        # From here on there are two kinds: a model behind an endpoint, and one on this machine.
        if config.generator.endpoint.base_url is not None:
            config.generator.kind = GeneratorKind.openai
        else:
            config.generator.kind, config.generator.engine = GeneratorKind.local, Engine.vllm
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain values, for JSON and YAML."""
    values = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


_AT_LEAST_ONE = (
    "generator.endpoint.concurrency",
    "judge.endpoint.concurrency",
    "data.instructions",
    "data.demonstrations",
    "data.instructions_per_request",
    "data.requests_per_round",
    "data.max_rounds",
    "data.size",
    "sft.epochs",
    "sft.batch_size",
    "sft.max_tokens",
    "sft.lora_rank",
    "compute.gpus",
    "compute.processes",
    "compute.nodes",
    "compute.micro_batch_tokens",
    "compute.generation_batch",
    "eval_set.size",
    "eval.max_tokens",
)
_OTHER_RANGES = {
    "confirm_above_usd": "at least 0",
    "sft.learning_rate": "above 0",
    "compute.zero_stage": "0, 1, 2 or 3",
    "judge.top_logprobs": "between 1 and 20",
    "name": "made of letters, digits, '.', '_' and '-': it names a folder",
}
_SHARES = (
    "data.saturation",
    "data.max_similarity",
    "generator.top_p",
    "eval.top_p",
    "sft.warmup_ratio",
    "sft.residual_dropout",
    "sft.lora_dropout",
    "judge.min_coverage",
    "judge.embedding_weight",
    "judge.tie_margin",
)


def check_ranges(config: Config) -> None:
    """Refuses values that no experiment can have.

    Raises:
        MinilimaError: names the setting and what is valid.
    """
    for key in _AT_LEAST_ONE:
        value = operator.attrgetter(key)(config)
        if value is not None and value < 1:
            raise _out_of_range(key, value)
    for key in _SHARES:
        value = operator.attrgetter(key)(config)
        if not 0.0 <= value <= 1.0:
            raise _out_of_range(key, value)
    if config.sft.learning_rate <= 0:
        raise _out_of_range("sft.learning_rate", config.sft.learning_rate)
    if config.confirm_above_usd is not None and config.confirm_above_usd < 0:
        raise _out_of_range("confirm_above_usd", config.confirm_above_usd)
    _check_judge(config.judge)
    _check_sft(config.sft)
    _check_compute(config.compute)
    if config.sft.quantise and config.compute.zero_stage == 3:
        raise MinilimaError(
            f"sft.quantise={config.sft.quantise} and compute.zero_stage=3 do not go together.",
            "DeepSpeed cannot divide weights in 4 bits.",
            "A quantised model fits on fewer GPUs: choose compute=auto, or compute=zero2 for the adapters' states.",
        )
    if not re.fullmatch(r"[\w.-]+", config.name):
        raise _out_of_range("name", config.name)


_JUDGE_PROMPTS = Path(__file__).parent / "prompts" / "judge"


def _check_judge(judge: JudgeConfig) -> None:
    if judge.prompt not in _judge_prompts():
        raise _out_of_range("judge.prompt", judge.prompt)
    if judge.top_logprobs is not None and not 1 <= judge.top_logprobs <= 20:
        raise _out_of_range("judge.top_logprobs", judge.top_logprobs)
    if judge.kind == JudgeKind.openai and (judge.prompt == "weigh") != (judge.top_logprobs is not None):
        raise MinilimaError(
            f"judge.prompt={judge.prompt} and judge.top_logprobs={judge.top_logprobs} do not fit together.",
            "weigh asks for a letter that is read by its log-probabilities; the other prompts are read by their words.",
            "Choose judge=gpt4_turbo_weighted, or leave both settings as the judge's file has them.",
        )


def _check_sft(sft: SftConfig) -> None:
    if sft.method != Method.lora and (sft.lora_dora or sft.quantise):
        raise MinilimaError(
            f"sft.{'quantise' if sft.quantise else 'lora_dora'} needs adapters, and sft.method={sft.method} has none.",
            "DoRA is a kind of adapter; weights in 4 bits cannot be trained themselves.",
            "Choose sft=lora, or leave the setting out.",
        )
    if sft.weights == Weights.stochastic and sft.method != Method.full:
        raise MinilimaError(
            "sft.weights=stochastic is for full fine-tuning.",
            "Adapters are small, so their float32 masters cost little.",
            "Leave it out with sft=lora.",
        )


def _check_compute(compute: ComputeConfig) -> None:
    if compute.zero_stage not in (None, 0, 1, 2, 3):
        raise _out_of_range("compute.zero_stage", compute.zero_stage)
    least = {Offload.none: None, Offload.optimizer: 1, Offload.all: 3}[compute.offload]
    if least is not None and (compute.zero_stage is None or compute.zero_stage < least):
        raise MinilimaError(
            f"compute.offload={compute.offload} needs compute.zero_stage={least}{'' if least == 3 else ' or higher'}.",
            "DeepSpeed moves to the machine's memory only what it has divided.",
            "Choose compute=zero3_offload, or set the stage.",
        )


def range_of(key: str) -> str | None:
    """What a setting's values must be beyond its type, in words; None where any value will do."""
    if key == "judge.prompt":
        return f"one of {options(_judge_prompts())}"
    return "at least 1" if key in _AT_LEAST_ONE else "between 0 and 1" if key in _SHARES else _OTHER_RANGES.get(key)


def _judge_prompts() -> list[str]:
    return [file.stem for file in _JUDGE_PROMPTS.glob("*.j2")]


def _out_of_range(key: str, value: object, valid: str | None = None) -> MinilimaError:
    return MinilimaError(f"{key}={value} is out of range.", f"It must be {valid or range_of(key)}.", "Give another value for it.")


def explain_composition(error: Exception, overrides: Sequence[str]) -> MinilimaError:
    """Hydra's or OmegaConf's error as one paragraph that names the valid choices."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for link in chain:
        if isinstance(link, MissingConfigException) and link.missing_cfg_file:
            return _unknown_option(str(link.missing_cfg_file))
        if isinstance(link, OverrideParseException):
            return MinilimaError(
                f"The override {link.override!r} cannot be read.",
                "An override is written key=value; a value with commas, brackets or spaces needs quotes.",
                f"For example {options(['sft.epochs=2', '+experiment=quickstart'])}; `python -m minilima --help` lists the rest.",
            )
    for link in reversed(chain):
        if isinstance(link, ConfigKeyError):
            return _unknown_key(str(link.full_key or link.key))
        if isinstance(link, ValidationError):
            return _wrong_type(link, str(error))
    return _no_such_group(error, overrides)


_EXTRAS = {"joblib": "joblib", "submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray", "optuna": "optuna"}
"""Which of our extras brings a launcher or sweeper."""


def _unknown_option(missing: str) -> MinilimaError:
    group, _, option = missing.removesuffix(".yaml").rpartition("/")
    known = groups().get(group, [])
    if group in ("hydra/launcher", "hydra/sweeper"):
        extra = _EXTRAS.get(option)
        fix = f"Install it: pip install 'minilima[{extra}]'" if extra else f"Choose one of {options(_EXTRAS)}, or leave it out."
        return MinilimaError(f"There is no {group}={option} here.", "Launchers and sweepers are plugins of Hydra.", fix)
    return MinilimaError(
        f"There is no {group}={option}.",
        f"The options of {group} are: {options(known)}." if known else f"conf/ has no group {group!r}: {options(groups())}.",
        _closest(option, known, "{}") or f"Choose one of them, or put {option}.yaml into conf/{group}/ or --config-dir.",
    )


def _unknown_key(key: str) -> MinilimaError:
    if key.startswith("hydra."):
        return MinilimaError(
            f"There is no setting {key} here.",
            "What hydra.launcher and hydra.sweeper have depends on which is chosen (hydra/launcher=joblib).",
            f"This shows it: python -m minilima --cfg hydra --package {'.'.join(key.split('.')[:2])} hydra/launcher=joblib",
        )
    parent, _, leaf = key.rpartition(".")
    names = [field.name for field in dataclasses.fields(_schema_at(parent))]
    return MinilimaError(
        f"There is no setting {key}.",
        f"{parent or 'The top level'} has: {options(names)}.",
        _closest(leaf, names, (f"{parent}." if parent else "") + "{}") or "Correct the name and run again.",
    )


def _schema_at(path: str) -> type:
    owner: Any = Config
    for part in filter(None, path.split(".")):
        found = {field.name: field.type for field in dataclasses.fields(owner)}.get(part)
        if not dataclasses.is_dataclass(found):
            break
        owner = found
    return owner  # type: ignore[no-any-return]


def _wrong_type(error: ValidationError, context: str) -> MinilimaError:
    named = re.search(r"merging override '?([^'\s]+)'?", context)
    reason = str(error).splitlines()[0].rstrip(".").replace("$VALUE_TYPE", "text").replace("'$VALUE'", "The value")
    return MinilimaError(
        f"{error.full_key or (named and named.group(1)) or 'A setting'} has a value of the wrong kind.",
        f"{reason}.",
        "Correct the value; `python -m minilima --cfg job` shows all settings as they are.",
    )


def _no_such_group(error: Exception, overrides: Sequence[str]) -> MinilimaError:
    text = " ".join(str(error).split())
    if several := re.search(r"Ambiguous value for argument '(.+?)' 1\.", text):
        return MinilimaError(
            f"{several.group(1)} gives several values.",
            "A run takes one; a sweep takes them all, a run for each.",
            "For a sweep add -m: python -m minilima -m …; a value that has commas itself needs quotes.",
        )
    if named := re.search(r"Could not override '([^']+)'", text):
        group = named.group(1)
        if group in groups():
            wrong = next((item for item in overrides if item.lstrip("+~").startswith(f"{group}=")), f"{group}=…")
            return MinilimaError(
                f"{wrong} cannot replace anything.", f"No {group} is chosen by default.", f"Add it instead: +{wrong.lstrip('+~')}"
            )
        if "." in group:
            return _unknown_key(group)
        top = [*groups(), *(field.name for field in dataclasses.fields(Config))]
        return MinilimaError(
            f"There is no group or setting {group}.",
            f"There are: {options(set(top))}.",
            _closest(group, top, "{}") or "Correct the name and run again.",
        )
    if named := re.search(r"Multiple values for ([\w/]+)", text):
        group = named.group(1)
        return MinilimaError(
            f"{group} is given twice.",
            "Each group takes one option.",
            f"Leave one of them out, or write {group}=option without '+'.",
        )
    return MinilimaError("The configuration cannot be composed.", f"{text.rstrip('.')}.", "Correct it and run again.")


def _closest(word: str, names: Sequence[str], form: str) -> str:
    near = difflib.get_close_matches(word, names, n=1)
    return f"Did you mean {form.format(near[0])}?" if near else ""
