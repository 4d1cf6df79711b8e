"""minilima: how few examples, and which, align a model? From seed tasks to a win rate with its uncertainty.

from minilima import load_config, plan, results, run, to_frame
summary = run(load_config(["+experiment=quickstart"]))
table = to_frame(results("outputs/runs"))
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from minilima.config.compose import load_config as load_config
    from minilima.config.schema import Config
    from minilima.pipeline import run as run
    from minilima.run.plan import Plan

__all__ = ["__version__", "load_config", "plan", "results", "run", "to_frame"]


def plan(config: "Config") -> "Plan":
    """What `run` would build and reuse, without doing it.

    Raises:
        MinilimaError: a source that the config names does not exist.
    """
    from pathlib import Path

    from minilima.pipeline import stages
    from minilima.run.plan import make_plan
    from minilima.run.sources import resolve
    from minilima.store.entries import Store

    sources = resolve(config)
    return make_plan(config, sources, stages(config, sources), Store(Path(config.paths.outputs) / "store"))


def results(*folders: str | PathLike[str]) -> list[dict[str, Any]]:
    """Finished runs as flat records, best win rate first: what `minilima compare --format json` lists.

    Args:
        folders: folders of runs, or folders that hold them (`outputs/runs`).

    Returns:
        For each run its name as `point`, the settings in which the runs differ by their dotted names, `win_rate` in percent
        and `loss_change` in nats per token with the ends of their 95 % intervals (`…_low`, `…_high`), `tokens`, `usd`,
        `seconds`; None for what is not known.

    Raises:
        MinilimaError: a folder is not that of a finished run.
    """
    from pathlib import Path

    from minilima.report.compare import records, tabulate
    from minilima.report.runs import read_points

    return records(tabulate(read_points([Path(folder) for folder in folders]).points))


def to_frame(records: Sequence[Mapping[str, Any]]) -> Any:
    """Records as a pandas DataFrame, a row each."""
    import pandas

    return pandas.DataFrame(list(records))


def __getattr__(name: str) -> Any:
    # Imported when asked for: `minilima --help` and the workers need neither.
    if name == "load_config":
        from minilima.config.compose import load_config

        return load_config
    if name == "run":
        from minilima.pipeline import run

        return run
    raise AttributeError(f"module 'minilima' has no attribute {name!r}")
