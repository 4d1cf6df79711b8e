"""How long a stage will take and what it will need, by earlier builds of the kind on this machine.

    spec, config ─> (kind of work, units) ─> median of seconds a unit over manifests of that kind ─> seconds
Without an earlier build of the kind nothing is known, and nothing is made up.
"""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path

from minilima import environment
from minilima.run.graph import Node
from minilima.run.resources import Resources
from minilima.run.spec import Manifest, Manifests, Work
from minilima.run.stages import SPECS


def read_manifests(root: Path) -> Manifests:
    """What is finished in the store `root`; entries that cannot be read are left out."""
    manifests = {}
    for file in root.glob("*/manifest.json"):
        try:
            manifests[file.parent.name] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    return manifests


def needs(node: Node, manifests: Manifests) -> Resources:
    """What building a stage will take.

    Args:
        manifests: earlier builds, of the same store, by directory.
    """
    spec, inputs = node.spec, {name: made.stage.directory for name, made in node.inputs.items()}
    config, sources = node.config, node.sources
    asked = spec.requests(config, sources)
    space = spec.space(config, sources, inputs)
    return Resources(
        requests=asked.requests if asked else None,
        tokens=asked.tokens if asked else None,
        usd=asked.usd if asked else None,
        prices_of=asked.as_of if asked else None,
        seconds=_seconds(spec.planned_work(config, sources, _of_inputs(inputs, manifests)), manifests),
        disk_bytes=space.result,
        scratch_bytes=space.scratch,
    )


def _seconds(work: Work | None, manifests: Manifests) -> float | None:
    if work is None:
        return None
    here = [manifest for manifest in manifests.values() if manifest.get("host") == environment.host()]
    paces = [
        manifest["seconds"] / done.units
        for manifest in here
        if (done := _finished(manifest, manifests)) is not None and done.kind == work.kind
    ]
    return statistics.median(paces) * work.units if paces else None


def _finished(manifest: Manifest, manifests: Manifests) -> Work | None:
    spec = next((spec for spec in SPECS if spec.stage == manifest["stage"]), None)
    return spec.finished_work(manifest, _of_inputs(manifest["inputs"], manifests)) if spec is not None else None


def _of_inputs(directories: Mapping[str, str], manifests: Manifests) -> Manifests:
    return {name: manifests[directory] for name, directory in directories.items() if directory in manifests}
