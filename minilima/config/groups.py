"""The configuration groups on disk, without importing Hydra: what `--help` and error messages list."""

import re
from pathlib import Path
from typing import Any

from minilima.environment import PACKAGE
from minilima.errors import MinilimaError

# The installed copy first: in site-packages, a neighbouring conf/ may belong to someone else.
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if (folder / "config.yaml").is_file())


def groups(config_dir: str | None = None) -> dict[str, list[str]]:
    """The groups under conf/, and under a folder of the user's own, with their options: `{"sft": ["full", "lora", …], …}`."""
    options: dict[str, set[str]] = {}
    for root in (CONF, *([Path(config_dir)] if config_dir else [])):
        for file in root.glob("*/*.yaml"):
            options.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(names) for group, names in sorted(options.items())}


def existing(config_dir: str) -> str:
    """The same folder.

    Raises:
        MinilimaError: there is none, or no group in it; Hydra would ignore it.
    """
    if not Path(config_dir).is_dir():
        raise MinilimaError(
            f"There is no folder {config_dir}.",
            "--config-dir names a folder with configuration groups of your own.",
            "Correct its path, or leave --config-dir out.",
        )
    if not any(Path(config_dir).glob("*/**/*.yaml")):
        raise MinilimaError(
            f"{config_dir} has no configuration group.",
            "--config-dir names a folder that is laid out like conf/: <group>/<option>.yaml.",
            "Name the folder above the groups, or leave --config-dir out.",
        )
    for file in Path(config_dir).glob("*/**/*.yaml"):
        _check_aliases(file)
    return config_dir


_MOST_VALUES = 100_000


def _check_aliases(file: Path) -> None:
    """Refuses a file in which a few lines of aliases stand for more values than any memory holds, or for themselves."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if not re.search(r"&\w", text) or not re.search(r"\*\w", text):
        return
    import yaml  # type: ignore[import-untyped]

    counts: dict[int, float] = {}

    def count(node: Any) -> float:
        if id(node) not in counts:
            counts[id(node)] = float("inf")  # of a value that stands within itself
            parts = node.value if isinstance(node.value, list) else []
            inner = [part for item in parts for part in (item if isinstance(item, tuple) else (item,))]
            counts[id(node)] = 1 + sum(map(count, inner))
        return counts[id(node)]

    try:
        values = count(yaml.compose(text, yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, AttributeError):  # composing says what is wrong with it
        return
    if values > _MOST_VALUES:
        raise MinilimaError(
            f"{file} cannot be read as settings.",
            f"Its aliases (*name) stand for more than {_MOST_VALUES:,} values, or for themselves.",
            "Write out what they stand for, or take them out, and run again.",
        )
