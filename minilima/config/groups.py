"""The configuration groups on disk, without importing Hydra: what `--help` and error messages list."""

from pathlib import Path

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
    return config_dir
