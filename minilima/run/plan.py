"""What a run would do, before it does it: each stage, reused or built, and what blocks it. Never imports torch.

minilima plan +experiment=lima_1k
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from minilima.config.choices import BEGINS_WITH_TASKS, DataKind, DeviceKind, Engine, JudgeKind, Until
from minilima.config.schema import Config
from minilima.environment import caveat, disk
from minilima.errors import MinilimaError
from minilima.formats.alpaca_judges import RETIRED
from minilima.formats.files import DATA, canonical_json, size_text
from minilima.formats.unread import unused_by_examples, unused_by_prompts, unused_by_tasks
from minilima.generate.import_pool import layout_of, reading
from minilima.models.budget import shutdown_note
from minilima.models.engines import explain_choice
from minilima.run.endpoints import endpoints_of
from minilima.run.gpus import may_have_gpu
from minilima.run.graph import Graph, Node
from minilima.run.requests import count_prompts
from minilima.run.resources import Resources
from minilima.run.spec import Manifests
from minilima.run.speed import Speeds, known_speeds, needs, read_manifests
from minilima.run.training_estimate import TrainingEstimate, device_here, estimate_training
from minilima.store.entries import Store
from minilima.store.sources import Sources
from minilima.train.memory import Device

_WORTH_TELLING_BYTES = 1_000_000_000
_WORTH_TELLING_SECONDS = 180


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """One line of the plan. `status` is reuse, resume (an interrupted build exists) or build."""

    role: str
    status: str
    directory: str
    what: str
    needs: Resources = field(default_factory=Resources)
    """What building it will take; nothing where it is reused."""
    trains: bool = False
    """Whether it is a training, which is foreseen in more detail."""
    examples: int | None = None
    """Examples, prompts or pairs that it makes at most; of a finished one, those that it has."""
    points: int = 1
    """How many points of a sweep it serves."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done. A stage stands in it once, however many points of a sweep it serves."""

    stages: tuple[PlannedStage, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """What is less than was asked for, or in the way of a run on this machine."""
    memory: tuple[tuple[str, str], ...] = ()
    """Of a training that is to be done: (what for, GiB)."""

    @property
    def to_build(self) -> list[str]:
        return [stage.role for stage in self.stages if stage.status != "reuse"]

    @property
    def needs(self) -> Resources:
        """What all of it will take together."""
        return sum((stage.needs for stage in self.stages), Resources())

    def here(self, store: str | None, obstacles: Sequence[str]) -> "Plan":
        """The plan with what is to be known about where results lie, first, and about this machine, last."""
        notes = self.notes if store is None else (store, *self.notes)
        return replace(self, notes=notes, warnings=(*self.warnings, *obstacles))


def make_plan(config: Config, sources: Sources, graph: Graph, store: Store) -> Plan:
    """What `run` would do, without doing it. Reads manifests only."""
    manifests, device = read_manifests(store.root), device_here(config.compute)
    known = known_speeds(device)
    planned = [_planned(node, store, manifests, known) for node in graph.until(config.until)]
    estimate = _foreseen(planned, config, sources, graph, store, device)
    plan = _noted(planned, _all_notes(config, sources, graph), _warnings(graph, config, store), store)
    return plan if estimate is None else replace(plan, notes=(*plan.notes, *estimate.notes), memory=estimate.memory)


def _foreseen(
    planned: list[PlannedStage], config: Config, sources: Sources, graph: Graph, store: Store, device: Device
) -> TrainingEstimate | None:
    """What the training among `planned` will take, if one is to be done; its line is given the figures."""
    index = next((index for index, stage in enumerate(planned) if stage.trains and stage.status != "reuse"), None)
    if index is None or (estimate := estimate_training(config, sources, graph, store, device)) is None:
        return None
    known = planned[index].needs
    # What was measured here goes before what follows from a formula.
    seconds = known.seconds if known.seconds is not None else estimate.seconds
    elsewhere = estimate.h100_seconds if seconds is None else None
    foreseen = replace(known, seconds=seconds, h100_seconds=elsewhere, memory_bytes=estimate.memory_bytes)
    planned[index] = replace(planned[index], needs=foreseen)
    return estimate


def make_sweep_plan(points: Sequence[tuple[Config, Sources, Graph]]) -> Plan:
    """The stages of all points, each once, in the order of the roles; the notes of all."""
    planned: dict[str, PlannedStage] = {}
    notes: dict[str, None] = {}
    warnings: dict[str, None] = {}
    manifests: dict[Path, Manifests] = {}
    devices: dict[str, Device] = {}
    for config, sources, graph in points:
        store = Store(Path(config.paths.outputs) / "store")
        if store.root not in manifests:
            manifests[store.root] = read_manifests(store.root)
        how = canonical_json(vars(config.compute))
        if how not in devices:
            devices[how] = device_here(config.compute)  # asks nvidia-smi
        known = known_speeds(devices[how])
        new = []
        for node in graph.until(config.until):
            if (shared := planned.get(node.stage.directory)) is not None:
                planned[shared.directory] = replace(shared, points=shared.points + 1)
            else:
                new.append(_planned(node, store, manifests[store.root], known))
        trained = _foreseen(new, config, sources, graph, store, devices[how])
        if trained is not None and trained.fits is False:
            notes[trained.notes[0]] = None
        planned.update({stage.directory: stage for stage in new})
        notes.update(dict.fromkeys(_all_notes(config, sources, graph)))
        warnings.update(dict.fromkeys(_warnings(graph, config, store)))
    order = {role: index for index, role in enumerate(dict.fromkeys(stage.role for stage in planned.values()))}
    return _noted(sorted(planned.values(), key=lambda stage: order[stage.role]), list(notes), list(warnings), store)


def _planned(node: Node, store: Store, manifests: Manifests, known: Speeds) -> PlannedStage:
    stage = node.stage
    work = store.work(stage)
    interrupted = work.is_dir() and any(work.iterdir())
    status = "reuse" if store.find(stage) else "resume" if interrupted else "build"
    return PlannedStage(
        role=node.role,
        status=status,
        directory=stage.directory,
        what=node.spec.describe(node.config, node.sources),
        needs=Resources() if status == "reuse" else needs(node, manifests, known),
        trains=node.spec.trains,
        examples=_examples(node, manifests),
    )


def _examples(node: Node, manifests: Manifests) -> int | None:
    """Those that a finished stage has made, or the most that it can make."""
    if (manifest := manifests.get(node.stage.directory)) is None:
        return node.spec.examples(node.config, node.sources)
    return next((manifest["metrics"][name] for name in node.spec.counted if name in manifest["metrics"]), None)


def _warnings(graph: Graph, config: Config, store: Store) -> list[str]:
    """What the stages to be built have less of than was asked for, each once."""
    missing = [node for node in graph.until(config.until) if store.find(node.stage) is None]
    return list(dict.fromkeys(warning for node in missing for warning in node.spec.warnings(node.config, node.sources)))


def _noted(planned: Sequence[PlannedStage], notes: Sequence[str], warnings: Sequence[str], store: Store) -> Plan:
    """The plan with what is to be known about its figures."""
    plan = Plan(stages=tuple(planned), notes=tuple(notes), warnings=tuple(warnings))
    total, added = plan.needs, []
    added += _of_times(plan)
    if (total.h100_seconds or 0) > _WORTH_TELLING_SECONDS:
        hours = (total.h100_seconds or 0) / 3600
        added.append(f"Training alone would take one H100 about {hours:,.1f} hours.")
    if total.scratch_bytes and total.scratch_bytes > _WORTH_TELLING_BYTES:
        added.append(f"While a model is trained, a checkpoint takes up to {size_text(total.scratch_bytes)} more of the disk.")
    wanted = (total.disk_bytes or 0) + (total.scratch_bytes or 0)
    folder, free, _ = disk(store.root)
    if wanted > free:
        added.append(f"Up to {size_text(wanted)} of disk may be needed; {folder} has {size_text(free)} free.")
    return replace(plan, notes=(*plan.notes, *added))


def _of_times(plan: Plan) -> list[str]:
    """What the estimated times rest on, and which stages have none."""
    ahead = [stage for stage in plan.stages if stage.status != "reuse"]
    unknown = list(dict.fromkeys(stage.role for stage in ahead if stage.needs.seconds is None))
    machine, notes = plan.needs.measured_on, []
    if len(unknown) < len({stage.role for stage in ahead}):
        notes.append("Times are estimates by earlier builds on this machine, or by the GPU's nominal speed.")
    if machine is not None:
        notes = [f"Times of what was never built here are those of {machine}; another machine may take several times as long."]
    if unknown:
        notes.append(f"No time is known for {', '.join(unknown)}: nothing of the kind was built on this machine.")
    return notes


def _all_notes(config: Config, sources: Sources, graph: Graph) -> list[str]:
    """The notes of the experiment, and of each of its further judges and evaluation sets."""
    views = {id(node.config): (node.config, node.sources) for node in graph.nodes if node is not None}
    every = [(config, sources), *(view for view in views.values() if view[0] is not config)]
    return list(dict.fromkeys(note for view in every for note in _notes(*view)))


def _unused_columns(config: Config, sources: Sources) -> list[str]:
    """The columns of the user's files that nothing is made of; of none where a file cannot be read, which its check says."""
    named: list[tuple[str, list[str]]] = []
    data, how = sources.data, reading(config.data)
    with suppress(MinilimaError):
        if data is not None and data.path is not None and config.data.kind != DataKind.backtranslate:
            if config.data.kind in BEGINS_WITH_TASKS:
                named.append((data.name, unused_by_tasks(data.path, how)))
            else:
                named.append((data.name, unused_by_examples(data.path, layout_of(data), how)))
    with suppress(MinilimaError):
        if sources.eval_set.path is not None and sources.eval_set.path.parent != DATA:
            named.append((sources.eval_set.name, unused_by_prompts(sources.eval_set.path)))
    return [f"Columns of {name} that are not used: {', '.join(unused)}." for name, unused in named if unused]


def _engine_note(config: Config, sources: Sources) -> str | None:
    """Which engine answers the evaluation prompts, and why, where there is a choice."""
    compute, number = config.compute, count_prompts(sources.eval_set, config.eval_set.size)
    open_to_choice = compute.engine == Engine.auto and not compute.served_at and compute.device != DeviceKind.cpu
    if not (open_to_choice and number and find_spec("vllm") is not None and may_have_gpu()):
        return None
    return explain_choice(number * config.eval.max_tokens)


def _notes(config: Config, sources: Sources) -> list[str]:
    notes = []
    if chosen := _engine_note(config, sources):
        notes.append(chosen)
    if sources.missing():
        unresolved = "; ".join(sources.missing())
        notes.append(f"These inputs could not be resolved here, so the store keys are provisional: {unresolved}.")
    if shared := caveat(Path(config.paths.outputs)):
        notes.append(shared)
    notes += _unused_columns(config, sources)
    judge = config.judge
    if (
        "judge" in endpoints_of(config, sources)
        and count_prompts(sources.eval_set, None) is None
        and config.until in (Until.verdicts, Until.report)
    ):
        notes.append("What the judge will cost is not in the sum: how many prompts there are is not known here.")
    for who, (endpoint, model) in endpoints_of(config, sources).items():
        if endpoint.base_url is None and model in RETIRED:
            notes.append(f"OpenAI has retired {model}: requests for it fail. Name another with {who}.model=…")
        elif (ending := shutdown_note(model, endpoint)) is not None:
            notes.append(f"{ending} Its replies are kept; what is asked later needs another {who}.model=…")
    if judge.kind == JudgeKind.local and (sources.judge or sources.base).location == "smollm2_135m":
        notes.append(
            "SmolLM2-135M as a judge is at chance (52 % ± 6 agreement with people); use judge=reference or a larger model."
        )
    return notes
