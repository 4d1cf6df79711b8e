"""Uploads an exported folder to the hub, where a new repository is private. Nothing is uploaded unless a name is given."""

import re
from pathlib import Path
from typing import Literal

from minilima.errors import MinilimaError

Kind = Literal["dataset", "model"]


def check_repository(name: str, option: str = "--push-to-hub") -> None:
    """Refuses what cannot be a repository's name on the hub, before anything is written."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, flags=re.ASCII):
        raise MinilimaError(f"{name!r} is no name on the hub.", "A name has two parts.", f"Write {option} owner/name")


def push(folder: Path, repository: str, kind: Kind = "dataset") -> str:
    """Uploads an exported folder; returns its address.

    Raises:
        MinilimaError: the hub refuses or cannot be reached; the folder stays where it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    hub = HfApi()
    try:
        address = hub.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, repo_type=kind, commit_message="Export from minilima")
    except Exception as error:
        # httpx's errors too: the hub's client does not wrap all of them
        known = isinstance(error, HfHubHTTPError | OSError) or type(error).__module__.startswith(("httpx", "httpcore"))
        if not known:
            raise
        raise MinilimaError(
            f"{repository} could not be written on the hub; {folder} is complete.",
            f"{' '.join(str(error).split()).rstrip('.')}.",
            f"Log in with `hf auth login`, or upload it later: hf upload --repo-type {kind} {repository} {folder}",
        ) from None
    return str(address)
