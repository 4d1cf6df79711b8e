"""What values a setting can have beyond its type, and which settings do not go together; each refusal names what is valid."""

import operator
import re

from minilima.config.schema import ComputeConfig, Config, JudgeConfig, Method, Offload, SftConfig, Weights
from minilima.environment import PACKAGE
from minilima.errors import MinilimaError, options

_AT_LEAST_ONE = (
    "generator.endpoint.concurrency",
    "judge.endpoint.concurrency",
    "data.instructions",
    "data.demonstrations",
    "data.instructions_per_request",
    "data.requests_per_round",
    "data.max_rounds",
    "data.instruction_tokens",
    "data.instance_tokens",
    "data.instances_per_task",
    "data.topics",
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
    "eval.chunk_size",
)
_AT_LEAST_NOUGHT = (
    "data.machine_demonstrations",
    "data.instance_demonstrations",
    "data.min_output_words",
    "generator.temperature",
    "generator.endpoint.max_retries",
    "judge.endpoint.max_retries",
    "confirm_above_usd",
    *(f"{who}.endpoint.budget.{what}" for who in ("generator", "judge") for what in ("usd", "tokens", "requests")),
)
_OTHER_RANGES = {
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
    for key in _AT_LEAST_NOUGHT:
        value = operator.attrgetter(key)(config)
        if value is not None and value < 0:
            raise _out_of_range(key, value)
    if config.sft.learning_rate <= 0:
        raise _out_of_range("sft.learning_rate", config.sft.learning_rate)
    _check_addresses(config)
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


def _check_addresses(config: Config) -> None:
    settings = [(f"{who}.endpoint.base_url", getattr(config, who).endpoint.base_url) for who in ("generator", "judge")]
    settings += [("compute.served_at", address) for address in config.compute.served_at]
    for key, address in settings:
        if address is not None and not re.match(r"https?://[^/]", address):
            raise MinilimaError(
                f"{key}={address!r} is no address.",
                "It begins with http:// or https:// and a host.",
                f"For example {key}=http://localhost:8000/v1, vLLM's own",
            )


_JUDGE_PROMPTS = PACKAGE / "prompts" / "judge"


def _check_judge(judge: JudgeConfig) -> None:
    if judge.prompt not in _judge_prompts():
        raise _out_of_range("judge.prompt", judge.prompt)
    if judge.top_logprobs is not None and not 1 <= judge.top_logprobs <= 20:
        raise _out_of_range("judge.top_logprobs", judge.top_logprobs)


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
    if key in _AT_LEAST_NOUGHT:
        return "at least 0"
    return "at least 1" if key in _AT_LEAST_ONE else "between 0 and 1" if key in _SHARES else _OTHER_RANGES.get(key)


def _judge_prompts() -> list[str]:
    return [file.stem for file in _JUDGE_PROMPTS.glob("*.j2")]


def _out_of_range(key: str, value: object, valid: str | None = None) -> MinilimaError:
    return MinilimaError(f"{key}={value} is out of range.", f"It must be {valid or range_of(key)}.", "Give another value for it.")
