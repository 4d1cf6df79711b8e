"""Hugging Face's hub: files of data sets and commits of models, from its client's cache or else from $HF_ENDPOINT.

A hub that does not answer costs seconds and is asked once; what is not available is None, what it refuses is an error.
"""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError


def find_file(setting: str, repository: str, filename: str, revision: str) -> Path | None:
    """A file of a data set, fetched if need be; None where it is not here and the hub cannot be reached.

    `setting` is what messages call the setting that names it: data.hub_file.

    Raises:
        MinilimaError: the hub has no such file, or does not give it out.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    online = not os.environ.get("HF_HUB_OFFLINE")
    for offline in (True, False):
        if not offline and not (online and _offers(setting, repository, filename, revision)):
            break
        try:
            return Path(hf_hub_download(repository, filename, repo_type="dataset", revision=revision, local_files_only=offline))
        except LocalEntryNotFoundError:
            continue
    return None


def find_commit(name: str, revision: str) -> str | None:
    """The commit behind a revision of a model; None where it is not known here and the hub cannot be reached.

    Raises:
        MinilimaError: the hub does not give out the model.
    """
    commit = revision if is_commit(revision) else _cached_commit(name, revision)
    if commit is None and not os.environ.get("HF_HUB_OFFLINE"):
        commit = _asked_commit(name, revision)
    return commit


@cache
def small_files(name: str, commit: str) -> Path | None:
    """The folder of a model with its settings and tokenizer, fetched if need be, perhaps without weights; None where the hub
    cannot be reached and they are not here."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = ["*.json", "*.jinja", "*.model", "*.txt"]
    for offline in (True, False):
        if not offline and os.environ.get("HF_HUB_OFFLINE"):
            break
        try:
            folder = Path(snapshot_download(name, revision=commit, allow_patterns=wanted, local_files_only=offline))
        except LocalEntryNotFoundError:
            continue
        except Exception as error:
            if isinstance(error, OSError | RuntimeError | ValueError) or _is_of_the_connection(error):
                continue
            raise
        if (folder / "config.json").is_file():
            return folder
    return None


@cache
def listed_files(name: str, commit: str) -> tuple[str, ...]:
    """The files of a model as the hub lists them; none where it cannot be reached."""
    from huggingface_hub import HfApi

    if os.environ.get("HF_HUB_OFFLINE"):
        return ()
    info = reached(lambda: HfApi().model_info(name, revision=commit, timeout=5.0).siblings)
    return tuple(str(file.rfilename) for file in info or ())


@cache
def _offers(setting: str, repository: str, filename: str, revision: str) -> bool:
    """Whether the hub can be reached and has the file; one short question, where a download would ask for half a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    address = hf_hub_url(repository, filename, repo_type="dataset", revision=revision)
    refusals = (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError)
    try:
        return reached(lambda: get_hf_file_metadata(address, timeout=5.0), *refusals) is not None
    except refusals as error:
        raise MinilimaError(
            f"The hub has no file {filename} in the data set {repository}.",
            f"{type(error).__name__}: the name is wrong, or its terms must be accepted and you must be logged in.",
            f"Correct {setting}, or name a file of yours: {setting.partition('.')[0]}.path=…",
        ) from None


def reached(question: Callable[[], Any], *refusals: type[Exception]) -> Any:
    """What the hub replies; None where it cannot be reached. `refusals` are raised: the caller knows what they mean."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return question()
    except refusals:
        raise
    except (HfHubHTTPError, OSError, RuntimeError):
        return None
    except Exception as error:
        if _is_of_the_connection(error):
            return None
        raise


def _is_of_the_connection(error: Exception) -> bool:
    """True for httpx's errors: the hub's client does not wrap all of them."""
    return type(error).__module__.startswith(("httpx", "httpcore"))


def is_commit(revision: str) -> bool:
    return len(revision) == 40 and set(revision) <= set("0123456789abcdef")


def _cached_commit(name: str, revision: str) -> str | None:
    from huggingface_hub.constants import HF_HUB_CACHE

    reference = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs" / revision
    return reference.read_text().strip() if reference.is_file() else None


@cache
def _asked_commit(name: str, revision: str) -> str | None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError  # gated models are of this kind

    try:
        info = reached(lambda: HfApi().model_info(name, revision=revision, timeout=5.0).sha, RepositoryNotFoundError)
    except RepositoryNotFoundError as error:
        raise MinilimaError(
            f"The hub does not give out {name}.",
            f"{type(error).__name__}: the name is wrong, or its licence must be accepted and you must be logged in.",
            "Check the name, run `hf auth login`, or use model=smollm2_135m.",
        ) from None
    return str(info) if info else None
