"""What builds of one key can still differ by: threads, GPU and library versions, which decide in which order numbers are added.

manifests ─> made_with (values by kind) ─> unlike_builds: a sentence for a comparison. Pure. docs/explanation/store.md says what
sameness holds across.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

DEVICE = "computed on"
LIBRARIES = ("torch", "transformers", "peft", "deepspeed")
_NAMED = 3
"""Runs that are named for each value."""

MadeWith = Mapping[str, tuple[str, ...]]
"""Values by kind: DEVICE, and the names of libraries; several where stages of a run were built in different places."""


class Built(Protocol):
    """A run, as far as it matters here."""

    @property
    def name(self) -> str: ...
    @property
    def made_with(self) -> MadeWith: ...


def made_with(manifests: Mapping[str, Mapping[str, Any]]) -> MadeWith:
    """What the stages of a run were computed with."""
    found: dict[str, set[str]] = {}
    devices = {role: _device(manifest) for role, manifest in manifests.items()}
    # What names no device computed nothing that matters here, unless it is of a version that never named one.
    of_old = not any(devices.values())
    for role, manifest in manifests.items():
        device = devices[role]
        if device is None and not of_old:
            continue
        on_cpu = device is None or device.startswith("CPU")
        where = f"{manifest.get('threads', 'unknown')} CPU threads" if on_cpu else str(device)
        found.setdefault(DEVICE, set()).add(where)
        for name in LIBRARIES:
            if version := manifest.get("packages", {}).get(name):
                found.setdefault(name, set()).add(str(version))
    return {kind: tuple(sorted(values)) for kind, values in found.items()}


def _device(manifest: Mapping[str, Any]) -> str | None:
    metrics = manifest.get("metrics", {})
    found = metrics.get("device") or metrics.get("arithmetic", {}).get("device")
    return str(found) if found else None


def unlike_builds(runs: Sequence[Built]) -> str | None:
    """A sentence where runs were not built alike; None where they were, or it is not known of them."""
    kinds = dict.fromkeys(kind for run in runs for kind in run.made_with)
    parts = []
    for kind in kinds:
        holders: dict[str, list[str]] = {}
        for run in runs:
            for value in run.made_with.get(kind, ()):
                holders.setdefault(value, []).append(run.name)
        if len(holders) > 1:
            parts.append(f"{kind} " + ", ".join(f"{value} ({_names(names)})" for value, names in sorted(holders.items())))
    if not parts:
        return None
    return (
        f"Not built alike: {'; '.join(parts)}. That alone can change a few answers, greedy ones too, under the same key: a "
        "difference of a few prompts may come from it."
    )


def _names(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - _NAMED} more" if len(distinct) > _NAMED else ""
    return ", ".join(distinct[:_NAMED]) + more
