"""What a run would do, before it does it: each stage, reused or built, and what stands in the way. Never imports torch.

python -m minilima plan +experiment=lima_1k
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minilima import console
from minilima.config import Config, DataKind, EndpointConfig, GeneratorKind, JudgeKind, Orders, Pick, Until
from minilima.construct.seeds import load_seeds
from minilima.errors import MinilimaError
from minilima.estimate import count_prompts
from minilima.evaluate.prompts import load_eval_set, read_references
from minilima.files import canonical_json, size_text
from minilima.filesystems import caveat
from minilima.foresight import ASSUMED_MFU, Foresight, device_here, foresee
from minilima.llm.engines import check_engine
from minilima.llm.keys import missing_key
from minilima.needs import Manifests, Needs, needs, read_manifests
from minilima.probing import disk
from minilima.recipes import Stages, stages
from minilima.sources import Sources, resolve
from minilima.store import Stage, Store
from minilima.train.preflight import Device

LOCALLY = "generator=local model=smollm2_135m eval_set=minilima_100 judge=reference"
"""The overrides with which any experiment runs without keys and without the hub."""

_WORTH_TELLING_BYTES = 1_000_000_000
_WORTH_TELLING_SECONDS = 180

_ASKED_BY = {"generator": "pool", "judge": "verdicts"}
"""The stage that asks an endpoint."""


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """One line of the plan. `status` is reuse, resume (an interrupted build was found) or build."""

    role: str
    status: str
    directory: str
    what: str
    needs: Needs = field(default_factory=Needs)
    """What building it will take; nothing where it is reused."""
    points: int = 1
    """How many points of a sweep it serves."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done. A stage stands in it once, however many points of a sweep it serves."""

    stages: tuple[PlannedStage, ...]
    notes: tuple[str, ...]
    memory: tuple[tuple[str, str], ...] = ()
    """Of a training that is to be done: (what for, GiB)."""

    @property
    def to_build(self) -> list[str]:
        return [stage.role for stage in self.stages if stage.status != "reuse"]

    @property
    def needs(self) -> Needs:
        """What all of it will take together."""
        return sum((stage.needs for stage in self.stages), Needs())


def make_plan(config: Config, sources: Sources, graph: Stages, store: Store) -> Plan:
    """What `run` would do, without doing it. Reads manifests only."""
    manifests = read_manifests(store.root)
    planned = [_planned(role, stage, config, sources, store, manifests) for role, stage in graph.until(config.until)]
    found = _foreseen(planned, config, sources, graph, store, device_here(config.compute))
    plan = _noted(planned, _notes(config, sources), store)
    return plan if found is None else replace(plan, notes=(*plan.notes, *found.notes), memory=found.memory)


def _foreseen(
    planned: list[PlannedStage], config: Config, sources: Sources, graph: Stages, store: Store, device: Device
) -> Foresight | None:
    """What the training among `planned` will take, if one is to be done; its line is given the figures."""
    trains = "epochs" if graph.epochs is not None else "model"
    place = next((place for place, stage in enumerate(planned) if stage.role == trains and stage.status != "reuse"), None)
    if place is None or (found := foresee(config, sources, graph, store, device)) is None:
        return None
    known = planned[place].needs
    # What was measured here goes before what follows from a formula.
    seconds = known.seconds if known.seconds is not None else found.seconds
    elsewhere = found.h100_seconds if seconds is None else None
    foreseen = replace(known, seconds=seconds, h100_seconds=elsewhere, memory_bytes=found.memory_bytes)
    planned[place] = replace(planned[place], needs=foreseen)
    return found


def make_sweep_plan(configs: Sequence[Config]) -> Plan:
    """The stages of all points, each once, in the order of the roles; the notes of all.

    Raises:
        MinilimaError: a source that a point names does not exist.
    """
    planned: dict[str, PlannedStage] = {}
    notes: dict[str, None] = {}
    manifests: dict[Path, Manifests] = {}
    devices: dict[str, Device] = {}
    for config in configs:
        sources = resolve(config)
        store = Store(Path(config.paths.outputs) / "store")
        if store.root not in manifests:
            manifests[store.root] = read_manifests(store.root)
        graph, new = stages(config, sources), []
        for role, stage in graph.until(config.until):
            if stage.directory in planned:
                found = planned[stage.directory]
                planned[stage.directory] = replace(found, points=found.points + 1)
            else:
                new.append(_planned(role, stage, config, sources, store, manifests[store.root]))
        how = canonical_json(vars(config.compute))
        if how not in devices:
            devices[how] = device_here(config.compute)  # asks nvidia-smi
        trained = _foreseen(new, config, sources, graph, store, devices[how])
        if trained is not None and trained.fits is False:
            notes[trained.notes[0]] = None
        planned.update({stage.directory: stage for stage in new})
        notes.update(dict.fromkeys(_notes(config, sources)))
    order = {role: place for place, role in enumerate(dict.fromkeys(stage.role for stage in planned.values()))}
    return _noted(sorted(planned.values(), key=lambda stage: order[stage.role]), list(notes), store)


def _planned(role: str, stage: Stage, config: Config, sources: Sources, store: Store, manifests: Manifests) -> PlannedStage:
    work = store.work(stage)
    interrupted = work.is_dir() and any(work.iterdir())
    status = "reuse" if store.find(stage) else "resume" if interrupted else "build"
    inputs = {name: source.directory for name, source in stage.inputs.items()}
    return PlannedStage(
        role=role,
        status=status,
        directory=stage.directory,
        what=describe_stage(role, config, sources),
        needs=Needs() if status == "reuse" else needs(role, config, sources, manifests, inputs),
    )


def _noted(planned: Sequence[PlannedStage], notes: Sequence[str], store: Store) -> Plan:
    """The plan with what is to be known about its figures."""
    plan = Plan(stages=tuple(planned), notes=tuple(notes))
    total, added = plan.needs, []
    if total.seconds is not None:
        added.append("Times are those of earlier builds on this machine, for the amount of work; what was never built has none.")
    if (total.h100_seconds or 0) > _WORTH_TELLING_SECONDS:
        hours = (total.h100_seconds or 0) / 3600
        added.append(f"Training alone would take one H100 about {hours:,.1f} hours, at {ASSUMED_MFU:.0%} of its nominal speed.")
    if total.scratch_bytes and total.scratch_bytes > _WORTH_TELLING_BYTES:
        added.append(f"While a model is trained, a checkpoint takes up to {size_text(total.scratch_bytes)} more of the disk.")
    wanted = (total.disk_bytes or 0) + (total.scratch_bytes or 0)
    place, free, _ = disk(store.root)
    if wanted > free:
        added.append(f"Up to {size_text(wanted)} of disk may be needed; {place} has {size_text(free)} free.")
    return replace(plan, notes=(*plan.notes, *added))


def confirm_spending(plan: Plan, limit_usd: float | None) -> None:
    """Asks before a plan is carried out that may cost more than `limit_usd` (None: never); raises as `confirm_usd`."""
    confirm_usd(plan.needs.usd, limit_usd)


def confirm_usd(usd: float | None, limit_usd: float | None) -> None:
    """Asks before more than `limit_usd` may be spent (None: never).

    Raises:
        MinilimaError: the answer is no, or there is nobody to ask.
    """
    if limit_usd is None or usd is None or usd <= limit_usd:
        return
    answer = console.confirm(f"This may cost about {usd:,.2f} USD (more than confirm_above_usd={limit_usd:g}). Go on?")
    if answer:
        return
    raise MinilimaError(
        f"Nothing was started: about {usd:,.2f} USD is more than confirm_above_usd={limit_usd:g}."
        if answer is None
        else "Nothing was started.",
        "There is no terminal to ask at." if answer is None else "You said no.",
        "Add --yes to go on without being asked, or set confirm_above_usd; an endpoint's budget.usd is a cap that holds.",
    )


def check_ready(config: Config, sources: Sources, graph: Stages, store: Store) -> None:
    """Stops before anything is spent where a key or something on the hub is missing, or an input cannot be read.

    Raises:
        MinilimaError: names what is missing and the overrides that run the experiment locally, or the mistake.
    """
    missing_stages = {role for role, stage in graph.until(config.until) if store.find(stage) is None}
    used = endpoints_of(config, sources)
    asked = {_ASKED_BY[role]: endpoint for role, (endpoint, _) in used.items()}
    if config.sft.select == Pick.judge and "judge" in used:
        asked["model"] = used["judge"][0]
    lacking = sorted({found.api_key_env for role, found in asked.items() if role in missing_stages and missing_key(found)})
    if lacking:
        raise MinilimaError(
            f"No API key: {' and '.join('$' + name for name in lacking)} is not set.",
            "The generator or the judge of this experiment is a model behind an API; nothing was sent.",
            f"Set it (export {lacking[0]}=…), or run it on this machine with: {LOCALLY}",
        )
    for role, (_, model) in endpoints_of(config, sources).items():
        if not model and _ASKED_BY[role] in missing_stages and not sources.annotators_ask_openai:
            raise MinilimaError(f"{role}.model is not set.", "The endpoint has to be told which model.", f"Add {role}.model=…")
    if missing_stages:
        check_engine(config)
    if config.sft.quantise and find_spec("bitsandbytes") is None and missing_stages & {"epochs", "model"}:
        raise MinilimaError(
            "bitsandbytes is not installed.",
            f"sft.quantise={config.sft.quantise} keeps the frozen weights in its 4-bit form; nothing was started.",
            "Install it with: pip install 'minilima[qlora]', or choose sft=lora.",
        )
    if missing_stages and not sources.missing():
        _read_inputs(config, sources)
    if missing_stages and sources.missing():
        raise MinilimaError(
            f"Not on this machine: {'; '.join(sources.missing())}.",
            "The hub could not be reached, or HF_HUB_OFFLINE is set; nothing was started.",
            f"Fetch it with `hf download` where there is a network (HF_ENDPOINT names a mirror), or run locally with: {LOCALLY}",
        )


def check_still_there(shown: Plan, now: Plan) -> None:
    """Stops where something that the plan said would be reused was removed before the run could reserve it.

    Raises:
        MinilimaError: the run would build, and perhaps pay for, more than was shown.
    """
    if gone := sorted(set(now.to_build) - set(shown.to_build)):
        raise MinilimaError(
            f"No longer in the store: {', '.join(gone)}.",
            "Something was removed after the plan was shown; nothing was started.",
            "Run the same command again, it shows what is to be built now.",
        )


def _read_inputs(config: Config, sources: Sources) -> None:
    """Reads the seed tasks and the evaluation set, so that a mistake in them is found before anything is spent."""
    if sources.seeds is not None and sources.seeds.path is not None:
        load_seeds(sources.seeds.path)
    prompts = load_eval_set(sources.eval_set, config.eval_set.size)
    if sources.reference is not None:
        read_references(sources.reference, prompts)
    if sources.dev_set is not None:
        load_eval_set(sources.dev_set, None)


def endpoints_of(config: Config, sources: Sources) -> dict[str, tuple[EndpointConfig, str | None]]:
    """The endpoints that this experiment asks, with the model's name there: of `generator`, of `judge`."""
    used: dict[str, tuple[EndpointConfig, str | None]] = {}
    if config.data.kind != DataKind.file and config.generator.kind == GeneratorKind.openai:
        used["generator"] = (config.generator.endpoint, config.generator.model)
    if config.judge.kind == JudgeKind.openai or sources.annotators_ask_openai:
        used["judge"] = (config.judge.endpoint, config.judge.model)
    return used


def _notes(config: Config, sources: Sources) -> list[str]:
    notes = []
    if sources.missing():
        notes.append(f"Keys are provisional, not on this machine: {'; '.join(sources.missing())}.")
    if shared := caveat(Path(config.paths.outputs)):
        notes.append(shared)
    judge = config.judge
    if (
        "judge" in endpoints_of(config, sources)
        and count_prompts(sources.eval_set, None) is None
        and config.until in (Until.verdicts, Until.report)
    ):
        notes.append("What the judge will cost is not in the sum: how many prompts there are is not known here.")
    if judge.kind == JudgeKind.local and judge.model is None and config.model.embedded == "smollm2_135m":
        notes.append(
            "SmolLM2-135M as a judge is at chance (52 % ± 6 agreement with people); use judge=reference or a larger model."
        )
    return notes


def describe_stage(role: str, config: Config, sources: Sources) -> str:
    """What a stage will do, in a few words."""
    data, sft, judge = config.data, config.sft, config.judge
    if role == "base":
        return f"{config.model.embedded} from the package index, converted to safetensors"
    if role == "pool":
        told = sources.data.name if sources.data else sources.seeds.name if sources.seeds else "nothing"
        if data.kind == DataKind.file:
            return f"rows of {told}"
        writer = config.generator.model or ("the base model" if config.generator.kind == GeneratorKind.local else "?")
        if data.kind == DataKind.answers:
            return f"answers to the tasks of {told}, written by {writer}"
        how = "" if data.kind == DataKind.self_instruct else f" ({data.kind})"
        return f"{data.instructions:,} instructions and instances, written by {writer} from {told}{how}"
    if role == "dataset":
        size = f"{data.size:,} examples" if data.size else "all examples that pass the filters"
        return size + (", seeds among them" if data.include_seeds else "")
    if role == "model" and sources.dev_set is not None:
        how = f"judge {judge.kind} prefers" if sft.select == Pick.judge else "has the lowest loss"
        return f"the epoch, of {sft.epochs}, that {how} on {sources.dev_set.name}"
    if role in ("model", "epochs"):
        steps = f", {sft.epochs * math.ceil(data.size / sft.batch_size):,} steps" if data.size else ""
        return f"{sft.method} fine-tuning, {count(sft.epochs, 'epoch')}{steps} of {sft.batch_size}, rate {sft.learning_rate:g}"
    if role == "reference_answers" and sources.reference is not None:
        return f"the answers in {sources.reference.name}, and the base model's loss on those of {sources.eval_set.name}"
    if role in ("answers", "reference_answers"):
        who = "tuned" if role == "answers" else "base"
        prompts = f"the first {config.eval_set.size} of " if config.eval_set.size else ""
        return f"the {who} model on {prompts}{sources.eval_set.name}, up to {config.eval.max_tokens:,} tokens each"
    asked = {Orders.both: "both orders", Orders.random: "one random order"}[judge.orders]
    orders = {JudgeKind.reference: "symmetric", JudgeKind.alpaca_eval: "one random order"}.get(judge.kind, asked)
    kind = f"{judge.kind}'s {judge.annotators_config}" if judge.kind == JudgeKind.alpaca_eval else judge.kind
    return f"judge {kind}{f' ({judge.model})' if judge.model else ''}, {orders}"


def describe_outcome(role: str, metrics: dict[str, Any]) -> str:
    """What came out of a stage, in a few words."""
    if role == "base":
        return f"{metrics['parameters'] / 1e6:.0f} M parameters"
    if role == "pool":
        rejected = f", {metrics['rejected']:,} rejected" if metrics.get("rejected") else ""
        return (f"{metrics['tasks']:,} machine-written tasks" if "tasks" in metrics else f"{metrics['rows']:,} rows") + rejected
    if role == "dataset":
        return f"{metrics['examples']:,} examples ({metrics['seed']:,} seeds, {metrics['examples'] - metrics['seed']:,} other)"
    if role in ("model", "epochs"):
        chosen = f", epoch {metrics['chosen_epoch']} of {metrics['epochs']} chosen" if "chosen_epoch" in metrics else ""
        return f"{metrics['steps']:,} steps, loss {metrics['first_loss']:.2f} to {metrics['last_loss']:.2f}{chosen}"
    if role in ("answers", "reference_answers"):
        return f"{metrics['answers']:,} answers, {metrics['mean_words']:.0f} words each, {metrics['truncated']:,} cut"
    counts = f"{metrics['wins']} won, {metrics['losses']} lost, {metrics['ties']} tied"
    return f"{metrics['judged']:,} of {metrics['prompts']:,} judged: {counts}"


def count(number: int, noun: str) -> str:
    """`1 stage`, `2 stages`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
