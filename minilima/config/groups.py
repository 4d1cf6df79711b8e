"""The configuration groups on disk, without importing Hydra: what `--help` and error messages list."""

from minilima.environment import PACKAGE

# The installed copy first: in site-packages, a neighbouring conf/ may belong to someone else.
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if (folder / "config.yaml").is_file())


def groups() -> dict[str, list[str]]:
    """The groups under conf/ and the options of each: `{"sft": ["full", "lora", …], …}`."""
    folders = sorted(item for item in CONF.iterdir() if item.is_dir() and any(item.glob("*.yaml")))
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}
