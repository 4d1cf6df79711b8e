"""One point of the study: what one types to run it, and its stages built in this process, under the keys of `minilima`.

settings ─> experiment ─> get: a stage out of the store, or built after its inputs ─> weights removed when the point is done
"""

import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from minilima.config.compose import load_config
from minilima.config.schema import Config
from minilima.models.database import cache_file
from minilima.pipeline import stages
from minilima.run.graph import Graph, Node
from minilima.run.sources import resolve
from minilima.store.entries import Artifact, Store
from minilima.store.job import Job, Outcome
from minilima.store.sources import Sources

Overrides = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One point: what one types to run it, settings, sources and stages."""

    overrides: Overrides
    config: Config
    sources: Sources
    graph: Graph

    @property
    def store(self) -> Store:
        return Store(Path(self.config.paths.outputs) / "store")


def experiment(overrides: Overrides, config: Config | None = None) -> Experiment:
    config = config or load_config(overrides)
    sources = resolve(config)
    return Experiment(overrides=overrides, config=config, sources=sources, graph=stages(config, sources))


def get(node: Node, of: Experiment) -> Artifact:
    """A stage out of the store, or built in this process after what it is made from."""
    if (existing := of.store.find(node.stage)) is not None:
        return existing
    for source in node.inputs.values():
        get(source, of)

    def build(work: Path) -> Outcome:
        cache = cache_file(of.store.root.parent).resolve()
        inputs = {name: (of.store.root / stage.directory).resolve() for name, stage in node.stage.inputs.items()}
        job = Job(
            kind=node.spec.kind, role=node.role, key=node.stage.key, work=work.resolve(), inputs=inputs, config=of.config,
            sources=of.sources, cache=cache, account=node.stage.account, needs=(),
        )  # fmt: skip
        try:
            return node.spec.build(job, lambda progress: None)
        finally:
            _free()

    return of.store.get_or_build(node.stage, build)


def _free() -> None:
    """The memory of a card that many processes share."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def label(of: Experiment) -> str:
    """A point in a few words."""
    dataset = of.config.dataset
    method = f"perplexity {dataset.perplexity}" if dataset.select == "perplexity" else str(dataset.select)
    pool = Path(str(of.config.data.path)).stem
    return f"{method}, {dataset.size} of {pool}, rate {of.config.sft.learning_rate:g}, seed {of.config.seed}"


def results(of: Experiment) -> list[Node]:
    """What a finished point leaves: verdicts, and what is checked by a program."""
    return [node for node in of.graph.until(of.config.until) if node.role == "verdicts" or node.role.endswith("_tuned")]


def is_done(of: Experiment) -> bool:
    return all((of.store.root / node.stage.directory / "manifest.json").is_file() for node in results(of))


def has_order(of: Experiment) -> bool:
    return (of.store.root / of.graph["dataset"].directory / "manifest.json").is_file()


def build_roles(overrides: Overrides, roles: Sequence[str]) -> str:
    """Builds some stages of a point; what a process of the pool does."""
    of = experiment(overrides)
    for node in of.graph.by_role().values():
        if node.role in roles:
            get(node, of)
    return f"{', '.join(roles)} of {label(of)}"


def build_point(overrides: Overrides) -> str:
    """Builds a point to its end, and removes its weights."""
    of = experiment(overrides)
    for node in results(of):
        get(node, of)
    model = of.graph.by_role()["model"].stage
    for weights in (of.store.root / model.directory).glob("*.safetensors"):
        weights.unlink()
    aside = of.store.root.parent / "models" / model.directory
    if not aside.is_dir():  # not whole any more, and so no entry of the store
        aside.parent.mkdir(exist_ok=True)
        (of.store.root / model.directory).rename(aside)
    return label(of)


def build_orders(points: Sequence[Overrides]) -> str:
    """The data sets of one method and seed, the smallest first: the others find its numbers."""
    return "; ".join(build_roles(overrides, ["dataset"]) for overrides in points)
