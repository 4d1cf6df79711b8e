"""Settings that had another name once: an old name is refused with its new one, and an old run's settings are read by the new."""

from collections.abc import Mapping
from typing import Any

from minilima.config.schema import changes_results

RENAMED = {
    **{
        f"data.{name}": f"dataset.{name}"
        for name in (
            "size", "select", "topics", "encoding", "min_output_words", "max_output_words", "include_seeds", "decontaminate",
        )
    },
    "sft.select": "epoch.select",
    "sft.dev_set": "epoch.dev_set",
    "generator.endpoint": "endpoints.generator",
    "generator.engine": "compute.engine",
    "judge.endpoint": "endpoints.judge",
    "judge.length_tables": "paths.length_tables",
    "eval.chunk_size": "compute.answer_group",
    "model.embedded": "model.packaged",
}  # fmt: skip
"""Old name -> new name, of settings and of whole sections."""


def new_name(name: str) -> str | None:
    """What the setting `name` is called now; None where it never had another name."""
    for old, new in RENAMED.items():
        if name == old or name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return None


def settings_of(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The `config` of a run.json of any version as settings by their dotted names of today: `{"sft.epochs": 3, …}`."""
    return {new_name(name) or name: value for name, value in _flat(recorded, "").items()}


def result_settings_of(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Those of them that can change a result."""
    return {name: value for name, value in settings_of(recorded).items() if changes_results(name)}


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for name, value in values.items():
        pairs |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return pairs
