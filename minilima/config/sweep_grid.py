"""From a sweep's command line to its points: axes, every combination of them, each a strictly checked `Config`.

    +sweep=size_lr sft.epochs=1,2 ─> axes ─> points ─> Config
Hydra composes once for each combination of group choices; values are then set on copies, so that a hundred points take no
longer than a few. A point that cannot be made so is composed by Hydra itself, which also finds the words for a mistake.
"""

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from minilima.config.compose import composing, finished, load_config, searchpath, typed
from minilima.config.explain import COMPOSITION_ERRORS, explain_composition
from minilima.config.groups import groups
from minilima.config.schema import Config
from minilima.config.settings import settings
from minilima.config.several import GROUPS, listed
from minilima.errors import MinilimaError, options

_GRID = "BasicSweeper"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One experiment of a sweep. `overrides` are what one types to run it alone; `axes` are those that a sweep varies."""

    overrides: tuple[str, ...]
    axes: Mapping[str, str]
    config: Config


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a command line spans. A search has no `points`: its sweeper chooses them as it goes."""

    overrides: tuple[str, ...]
    """Those of the experiment as they were typed, swept ones among them."""
    hydra: tuple[str, ...]
    """Those of Hydra: launcher, sweeper."""
    fixed: tuple[str, ...]
    """`overrides` without the swept ones."""
    varied: tuple[str, ...]
    """Names of the swept settings and groups."""
    base: Config
    """The experiment without the swept settings."""
    named: str | None
    """The option of +sweep=."""
    launcher: str
    searches: bool
    points: tuple[Point, ...]


def expand(overrides: Sequence[str], config_dir: str | None = None) -> Sweep:
    """Every point of a sweep.

    Args:
        overrides: as on the command line: `["+sweep=size_lr", "dataset.size=10,20"]`; what is typed wins over the sweep's file.
        config_dir: a folder with groups of the user's own.

    Raises:
        MinilimaError: a point is not a valid experiment.
    """
    overrides = listed(overrides)
    with composing():
        try:
            parsed = _parse(overrides)
            fixed = [str(item.input_line) for item in parsed if not item.is_sweep_override()]
            whole = compose("config", overrides=[*fixed, *searchpath(config_dir)], return_hydra_config=True)
            searches = not str(whole.hydra.sweeper._target_).endswith(_GRID)
            own = whole.hydra.sweeper.get("params") or {}
            axes = _axes([*_parse([f"{key}={value}" for key, value in own.items()]), *parsed], searches=searches)
            choices = whole.hydra.runtime.choices
            launcher, named = str(choices["hydra/launcher"]), choices.get("sweep")
        except COMPOSITION_ERRORS as error:
            raise explain_composition(error, overrides, config_dir) from None
        points = () if searches else _points(axes, config_dir)
        plain = tuple(str(item.input_line) for item in parsed if not _is_hydras(item) and not item.is_sweep_override())
        base = load_config(plain, config_dir=config_dir) if searches else points[0].config
    return Sweep(
        overrides=tuple(str(item.input_line) for item in parsed if not _is_hydras(item)),
        hydra=tuple(str(item.input_line) for item in parsed if _is_hydras(item)),
        fixed=plain,
        varied=tuple(key.lstrip("+~") for key, items in axes.items() if len(items) != 1),
        base=base,
        named=named,
        launcher=launcher,
        searches=searches,
        points=points,
    )


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    return parser.parse_overrides(list(overrides))


def _is_hydras(override: Override) -> bool:
    return override.key_or_group.startswith(("hydra.", "hydra/"))


def _axes(overrides: Sequence[Override], *, searches: bool) -> dict[str, list[str]]:
    """Key -> its overrides, one for a setting that stays; as in Hydra's own grid, the last one given for a key counts."""
    axes: dict[str, list[str]] = {}
    for override in overrides:
        if _is_hydras(override):
            continue
        key = str(override.get_key_element())
        if not override.is_sweep_override():
            axes[key] = [str(override.input_line)]
        elif override.is_discrete_sweep():
            axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            if not axes[key]:
                known = f"The options of {key} are: {options(groups()[key])}" if key in groups() else f"{key} is no group"
                raise MinilimaError(
                    f"{override.input_line} gives no value.",
                    f"glob(…) chooses options of a group by their names. {known}.",
                    f"Correct the pattern, or list values: {key}=…,…",
                )
        elif searches:
            axes[key] = []
        else:
            raise MinilimaError(
                f"{override.input_line} has no points of its own.",
                "An interval is for a search; a grid needs values, as in sft.learning_rate=1e-5,2e-5.",
                "Give values, or search with hydra/sweeper=optuna.",
            )
    return axes


def _points(axes: Mapping[str, Sequence[str]], config_dir: str | None) -> tuple[Point, ...]:
    """In the order of Hydra's grid: the last axis turns fastest."""
    varied = [key for key, items in axes.items() if len(items) > 1]
    bases: dict[tuple[str, ...], Config | None] = {}
    points = []
    for chosen in itertools.product(*axes.values()):
        values = [item for key, item in zip(axes, chosen, strict=True) if key in varied and key in settings()]
        rest = tuple(item for item in chosen if item not in values)
        if rest not in bases:
            bases[rest] = _base(rest, config_dir)
        base = bases[rest]
        config = _with_values(base, values) if base is not None else None
        swept = {key.lstrip("+~"): item.partition("=")[2] for key, item in zip(axes, chosen, strict=True) if key in varied}
        checked = config or load_config(chosen, config_dir=config_dir)
        points.append(Point(overrides=chosen, axes=swept, config=checked))
    return tuple(points)


def _base(overrides: Sequence[str], config_dir: str | None) -> Config | None:
    """The experiment without the swept values; None where other settings may follow from them by interpolation."""
    try:
        composed = compose("config", overrides=[*overrides, *searchpath(config_dir)])
        several = any(composed[setting] for setting in GROUPS.values())  # each option is composed with the swept values
        return None if several or _interpolates(composed) else typed(composed)
    except COMPOSITION_ERRORS:
        return None


def _interpolates(composed: DictConfig) -> bool:
    return "${" in OmegaConf.to_yaml(composed, resolve=False)


def _with_values(base: Config, overrides: Sequence[str]) -> Config | None:
    """A copy of `base` with these values; None where Hydra has to say what is wrong with them."""
    config = copy.copy(base)
    for override in overrides:
        parsed = _value(override)
        if parsed is None or parsed.key in GROUPS.values():
            return None
        owner: Any = config
        *parents, leaf = parsed.key.split(".")
        for parent in parents:  # the sections that are not touched are shared: a config is a value
            setattr(owner, parent, copy.copy(getattr(owner, parent)))
            owner = getattr(owner, parent)
        setattr(owner, leaf, parsed.value)
    return finished(config)


@dataclass(frozen=True, kw_only=True)
class _Value:
    key: str
    value: Any


@cache
def _value(override: str) -> _Value | None:
    """`sft.epochs=2` with its value as the schema has it; None where the schema refuses it."""
    parsed = OverridesParser.create().parse_override(override)
    name = parsed.key_or_group
    if name not in settings():
        return None
    leaf = name.rpartition(".")[2]
    try:
        section = _section(settings()[name].section)
        OmegaConf.update(section, leaf, parsed.value())
        value = section[leaf]
        return _Value(key=name, value=OmegaConf.to_object(value) if OmegaConf.is_config(value) else value)
    except OmegaConfBaseException:
        return None


@cache
def _section(owner: type) -> DictConfig:
    """A section of the schema that checks one value after the other."""
    section = OmegaConf.structured(owner)
    assert isinstance(section, DictConfig)
    return section
