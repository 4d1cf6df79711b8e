"""Uploads an exported folder to a private repository on the hub. Nothing is uploaded unless a name is given.

OWNER/NAME ─> open_repository: made, or found and private ─> push: the folder's files, one commit
What was uploaded before a connection broke is not sent again by `hf upload`, whose line every refusal shows.
"""

import re
import shlex
from pathlib import Path
from typing import Literal

from minilima.errors import MinilimaError

Kind = Literal["dataset", "model"]
_SAID = {401: "The hub does not accept the token, or there is none", 403: "This account may not write there"}


def check_repository(name: str, option: str = "--push-to-hub") -> None:
    """Refuses what cannot be a repository's name on the hub, before anything is written."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, flags=re.ASCII):
        raise MinilimaError(f"{name!r} is no name on the hub.", "A name has two parts.", f"Write {option} owner/name")


def open_repository(repository: str, kind: Kind) -> None:
    """Makes the repository, private, where there is none yet.

    Raises:
        MinilimaError: the hub refuses or cannot be reached, or there is one that everybody can read.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        public = hub.repo_info(repository, repo_type=kind).private is False
    except Exception as error:  # the hub's client wraps neither all of httpx's errors nor all of its own
        fix = "Log in with `hf auth login`, or leave out --push-to-hub."
        raise MinilimaError(f"{repository} cannot be opened on the hub.", _why(error), fix) from None
    if public:
        raise MinilimaError(
            f"{repository} is there already, and everybody can read it.",
            "Uploads go to private repositories, so that you read them before others do.",
            "Name another one, or leave out --push-to-hub and upload the folder by `hf upload`.",
        )


def push(folder: Path, repository: str, kind: Kind) -> str:
    """Uploads an exported folder into an opened repository; returns its address.

    Raises:
        MinilimaError: the hub refuses or cannot be reached; the folder stays where it is.
    """
    from huggingface_hub import HfApi

    said = "Export from minilima"
    try:
        commit = HfApi().upload_folder(repo_id=repository, folder_path=folder, repo_type=kind, commit_message=said)
    except Exception as error:  # as above; a connection that broke five times is a RuntimeError
        line = shlex.join(["hf", "upload", "--private", "--repo-type", kind, repository, str(folder)])
        raise MinilimaError(
            f"{repository} could not be written on the hub; {folder} is complete.", _why(error), f"Go on with: {line}"
        ) from None
    return str(commit.repo_url)


def _why(error: Exception) -> str:
    """What the hub says, without addresses of pages on status codes; else the error and its cause."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    told = getattr(error, "server_message", None) or str(error) or type(error).__name__
    parts = [_SAID[status], told] if status in _SAID else [told, *([str(error.__cause__)] if error.__cause__ else [])]
    return ": ".join(" ".join(part.split()).rstrip(".") for part in parts if part) + "."
