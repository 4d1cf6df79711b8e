"""What values a setting can have beyond its type, and which settings do not go together; each refusal names what is valid."""

import math
import re
from urllib.parse import parse_qsl

from minilima.config.choices import GeneratorKind, JudgeKind, Method, Offload, Rounding
from minilima.config.schema import ComputeConfig, Config, JudgeConfig, SftConfig
from minilima.config.settings import settings
from minilima.environment import PACKAGE
from minilima.errors import MinilimaError, options

_NAME_BYTES = 200
"""A folder's name has at most 255, and a key is added."""
_NAME = f"at most {_NAME_BYTES} letters, digits, '.', '_' and '-': it names a folder"
_JUDGE_PROMPTS = PACKAGE / "prompts" / "judge"


def check_ranges(config: Config) -> None:
    """Refuses values that no experiment can have.

    Raises:
        MinilimaError: names the setting and what is valid.
    """
    for setting in settings().values():
        value = setting.of(config)
        if isinstance(value, str) and "\0" in value:
            raise _out_of_range(setting.name, value, "a text without null bytes")
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if not math.isfinite(value):
            raise _out_of_range(setting.name, value, "a finite number")
        if value not in setting.valid:
            raise _out_of_range(setting.name, value, setting.valid.words)
    _check_addresses(config)
    _check_sampling(config)
    _check_judge(config.judge)
    _check_sft(config.sft)
    _check_compute(config.compute)
    if config.sft.quantise and config.compute.zero_stage == 3:
        raise MinilimaError(
            f"sft.quantise={config.sft.quantise} and compute.zero_stage=3 do not go together.",
            "DeepSpeed cannot divide weights in 4 bits.",
            "A quantised model fits on fewer GPUs: choose compute=auto, or compute=zero2 for the adapters' states.",
        )
    if not re.fullmatch(r"[\w.-]+", config.name) or len(config.name.encode()) > _NAME_BYTES:
        raise _out_of_range("name", config.name, _NAME)


def _check_sampling(config: Config) -> None:
    """A model on this machine has no sampling of its own to fall back to."""
    asked = [("generator", config.generator, config.generator.kind == GeneratorKind.local)]
    unset = [
        f"{who}.{name}" for who, one, local in asked if local for name in ("temperature", "top_p") if getattr(one, name) is None
    ]
    if config.judge.kind == JudgeKind.local and config.judge.temperature is None:
        unset.append("judge.temperature")
    if unset:
        raise MinilimaError(
            f"{unset[0]} is not set.", "null leaves the choice to an endpoint; a model on this machine has none.",
            f"Set {unset[0]}=… (0 = greedy).",
        )  # fmt: skip


_SECRET = re.compile(r"(?:^|[-_.]|api)(?:key|token|secret|password|passwd|pwd|signature|sig|auth)$", re.IGNORECASE)
"""Names in an address whose values give access; api-version does not."""


def _check_addresses(config: Config) -> None:
    addresses = [("endpoints.generator.base_url", config.endpoints.generator.base_url)]
    addresses += [("endpoints.judge.base_url", config.endpoints.judge.base_url)]
    addresses += [("compute.served_at", address) for address in config.compute.served_at]
    for key, address in addresses:
        if address is not None and not re.match(r"https?://[^/]", address):
            raise MinilimaError(
                f"{key}={address!r} is no address.",
                "It begins with http:// or https:// and a host.",
                f"For example {key}=http://localhost:8000/v1, vLLM's own",
            )
        named = [name for name, _ in parse_qsl(address.partition("?")[2])] if address is not None else []
        secret = next((name for name in named if _SECRET.search(name)), None)
        if address is not None and (secret or "@" in address.split("://", 1)[1].split("/", 1)[0]):
            raise MinilimaError(
                f"{key} holds {secret or 'a user or a password'}.",
                "Addresses are written into files that you pass on.",
                "Put the secret into an environment variable and name it in api_key_env; give the address without it.",
            )


def _check_judge(judge: JudgeConfig) -> None:
    if judge.prompt not in _judge_prompts():
        raise _out_of_range("judge.prompt", judge.prompt, range_of("judge.prompt"))


def _check_sft(sft: SftConfig) -> None:
    if sft.method != Method.lora and (sft.lora_dora or sft.quantise):
        raise MinilimaError(
            f"sft.{'quantise' if sft.quantise else 'lora_dora'} needs adapters, and sft.method={sft.method} has none.",
            "DoRA is a kind of adapter; weights in 4 bits cannot be trained themselves.",
            "Choose sft=lora, or leave the setting out.",
        )
    if sft.final_learning_rate > sft.learning_rate:
        raise MinilimaError(
            f"sft.final_learning_rate={sft.final_learning_rate:g} is above sft.learning_rate={sft.learning_rate:g}.",
            "The rate falls from the one to the other.",
            "Give a smaller final rate, or sft.schedule=constant.",
        )
    if sft.weights == Rounding.stochastic and sft.method != Method.full:
        raise MinilimaError(
            "sft.weights=stochastic is for full fine-tuning.",
            "Adapters are small, so their float32 masters cost little.",
            "Leave it out with sft=lora.",
        )


def _check_compute(compute: ComputeConfig) -> None:
    least = {Offload.none: None, Offload.optimizer: 1, Offload.all: 3}[compute.offload]
    if least is not None and (compute.zero_stage is None or compute.zero_stage < least):
        raise MinilimaError(
            f"compute.offload={compute.offload} needs compute.zero_stage={least}{'' if least == 3 else ' or higher'}.",
            "DeepSpeed moves to the machine's memory only what it has divided.",
            "Choose compute=zero3_offload, or set the stage.",
        )


def range_of(name: str) -> str:
    """What a setting's values must be beyond its type, in words; empty where any value will do."""
    if name == "judge.prompt":
        return f"one of {options(_judge_prompts())}"
    return _NAME if name == "name" else settings()[name].valid.words


def _judge_prompts() -> list[str]:
    return [file.stem for file in _JUDGE_PROMPTS.glob("*.j2")]


def _out_of_range(name: str, value: object, valid: str) -> MinilimaError:
    return MinilimaError(f"{name}={value} is out of range.", f"It must be {valid}.", "Give another value for it.")
