"""One stage from the store, or built in a process of its own with a live line: what `pipeline.run` does for each node."""

from collections.abc import Sequence
from pathlib import Path

from minilima import console
from minilima.formats.records import Usage
from minilima.models.budget import spent_usd
from minilima.models.database import cache_file
from minilima.run.graph import Node
from minilima.run.launch import run_stage
from minilima.store.entries import Artifact, Store
from minilima.store.job import Job, Outcome


def get_or_build(node: Node, store: Store, *, needs: Sequence[str] = ()) -> Artifact:
    """One stage, with its live line. Its inputs are in the store by now; `needs` is what must be kept while it is unfinished."""
    stage = node.stage
    if existing := store.find(stage):
        return existing
    cache = cache_file(store.root.parent).resolve()
    with console.stage_line(node.role, lambda: spent_usd(cache, stage.account)) as line:

        def build(work: Path) -> Outcome:
            job = Job(
                kind=node.spec.kind,
                role=node.role,
                key=stage.key,
                work=work.resolve(),
                inputs={name: (store.root / source.directory).resolve() for name, source in stage.inputs.items()},
                config=node.config,
                sources=node.sources,
                cache=cache,
                account=stage.account,
                needs=tuple(needs),
            )
            return run_stage(job, line.update)

        artifact = store.get_or_build(stage, build, line.wait_for)
    seconds = artifact.manifest["seconds"]
    console.say(f"{node.role:<18} {artifact.how} in {seconds:.0f} s: {node.spec.outcome(artifact.metrics)}")
    if used := Usage(**artifact.manifest["usage"]).text():
        console.say(f"{'':<18} {used}")
    return artifact
