"""The model card: README.md of an exported model, from the manifests of its run. Pure.

Names, commands and settings are other people's text: they go through `code`, as in the data card.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from minilima.console import duration
from minilima.environment import PACKAGE
from minilima.evaluate.benchmark_scores import BenchmarkChange
from minilima.models.packaged import PACKAGED
from minilima.report.dataset_card import Origin, code, yaml_text
from minilima.report.runs import Cost, stage_cost

_RECIPE = (
    "method", "epochs", "batch_size", "learning_rate", "final_learning_rate", "schedule", "warmup_ratio", "weight_decay",
    "max_tokens", "train_on_prompt", "residual_dropout", "lora_rank", "lora_alpha", "lora_dropout", "lora_dora", "quantise",
    "weights", "seed",
)  # fmt: skip


_OF_THE_AUTHOR = ("paths.", "tracking")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model's card is made from."""

    name: str
    base_hub: str
    """What the base model is called on the hub; empty where it is a folder of the author's."""
    packaged: bool
    """Whether it was trained as it comes in packages, which is quantised."""
    base_name: str
    base_revision: str
    """The commit on the hub; empty where it is not from there."""
    licence: str
    """Of the base model, as it states it; empty = not known here."""
    adapter: bool
    """Whether the folder holds adapters alone."""
    manifests: Mapping[str, Mapping[str, Any]]
    """Of the run's stages, by role."""
    results: Mapping[str, Any] | None
    """Of run.json; None where the run stopped before its verdicts."""
    benchmarks: Sequence[BenchmarkChange]
    judge: str
    """What is known of the judge, in a sentence."""
    judge_name: str
    origin: Origin | None
    """Who wrote the rows; None where nothing in the store says so."""
    made_by: str
    """The method of construction, and the seed tasks."""
    data_set: str | None
    """The data set's name on the hub."""
    sampling: Mapping[str, Any]
    """How answers were sampled in the evaluation."""
    command: str
    context: int | None
    """Tokens."""
    repository: str | None
    """What the model is called on the hub; None where it is not uploaded."""


def model_card(facts: ModelFacts) -> str:
    """The card as Markdown with a YAML header."""
    # Markdown, not HTML: what is not ours goes through `code`.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(PACKAGE / "report" / "page"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"code": code, "yaml": yaml_text, "duration": duration}
    model = facts.manifests["model"]
    dataset = facts.manifests.get("dataset", {})
    text = environment.get_template("model_card.md.j2").render(
        facts=facts,
        entry=f"{model['stage']}-{model['key']}",
        dataset_entry=f"{dataset['stage']}-{dataset['key']}" if dataset else "",
        examples=dataset.get("metrics", {}).get("examples"),
        seed_tasks=dataset.get("metrics", {}).get("seed"),
        recipe={name: value for name in _RECIPE if (value := model["recipe"].get(name)) is not None},
        metrics=model["metrics"],
        made=model["created_at"][:10],
        version=model["packages"].get("minilima", "unknown"),
        packages={name: model["packages"][name] for name in ("torch", "transformers", "peft") if name in model["packages"]},
        seconds=model["seconds"],
        costs=_costs(facts.manifests),
        command=_portable(facts.command),
        figures=_figures(facts.results),
        benchmarks=[_benchmark(change) for change in facts.benchmarks],
        decontaminated=dataset.get("recipe", {}).get("decontaminate"),
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _portable(command: str) -> str:
    """The command without what says more about its owner than about the model: the interpreter's path, and where results go."""
    words = shlex.split(re.sub(r"^\S*/(?=\S)", "", command))
    return shlex.join(word for word in words if not word.lstrip("+").startswith(_OF_THE_AUTHOR))


def _costs(manifests: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Stage, time, tokens and price of each, and of all together."""
    by_role = {role: stage_cost(manifest) for role, manifest in manifests.items()}
    rows = [*by_role.items(), ("in all", sum(by_role.values(), start=Cost()))]
    return [
        (role, duration(cost.seconds), f"{cost.tokens:,}", "not known" if cost.usd is None else f"{cost.usd:,.2f}")
        for role, cost in rows
    ]


def _figures(results: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The evaluation as lines of a table, each figure with its 95 % interval."""
    if not results:
        return []
    rows, other = [], results.get("against") or "its base"
    coverage = results["coverage"]
    if rate := results.get("win_rate"):
        counts = f"{rate['wins']} won, {rate['losses']} lost, {rate['ties']} tied"
        rows.append((f"win rate against {other}, %", f"{_interval(rate['win_rate'], '.1f')}; {counts}"))
    if (controlled := results.get("length_controlled") or {}) and "value" in controlled:
        rows.append(("length-controlled win rate, %", _interval(controlled["interval"] or controlled, ".1f")))
    if paired := results.get("paired"):
        rows.append(
            ("difference from 50 %, points", f"{_interval(paired['difference'], '+.1f')}; p = {paired['p_bootstrap']:.3g}")
        )
    if loss := results.get("loss_change"):
        rows.append(
            ("loss on the reference answers, nats per token (no judge involved)",
             f"{loss['base']:.3f} to {loss['tuned']:.3f}, change {_interval(loss['change'], '+.3f')}")
        )  # fmt: skip
    rows.append(("prompts judged", f"{coverage['judged']:,} of {coverage['prompts']:,}"))
    return rows


def _benchmark(change: BenchmarkChange) -> tuple[str, str, str, str, str]:
    """Task, figure, base, tuned and their paired difference with its interval."""
    base, tuned = f"{change.base.value:.1f}", f"{change.tuned.value:.1f}"
    return change.task, change.figure, base, tuned, change.paired.difference.text("+.1f", brief=True)


def _interval(estimate: Mapping[str, float], form: str) -> str:
    value = f"{estimate['value']:{form}}"
    return f"{value} ({estimate['low']:{form}} to {estimate['high']:{form}})" if "low" in estimate else value


def made_by(settings: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> str:
    """The method by which the data were made, and the seed tasks that it began with."""
    seeds = next((f" from the seed tasks {item['name']}" for item in sources if item["what"] == "seeds"), "")
    return f"data={settings.get('data.kind')}{seeds}"


def origin_of(settings: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], base: str, licence: str) -> Origin:
    """Who wrote the rows that the model was trained on, by the settings and the source files of its run; `licence` is the base
    model's, empty = not known here."""
    if settings.get("data.kind") == "file":
        file = next((item for item in sources if item["what"] == "data"), None)
        name = (
            f"{file['name']} (sha256 {file['sha256']})"
            if file
            else str(settings.get("data.path") or settings.get("data.hub_file"))
        )
        return Origin(
            what="imported from",
            name=name,
            terms="the licence of the imported file holds, and the terms of any model that wrote it.",
        )
    if settings.get("generator.kind") in ("openai", "vllm") and settings.get("generator.model"):
        return Origin(
            what="written, except for the seed tasks, over an API by",
            name=str(settings["generator.model"]),
            terms="the provider's terms may limit what its output may be used for, for example to train other models. "
            "Read them before you pass this on.",
        )
    own = settings.get("generator.model") or base
    if named := settings.get("generator.model"):
        licence = PACKAGED[named].licence if named in PACKAGED else ""
    known = f"that model's licence is {licence}." if licence else ""
    return Origin(
        what="written, except for the seed tasks, on the author's machine by",
        # A folder's full path says more about its owner than about the model.
        name=str(own).rstrip("/").rpartition("/")[2] if str(own).startswith(("/", "~", ".")) else str(own),
        terms=known or "that model's licence may set conditions for what it writes. Read it before you pass this on.",
    )
