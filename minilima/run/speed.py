"""How long a stage will take and what it will need, by earlier builds of the kind on this machine.

    spec, config ─> (kind of work, units) ─> median of seconds a unit over manifests of that kind ─> seconds
Before the first build of a kind, a committed table (data/speeds.json, made by benchmarks/speeds.py) says what it took on a
machine that it names, with or without bfloat16 as this one. Of what neither knows, no time is told.
"""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from minilima import environment
from minilima.formats.files import DATA
from minilima.run.graph import Node
from minilima.run.resources import Resources
from minilima.run.spec import Manifest, Manifests, Work
from minilima.run.stages import SPECS
from minilima.train.memory import Device

TABLE = DATA / "speeds.json"


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Seconds for each unit of work, by its kind, on a machine that is named."""

    machine: str = ""
    seconds_per_unit: Mapping[str, float] = field(default_factory=dict)


@cache
def known_speeds(device: Device) -> Speeds:
    """The committed table for CPUs that multiply in the same precision; there is none for GPUs, of which it is too different."""
    if device.flops is not None:
        return Speeds()
    table = json.loads(TABLE.read_text(encoding="utf-8"))["bfloat16" if device.bf16 else "float32"]
    return Speeds(machine=table["machine"], seconds_per_unit=table["seconds_per_unit"])


def read_manifests(root: Path) -> Manifests:
    """What is finished in the store `root`; entries that cannot be read are left out."""
    manifests = {}
    for file in root.glob("*/manifest.json"):
        try:
            manifests[file.parent.name] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    return manifests


def needs(node: Node, manifests: Manifests, known: Speeds | None = None) -> Resources:
    """What building a stage will take.

    Args:
        manifests: earlier builds, of the same store, by directory.
        known: what counts before the first build of a kind here.
    """
    spec, inputs = node.spec, {name: made.stage.directory for name, made in node.inputs.items()}
    config, sources = node.config, node.sources
    asked = spec.requests(config, sources)
    space = spec.space(config, sources, inputs)
    ahead = spec.planned_work(config, sources, _of_inputs(inputs, manifests))
    seconds, machine = _seconds(ahead, manifests), None
    if seconds is None and known is not None and ahead is not None and ahead.kind in known.seconds_per_unit:
        seconds, machine = known.seconds_per_unit[ahead.kind] * ahead.units, known.machine
    return Resources(
        requests=asked.requests if asked else None,
        tokens=asked.tokens if asked else None,
        usd=asked.usd if asked else None,
        prices_of=asked.as_of if asked else None,
        seconds=seconds,
        measured_on=machine,
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
