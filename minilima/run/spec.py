"""What the pipeline has to know of a stage before it runs: one frozen value of functions, and no base class.

    run/stages/<stage>.py ─> Spec ─> graph (recipe), plan (describe, requests, work, space), preflight (check), launch, worker
Each stage writes its own in a module of run/stages/; nothing else asks which stage it deals with. Never imports torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minilima.config.choices import Until
from minilima.config.schema import Config
from minilima.formats.files import canonical_json
from minilima.formats.records import OnProgress
from minilima.run.requests import Requests
from minilima.store.job import Job, Outcome
from minilima.store.sources import Sources

Manifest = Mapping[str, Any]
Manifests = Mapping[str, Manifest]
"""Manifests by the directory of their entry, or by the name of an input."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What kind of work it is, and how much: builds of one kind take about as long for each unit."""

    kind: str
    units: float


@dataclass(frozen=True, kw_only=True)
class Space:
    """Bytes on the disk: of the result, and beside it while it is built."""

    result: int | None = None
    scratch: int | None = None


def work(units: float | None, *kind: Any) -> Work | None:
    """So many units of a kind of work; None where the number is not known."""
    return Work(kind=canonical_json(kind), units=units) if units else None


def _always(config: Config, sources: Sources) -> bool:
    return True


def _nothing(config: Config, sources: Sources) -> None:
    return None


def _no_warnings(config: Config, sources: Sources) -> tuple[str, ...]:
    return ()


def _accepted(manifest: Manifest, others: Callable[[], Manifests]) -> None:
    return None


def _no_space(config: Config, sources: Sources, inputs: Mapping[str, str]) -> Space:
    return Space()


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One kind of stage. `kind` names it in a job, `stage` in the store; a `version` is raised by hand when a stage's code or
    prompts change what it makes."""

    kind: str
    stage: str
    version: int
    until: Until | None
    """The first `until=` that includes it; None for what is built only where a stage needs it."""
    recipe: Callable[[Config, Sources], dict[str, Any]]
    """All that can change the result and is no input; it enters the key."""
    describe: Callable[[Config, Sources], str]
    """What it will do, in a few words."""
    outcome: Callable[[Mapping[str, Any]], str]
    """What came out, in a few words, from the metrics of its manifest."""
    build: Callable[[Job, OnProgress], Outcome]
    """Imports its builder inside, so that a worker loads only what it needs."""
    role: str = ""
    """Its role in an experiment; empty = its kind."""
    applies: Callable[[Config, Sources], bool] = _always
    """Whether the experiment has this stage."""
    check: Callable[[Config, Sources], None] = _nothing
    """Reads the inputs that are at hand; raises a MinilimaError where the stage, which is to be built, cannot succeed with them:
    before a plan is shown, and before anything is spent."""
    try_out: Callable[[Config, Sources], None] = _nothing
    """The same for what takes longer or asks this machine: before a run alone."""
    warnings: Callable[[Config, Sources], tuple[str, ...]] = _no_warnings
    """What its inputs have less of than was asked for, a sentence each."""
    accept: Callable[[Manifest, Callable[[], Manifests]], None] = _accepted
    """Raises a MinilimaError where a finished result is of no use; the second argument reads what else the store has."""
    examples: Callable[[Config, Sources], int | None] = _nothing
    """How many examples, prompts or pairs it makes at most; None where that is not known before."""
    counted: tuple[str, ...] = ()
    """The metrics that say how many it has made; the first of them that there is."""
    asks: Callable[[Config, Sources], str | None] = _nothing
    """The endpoint that is asked: generator, judge, or None."""
    files: tuple[str, ...] = ()
    """The source files that it is made from; not those that it only compares its rows with."""
    requests: Callable[[Config, Sources], Requests | None] = _nothing
    """What it will ask of the endpoint, by guess; None where it asks none or there is nothing to guess from."""
    planned_work: Callable[[Config, Sources, Manifests], Work | None]
    """The work ahead, given the manifests of the inputs that are built."""
    finished_work: Callable[[Manifest, Manifests], Work | None]
    """The work that a manifest is the result of, given those of its inputs."""
    space: Callable[[Config, Sources, Mapping[str, str]], Space] = _no_space
    """What it takes on the disk, given the directories of its inputs."""
    uses_gpu: Callable[[Config, Sources], bool] = _always
    converts: bool = False
    """Whether it computes on the CPU alone, with the libraries of one that uses a GPU."""
    trains: bool = False
    """Whether several processes may work on it together, as torchrun starts them."""

    @property
    def name(self) -> str:
        return self.role or self.kind

    def imports_torch(self, config: Config, sources: Sources) -> bool:
        """Whether its builder does."""
        return self.converts or self.uses_gpu(config, sources)
