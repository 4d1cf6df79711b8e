"""The stages of one experiment as a graph: `pipeline.stages` draws it, plan, preflight and run walk along it. Pure.

spec, config, sources, inputs ─> arrow ─> Node ─> Graph.until(last) ─> nodes in the order in which they run
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from minilima.config.choices import Until
from minilima.config.schema import Config
from minilima.formats.files import canonical_json, sha256_text
from minilima.run.spec import Spec
from minilima.store.job import Stage
from minilima.store.sources import Sources


@dataclass(frozen=True, kw_only=True)
class Node:
    """A stage of an experiment: what is known of its kind, its key, and what it is made from."""

    spec: Spec
    stage: Stage
    config: Config
    sources: Sources
    """The experiment as this stage sees it: of several judges one, of several evaluation sets one."""
    inputs: Mapping[str, "Node"] = field(default_factory=dict)

    @property
    def role(self) -> str:
        """Its role in the experiment: pool, dataset, …"""
        return self.spec.name


def arrow(config: Config, sources: Sources, spec: Spec, **inputs: Node | None) -> Node | None:
    """The stage that `spec` makes of its inputs, those that are None left out; None where the experiment has no such stage."""
    if not spec.applies(config, sources):
        return None
    given = {name: node for name, node in inputs.items() if node is not None}
    stage = Stage(
        name=spec.stage,
        version=spec.version,
        recipe=spec.recipe(config, sources),
        inputs={name: node.stage for name, node in given.items()},
    )
    return Node(spec=spec, stage=stage, config=config, sources=sources, inputs=given)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The stages of one experiment, in the order in which they run; `None` stands for one that it does not have."""

    nodes: tuple[Node | None, ...]

    def __getitem__(self, role: str) -> Stage:
        """The stage with this role.

        Raises:
            KeyError: the experiment has none.
        """
        return self.by_role()[role].stage

    def by_role(self) -> dict[str, Node]:
        return {node.role: node for node in self.nodes if node is not None}

    def until(self, last: Until) -> list[Node]:
        """Everything up to and including `last`; packaged models are converted only where something needs them."""
        stops = list(Until)
        wanted = [
            node
            for node in self.nodes
            if node is not None and node.spec.until is not None and stops.index(node.spec.until) <= stops.index(last)
        ]
        needed = {node.role: node for top in wanted for node in top.inputs.values() if node.spec.until is None}
        return [*needed.values(), *wanted]


def run_name(config: Config, graph: Graph) -> str:
    """The name of the run's folder: the same settings always give the same one."""
    return f"{config.name}-{run_key(graph, config.until)}"


def run_key(graph: Graph, last: Until) -> str:
    """Identifies a run by the results it leads to: the same settings always give the same run folder."""
    return sha256_text(canonical_json([node.stage.key for node in graph.until(last)]))[:8]
