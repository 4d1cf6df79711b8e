"""From command-line overrides to a strictly checked `Config`.

Hydra merges groups < config.yaml < experiment < command line. The result is then merged into a fresh schema, since
Hydra itself accepts any key that is added with `+`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from minilima.config.choices import Engine, GeneratorKind
from minilima.config.explain import COMPOSITION_ERRORS, explain_composition
from minilima.config.groups import CONF, existing
from minilima.config.outputs import outputs_folder
from minilima.config.quoting import quoted
from minilima.config.renames import settings_of
from minilima.config.schema import Config
from minilima.config.settings import settings
from minilima.config.several import listed, with_options
from minilima.config.validate import check_ranges
from minilima.errors import MinilimaError, options

ConfigStore.instance().store("schema", node=Config)


def load_config(overrides: Sequence[str] = (), *, config_dir: str | None = None) -> Config:
    """Composes one experiment.

    Args:
        overrides: as on the command line: `["+experiment=quickstart", "sft.epochs=2"]`.
        config_dir: a folder with groups of the user's own, searched after the packaged ones.

    Raises:
        MinilimaError: a key, value or option does not exist or has the wrong type; the valid ones are named.
    """
    return finished(check_composes(overrides, config_dir))


def check_composes(overrides: Sequence[str], config_dir: str | None = None) -> Config:
    """The overrides composed, with valid names and types; values may still be out of their range.

    Raises:
        MinilimaError: a key, value or option does not exist or has the wrong type; the valid ones are named.
    """

    def made(words: Sequence[str]) -> Config:
        return typed(compose("config", overrides=[*words, *searchpath(config_dir)]))

    overrides = freely_named(listed(overrides))
    try:
        with composing():
            return with_options(made(overrides), overrides, made)
    except COMPOSITION_ERRORS as error:
        raise explain_composition(error, overrides, config_dir) from None


_FREE = re.compile(r"^(?=(?:generator|judge)\.extra_body[.=])")
"""Settings whose names are the user's: Hydra takes a name that it does not know only after ++."""


def freely_named(overrides: Sequence[str]) -> list[str]:
    """The overrides, with those of a setting that holds any name written as Hydra takes them."""
    return [_FREE.sub("++", word) for word in overrides]


def check_part(path: str, overrides: Sequence[str], config_dir: str | None = None) -> None:
    """Refuses the dotted path of a part that the composed settings, Hydra's own among them, do not have."""
    with composing():
        whole = compose("config", overrides=[*overrides, *searchpath(config_dir)], return_hydra_config=True)
    if OmegaConf.select(whole, path) is None:
        sections = [str(name) for name, value in whole.items_ex(resolve=False) if OmegaConf.is_config(value)]
        raise MinilimaError(
            f"There is no part {path}, or it is null.", f"The parts are: {options(sections)}.", "Name one of them."
        )


@contextmanager
def composing() -> Iterator[None]:
    """Hydra, ready to compose from conf/; a block inside such a block shares its state."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF), job_name="minilima"):
        yield


def searchpath(config_dir: str | None) -> list[str]:
    """The override with which Hydra finds the user's own groups too.

    Raises:
        MinilimaError: there is no such folder.
    """
    return [f"hydra.searchpath=[{quoted(f'file://{Path(existing(config_dir)).resolve()}')}]"] if config_dir else []


def strict(composed: DictConfig) -> Config:
    """The `Config` that a composed config gives: no unknown key survives, and every value is valid.

    Raises:
        MinilimaError: a value is out of its range, or settings do not go together.
    """
    return finished(typed(composed))


def typed(composed: DictConfig) -> Config:
    """A composed config merged into a fresh schema: keys and types are checked, values not yet."""
    _check_no_secrets(OmegaConf.to_container(composed, resolve=False))
    with _without_environment():
        values = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), values))
    assert isinstance(config, Config)
    return config


def _check_no_secrets(values: Any, name: str = "") -> None:
    """Refuses settings that read the environment: what they read would be written into every run's folder."""
    if isinstance(values, dict):
        for key, value in values.items():
            _check_no_secrets(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, list):
        for value in values:
            _check_no_secrets(value, name)
    elif isinstance(values, str) and re.search(r"\$\{\s*oc\.(?:env|decode)", values):
        raise MinilimaError(
            f"{name} reads the environment ({values}).",
            "Settings are written into the run's folder, and what a variable holds may be secret.",
            f"Give the value itself, as in {name}=…; a key's variable is only named, in api_key_env.",
        )


@contextmanager
def _without_environment() -> Iterator[None]:
    """While settings are worked out: a resolver's name may itself be put together from settings, which no pattern finds."""

    def refused(*_: Any) -> None:
        raise ValueError("it reads the environment, and what a variable holds may be secret")

    OmegaConf.register_new_resolver("oc.env", refused, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def finished(config: Config) -> Config:
    """What a typed config means, checked: the last step of every way to a `Config`, be it of one run or a point of a sweep.

    Raises:
        MinilimaError: a value is out of its range, or settings do not go together.
    """
    if config.generator.kind == GeneratorKind.vllm:
        # From here on there are two kinds: a model behind an endpoint, and one on this machine.
        served = config.endpoints.generator.base_url is not None
        kind = GeneratorKind.openai if served else GeneratorKind.local
        compute = config.compute if served else replace(config.compute, engine=Engine.vllm)
        config = replace(config, generator=replace(config.generator, kind=kind), compute=compute)
    check_ranges(config)
    return replace(config, paths=replace(config.paths, outputs=outputs_folder(config.paths.outputs)))


def recorded(values: Mapping[str, Any]) -> Config:
    """The config that a run.json holds, of any version: under today's names, without what is no setting any more."""
    config = OmegaConf.structured(Config)
    for name, value in settings_of(values).items():
        if name in settings():
            OmegaConf.update(config, name, value)
    return typed(config)


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain values, for JSON and YAML."""
    values = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
