"""minilima: how few examples, and which, align a model? From seed tasks to a win rate with its uncertainty.

from minilima import load_config, plan, results, run, to_frame
summary = run(load_config(["+experiment=quickstart"]))
table = to_frame(results("outputs/runs"))
"""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from os import PathLike
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from minilima.config.compose import load_config as load_config
    from minilima.pipeline import plan as plan
    from minilima.pipeline import run as run

__all__ = ["__version__", "load_config", "plan", "results", "run", "to_frame"]


def results(*folders: str | PathLike[str]) -> list[dict[str, Any]]:
    """Finished runs as flat records, best win rate first: what `minilima compare --format json` lists.

    Args:
        folders: folders of runs, or folders that hold them; none = runs/ of the usual outputs.

    Returns:
        For each run its name as `point`, the settings in which the runs differ by their dotted names, `win_rate` in percent
        and `loss_change` in nats per token with the ends of their 95 % intervals (`…_low`, `…_high`), `tokens`, `usd`,
        `seconds`; None for what is not known.

    Raises:
        MinilimaError: a folder is not that of a finished run.
    """
    from pathlib import Path

    from minilima.config.outputs import outputs_folder
    from minilima.report.compare import tabulate
    from minilima.report.compare_records import records
    from minilima.report.runs import read_points

    chosen = [Path(folder) for folder in folders] or [Path(outputs_folder()) / "runs"]
    return records(tabulate(read_points(chosen).points))


def to_frame(records: Sequence[Mapping[str, Any]]) -> Any:
    """Records as a pandas DataFrame, a row each."""
    import pandas

    return pandas.DataFrame(list(records))


def __getattr__(name: str) -> Any:
    # Imported when asked for: `minilima --help` and the workers need neither.
    if name == "load_config":
        from minilima.config.compose import load_config

        return load_config
    if name == "plan":
        from minilima.pipeline import plan

        return plan
    raise AttributeError(f"module 'minilima' has no attribute {name!r}")


class _RunPackage(ModuleType):
    """`minilima.run` is a package and, called, the function of the same name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from minilima.pipeline import run

        return run(*arguments, **options)


# Python sets the attribute `run` to the package as soon as any module of it is imported, so the package itself is callable.
import_module("minilima.run")
sys.modules["minilima.run"].__class__ = _RunPackage
