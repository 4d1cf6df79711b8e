"""minilima: how few examples, and which, align a model? From seed tasks to a win rate with its uncertainty.

from minilima import load_config, plan, run
summary = run(load_config(["+experiment=quickstart"]))
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from minilima.compose import load_config as load_config
    from minilima.config import Config
    from minilima.pipeline import run as run
    from minilima.planning import Plan

__all__ = ["__version__", "load_config", "plan", "run"]


def plan(config: "Config") -> "Plan":
    """What `run` would build and reuse, without doing it.

    Raises:
        MinilimaError: a source that the config names does not exist.
    """
    from pathlib import Path

    from minilima.planning import make_plan
    from minilima.recipes import stages
    from minilima.sources import resolve
    from minilima.store import Store

    sources = resolve(config)
    return make_plan(config, sources, stages(config, sources), Store(Path(config.paths.outputs) / "store"))


def __getattr__(name: str) -> Any:
    # Imported when asked for: `python -m minilima --help` and the workers need neither.
    if name == "load_config":
        from minilima.compose import load_config

        return load_config
    if name == "run":
        from minilima.pipeline import run

        return run
    raise AttributeError(f"module 'minilima' has no attribute {name!r}")
