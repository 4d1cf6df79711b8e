"""The schema as a list of settings: the one walk over it, for validation, sweeps, completion, errors and the reference."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from minilima.config.ranges import ANY, Range
from minilima.config.schema import Config


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One plain value of the schema. `name` is dotted; `section` is the class that declares it."""

    name: str
    section: type
    kind: Any
    """Its type, without `| None`."""
    optional: bool
    valid: Range
    unit: str
    """Empty where it has none."""

    def of(self, config: Config) -> Any:
        """Its value in `config`."""
        value: Any = config
        for part in self.name.split("."):
            value = getattr(value, part)
        return value


@cache
def settings() -> Mapping[str, Setting]:
    """Every setting by its dotted name, in the order of the schema."""
    return {setting.name: setting for setting in _walk(Config, "")}


def _walk(section: type, prefix: str) -> Iterator[Setting]:
    hints = typing.get_type_hints(section)
    for item in dataclasses.fields(section):
        kind = hints[item.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _walk(kind, f"{prefix}{item.name}.")
            continue
        optional = isinstance(kind, types.UnionType)
        if optional:
            kind = next(part for part in kind.__args__ if part is not type(None))
        yield Setting(
            name=prefix + item.name,
            section=section,
            kind=kind,
            optional=optional,
            valid=item.metadata.get("range", ANY),
            unit=item.metadata.get("unit", ""),
        )


@cache
def section_at(path: str) -> type | None:
    """The class of a section by its dotted name ("" = the top level); None where there is none."""
    section: Any = Config
    for part in filter(None, path.split(".")):
        section = typing.get_type_hints(section).get(part)
        if not dataclasses.is_dataclass(section):
            return None
    assert isinstance(section, type)
    return section


def members(path: str) -> list[str]:
    """The names of what a section holds, settings and sections; empty where there is no such section."""
    section = section_at(path)
    return [] if section is None else [item.name for item in dataclasses.fields(section)]
