"""What a stage is and what is built of it: values that travel from the pipeline to a worker and back."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.formats.files import canonical_json, sha256_text
from minilima.formats.records import Usage
from minilima.store.sources import FileSource, ModelSource, Sources

SCRATCH = "scratch"
"""A stage's own notes and checkpoints; left out of the published result."""


def key_of(name: str, version: int, recipe: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """16 hex digits over a stage's name, version and recipe, and the keys of its inputs by their roles."""
    content = {"stage": name, "version": version, "recipe": recipe, "inputs": inputs}
    return sha256_text(canonical_json(content))[:16]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A result to be had: what it is made of and how. `version` is raised by hand when a stage's code changes meaning."""

    name: str
    version: int
    recipe: Mapping[str, Any]
    inputs: Mapping[str, "Stage"] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Of the stage's result."""
        return key_of(self.name, self.version, self.recipe, {role: stage.key for role, stage in self.inputs.items()})

    @property
    def directory(self) -> str:
        return f"{self.name}-{self.key}"

    @property
    def account(self) -> str:
        """Under which is booked what it costs: its key, were there no caps. A raised cap begins no new account."""
        return replace(self, recipe={name: value for name, value in self.recipe.items() if name != "budget"}).key


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of building a stage: figures for people and programs, and what model calls cost."""

    metrics: dict[str, Any]
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker has to build. `role` is the stage's part in the experiment, e.g. base_answers."""

    kind: str
    """Which stage is built, as run/stages/ names it."""
    role: str
    key: str
    work: Path
    inputs: dict[str, Path]
    config: Config
    sources: Sources
    cache: Path
    account: str | None = None
    """Under which is booked what the stage asks of an endpoint; None = its key."""
    needs: tuple[str, ...] = ()
    """Directories of its whole experiment, which are kept while the build is unfinished."""

    @property
    def scratch(self) -> Path:
        """For notes and checkpoints; not part of the result."""
        return self.work / SCRATCH

    def model_location(self, source: ModelSource, role: str) -> str:
        """What to load for an outside model: its converted form where it is embedded, else where it is."""
        return str(self.inputs[role]) if source.kind == "packaged" else source.location

    def to_json(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["config"] = OmegaConf.to_container(OmegaConf.structured(self.config), enum_to_str=True)
        values["sources"] = asdict(self.sources)
        return json.dumps(values, default=str)

    @classmethod
    def from_json(cls, text: str) -> "Job":
        values = json.loads(text)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), values["config"]))
        assert isinstance(config, Config)
        return cls(
            kind=values["kind"],
            role=values["role"],
            key=values["key"],
            work=Path(values["work"]),
            inputs={role: Path(path) for role, path in values["inputs"].items()},
            config=config,
            sources=_sources(values["sources"]),
            cache=Path(values["cache"]),
            account=values["account"],
            needs=tuple(values.get("needs", ())),
        )


def _sources(values: dict[str, Any]) -> Sources:
    def file(item: dict[str, Any] | None) -> FileSource | None:
        return FileSource(**{**item, "path": Path(item["path"]) if item["path"] else None}) if item else None

    def model(item: dict[str, Any] | None) -> ModelSource | None:
        return ModelSource(**item) if item else None

    files = ("seeds", "data", "eval_set", "annotators", "dev_set", "reference", "targets", "rubric")
    parts: dict[str, Any] = {name: file(values[name]) for name in files}
    parts["other_sets"] = tuple(one for item in values["other_sets"] if (one := file(item)) is not None)
    return Sources(**parts, **{name: model(values[name]) for name in ("base", "generator", "judge", "scorer")})  # type: ignore[arg-type]


def needs_of(text: str) -> set[str]:
    """Directories that an unfinished build needs, by its job.json; an older version wrote no `needs`, so its inputs count."""
    values = json.loads(text)
    return set(values.get("needs") or [Path(path).name for path in values["inputs"].values()])


def parse_error(values: dict[str, str]) -> MinilimaError:
    return MinilimaError(values["what"], values["why"], values["fix"])
