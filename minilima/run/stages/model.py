"""The tuned model: trained on the data set; with epoch.select=judge|dev_loss the weights of all epochs are a stage before it."""

import math
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from minilima.config.choices import Method, Pick, Until
from minilima.config.schema import Config, SftConfig
from minilima.console import count, say
from minilima.errors import MinilimaError
from minilima.formats.records import OnProgress
from minilima.run.dry_run import check_base
from minilima.run.resources import weights_bytes
from minilima.run.spec import Manifest, Manifests, Space, Spec, Work, work
from minilima.store.job import Job, Outcome
from minilima.store.sources import Sources

_ADDED_LATER = ("lora_dora", "weights")
"""Enter the key where they are not the default, so that models made before they existed are reused."""
_CHECKPOINT_TIMES = 7
"""A checkpoint of full fine-tuning beside the bfloat16 result: weights (2 bytes), float32 masters and two moments (12)."""


def recipe(config: Config, sources: Sources) -> dict[str, Any]:
    """What is learned, whichever epoch is chosen in the end."""
    default = SftConfig()
    sft = dict(vars(config.sft))
    sft |= {name: None for name in _ADDED_LATER if sft[name] == getattr(default, name)}
    if config.sft.method != Method.lora:
        sft = {name: value for name, value in sft.items() if not name.startswith("lora_")}
    return {"base": sources.base.recipe(), "seed": config.seed, "thinking": config.model.thinking, **sft}


def describe(config: Config, sources: Sources) -> str:
    """Method, epochs, steps and rate of the training."""
    sft, size = config.sft, config.dataset.size
    steps = f", {sft.epochs * math.ceil(size / sft.batch_size):,} steps" if size else ""
    return f"{sft.method} fine-tuning, {count(sft.epochs, 'epoch')}{steps} of {sft.batch_size}, rate {sft.learning_rate:g}"


def outcome(metrics: Mapping[str, Any]) -> str:
    """Steps and loss by epochs, and the epoch where one was chosen."""
    losses = metrics.get("epoch_losses", ())
    loss = f", mean loss {losses[0]:.2f}" if losses else ""
    if len(losses) > 1:
        loss += f" in the first epoch, {losses[-1]:.2f} in the last"
    untrained = metrics.get("examples_without_loss")
    lacking = f", {untrained:,} examples without a token to learn" if untrained else ""
    lacking += ", one example a row" if metrics.get("packed") is False else ""
    chosen = f", epoch {metrics['chosen_epoch']} of {metrics['epochs']} chosen" if "chosen_epoch" in metrics else ""
    return f"{metrics['steps']:,} steps{loss}{lacking}{chosen}"


def _build(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.train.sft import build_model

    return build_model(job, on_progress)


def _try_out(config: Config, sources: Sources) -> None:
    for note in check_base(config, sources):
        say(note)
    if config.sft.quantise and find_spec("bitsandbytes") is None:
        raise MinilimaError(
            "bitsandbytes is not installed.",
            f"sft.quantise={config.sft.quantise} keeps the frozen weights in its 4-bit form; nothing was started.",
            "Install it with: pip install 'minilima[qlora]', or choose sft=lora.",
        )


def planned_work(config: Config, sources: Sources, inputs: Manifests) -> Work | None:
    """Examples that pass through the model."""
    examples = inputs.get("dataset", {}).get("metrics", {}).get("examples", config.dataset.size)
    return work(config.sft.epochs * examples if examples else None, "model", sources.base.recipe(), config.sft.method)


def finished_work(manifest: Manifest, inputs: Manifests) -> Work | None:
    """Examples that passed through the model."""
    trained = manifest["recipe"]
    if "method" not in trained:
        return work(1, "choice")
    examples = inputs.get("dataset", {}).get("metrics", {}).get("examples")
    return work(trained["epochs"] * examples if examples else None, "model", trained["base"], trained["method"])


def _space(config: Config, sources: Sources, inputs: Mapping[str, str]) -> Space:
    weights = weights_bytes(sources.base)
    scratch = _CHECKPOINT_TIMES * weights if weights and config.sft.method == Method.full else None
    return Space(result=weights, scratch=scratch)


def _space_of_all(config: Config, sources: Sources, inputs: Mapping[str, str]) -> Space:
    one = _space(config, sources, inputs)
    return replace(one, result=one.result and one.result * config.sft.epochs)


MODEL = Spec(
    kind="model",
    stage="model",
    version=1,
    until=Until.model,
    recipe=recipe,
    describe=describe,
    outcome=outcome,
    build=_build,
    try_out=_try_out,
    planned_work=planned_work,
    finished_work=finished_work,
    space=_space,
    trains=True,
)
EPOCHS = replace(
    MODEL,
    kind="epochs",
    stage="epochs",
    applies=lambda config, sources: config.epoch.select != Pick.last,
    space=_space_of_all,
)
