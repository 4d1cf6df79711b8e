"""From command-line overrides to a strictly checked `Config`.

Hydra merges groups < config.yaml < experiment < command line. The result is then merged into a fresh schema, since
Hydra itself accepts any key that is added with `+`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from minilima.config.explain import explain_composition
from minilima.config.groups import CONF
from minilima.config.schema import Config, Engine, GeneratorKind
from minilima.config.validate import check_ranges

ConfigStore.instance().store("schema", node=Config)


def load_config(overrides: Sequence[str] = (), *, config_dir: str | None = None) -> Config:
    """Composes one experiment.

    Args:
        overrides: as on the command line: `["+experiment=quickstart", "sft.epochs=2"]`.
        config_dir: a folder with groups of the user's own, searched after the packaged ones.

    Raises:
        MinilimaError: a key, value or option does not exist or has the wrong type; the valid ones are named.
    """
    try:
        with composing():
            return strict(compose("config", overrides=[*overrides, *searchpath(config_dir)]))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain_composition(error, overrides) from None


@contextmanager
def composing() -> Iterator[None]:
    """Hydra, ready to compose from conf/; a block inside such a block shares its state."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF), job_name="minilima"):
        yield


def searchpath(config_dir: str | None) -> list[str]:
    """The override with which Hydra finds the user's own groups too."""
    return [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []


def strict(composed: DictConfig) -> Config:
    """Merges a composed config into a fresh schema, so that no unknown key survives, and checks the ranges."""
    config = to_config(composed)
    check_ranges(config)
    return config


def to_config(composed: DictConfig) -> Config:
    """A composed config as the schema has it; its ranges are not checked yet."""
    values = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), values))
    assert isinstance(config, Config)
    if config.generator.kind == GeneratorKind.vllm:
        # From here on there are two kinds: a model behind an endpoint, and one on this machine.
        if config.generator.endpoint.base_url is not None:
            config.generator.kind = GeneratorKind.openai
        else:
            config.generator.kind, config.generator.engine = GeneratorKind.local, Engine.vllm
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain values, for JSON and YAML."""
    values = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
