"""Where a run comes from: the command that builds it, and the settings in which it differs from its base experiment."""

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from minilima.config.compose import load_config, to_dict
from minilima.config.renames import settings_of
from minilima.config.schema import Config
from minilima.config.several import GROUPS
from minilima.errors import MinilimaError

_OF_THE_PLACE = ("name", "paths.", "compute.", "tracking.")
"""Settings that say where and how a run is built; a reader elsewhere has their own."""
_FOLLOWS = ("judge_options.", "eval_set_options.")
"""What `judges` and `eval_sets` list, composed: it follows from the lists."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting that differs from the base experiment."""

    name: str
    base: str
    here: str


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What to type for this run, and how it differs from what it started from."""

    experiment: str | None
    """The packaged experiment of the run's name; None = the defaults."""
    changes: tuple[Change, ...]
    command: str


def origin(config: Config) -> Origin:
    """The origin of a run with these settings."""
    listed = [f"{setting}={_written(names)}" for setting in GROUPS.values() if (names := getattr(config, setting))]
    experiment, base = _base(config.name, listed)
    here, there = settings_of(to_dict(config)), settings_of(to_dict(base))
    # Settings hold for every judge and set that is listed, so the first one's own are no changes; the lists come first.
    there |= {key: [] for key in GROUPS.values()}
    changes = tuple(
        Change(name=name, base=_written(there.get(name)), here=_written(value))
        for name, value in here.items()
        if value != there.get(name) and not name.startswith((*_OF_THE_PLACE, *_FOLLOWS))
    )
    name = [] if experiment else [f"name={_written(config.name)}"]
    start = [f"+experiment={experiment}"] if experiment else name
    command = shlex.join(["minilima", *start, *(f"{change.name}={change.here}" for change in changes)])
    return Origin(experiment=experiment, changes=changes, command=command)


def _base(name: str, listed: Sequence[str]) -> tuple[str | None, Config]:
    """The packaged experiment of that name with the judges and sets that are listed, as far as these are packaged too."""
    for words in dict.fromkeys((tuple(listed), ())):
        if name.isidentifier():
            with suppress(MinilimaError):  # an experiment of the user's own, or a name of their own
                return name, load_config([f"+experiment={name}", *words])
        with suppress(MinilimaError):
            return None, load_config(words)
    return None, load_config([])


def _written(value: Any) -> str:
    """A value as Hydra reads it on the command line."""
    if isinstance(value, str) and value and all(letter.isalnum() or letter in "_-./:" for letter in value):
        return value
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(item)}" for key, item in value.items()) + "}"
    return (
        "[" + ",".join(map(_written, value)) + "]" if isinstance(value, list | tuple) else json.dumps(value, ensure_ascii=False)
    )
