"""A split of a data set on Hugging Face's hub: pinned to a commit, loaded by `datasets`, kept as a JSONL file of its rows.

    owner/name:split, revision ─> commit ─> $MINILIMA_CACHE/datasets/owner--name/COMMIT/split.jsonl
The commit of a branch is asked for once a command; where the hub cannot be reached, the last one that it named is used.
"""

import json
import logging
import os
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn
from urllib.parse import quote

from minilima.errors import MinilimaError
from minilima.formats.files import write_atomic, write_jsonl
from minilima.models.hub import is_commit, reached
from minilima.models.packaged import user_cache

_NAME = re.compile(r"(?P<repository>[\w.-]+(?:/[\w.-]+)?)(?::(?P<subset>[^:\[\]+]+))?:(?P<split>[\w.+-]+(?:\[[^\]]*\])?)")


@dataclass(frozen=True, kw_only=True)
class HubSplit:
    """A split as it is at a commit; `path` is a JSONL file of its rows."""

    name: str
    commit: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What a setting names."""

    setting: str
    name: str
    repository: str
    subset: str | None
    split: str
    revision: str

    @property
    def folder(self) -> Path:
        return user_cache() / "datasets" / self.repository.replace("/", "--")

    def rows(self, commit: str) -> Path:
        return self.folder / commit / (quote(":".join(filter(None, (self.subset, self.split))), safe="[]+") + ".jsonl")


def find_split(setting: str, name: str, revision: str) -> HubSplit | None:
    """The rows of a split, fetched if need be; None where they are not here and the hub cannot be reached.

    Args:
        setting: what messages call the setting: data.hub.
        name: owner/name:split, or owner/name:subset:split.
        revision: a branch, a tag, or the 40 digits of a commit.

    Raises:
        MinilimaError: the name has another form, or the hub has no such data set, revision, subset or split, or does not
            give it out.
    """
    if (parts := _NAME.fullmatch(name)) is None:
        raise MinilimaError(
            f"{setting}={name} names no split of a data set.",
            "Its form is owner/name:split, or owner/name:subset:split where the data set has subsets.",
            f"Correct it: {setting}=owner/name:train",
        )
    wanted = _Wanted(setting=setting, name=name, revision=revision, **parts.groupdict())
    if (commit := _commit(wanted)) is None:
        return None
    path = wanted.rows(commit)
    if not path.is_file():
        # Asked first, because `datasets` tries half a minute to reach a hub that does not answer.
        if _offline() or _asked_commit(replace(wanted, revision=commit)) is None:
            return None
        write_jsonl(path, _fetched(wanted, commit))
    return HubSplit(name=name, commit=commit, path=path)


def _offline() -> bool:
    return bool(os.environ.get("HF_HUB_OFFLINE"))


def _commit(wanted: _Wanted) -> str | None:
    if is_commit(wanted.revision):
        return wanted.revision
    named = wanted.folder / "refs" / quote(wanted.revision, safe="")
    if not _offline() and (commit := _asked_commit(wanted)) is not None:
        write_atomic(named, commit)
        return commit
    return named.read_text(encoding="utf-8") if named.is_file() else None


@cache
def _asked_commit(wanted: _Wanted) -> str | None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    refusals = (RepositoryNotFoundError, RevisionNotFoundError)
    try:
        commit = reached(lambda: HfApi().dataset_info(wanted.repository, revision=wanted.revision, timeout=5.0).sha, *refusals)
    except refusals as error:
        _refuse(wanted, error)
    return str(commit) if commit else None


def _fetched(wanted: _Wanted, commit: str) -> list[dict[str, Any]]:
    """The rows of a split; pictures and sound, which no text model learns, only as a mark that they are there."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        with TemporaryDirectory() as folder:
            table = datasets.load_dataset(
                wanted.repository, wanted.subset, split=wanted.split, revision=commit, cache_dir=folder
            ).with_format("arrow")
            rows = [row for some in table.iter(1000) for row in some.to_pylist()]
    except Exception as error:  # from datasets, its readers and the hub's client, of many kinds
        _refuse(wanted, error)
    return [json.loads(json.dumps(row, default=lambda value: f"<{type(value).__name__}>")) for row in rows]


def _refuse(wanted: _Wanted, error: Exception) -> NoReturn:
    """Says why a data set cannot be read, by what the libraries raise: their own errors name the cause in their text."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    repository, why, fix = wanted.repository, f"{kind}: {text[:300]}", f"Run it again, or correct {wanted.setting}=…"
    page = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co')}/datasets/{repository}"
    what = f"The hub's data set {repository} cannot be read."
    if kind == "GatedRepoError" or "is a gated dataset" in text:
        what, why = f"The data set {repository} is gated.", "Its owners give it out to people who accepted its terms."
        fix = f"Accept them at {page}, then run `hf auth login` or set HF_TOKEN."
    elif kind == "RevisionNotFoundError":
        what, why = f"The data set {repository} has no revision {wanted.revision}.", "A branch, a tag or a commit is needed."
        fix = f"Correct {wanted.setting.rpartition('.')[0]}.revision, or leave it out: main is the default."
    elif kind in ("RepositoryNotFoundError", "DatasetNotFoundError"):
        what, why = f"The hub has no data set {repository}.", "The name is wrong, or it is private and you are not logged in."
        fix = f"Correct {wanted.setting}, or run `hf auth login` or set HF_TOKEN."
    elif "Unknown split" in text or "BuilderConfig" in text or "Config name is missing" in text:
        chosen = wanted.name.removeprefix(repository).lstrip(":")
        what = f"The data set {repository} has no {chosen}." if "name is missing" not in text else f"{repository} has subsets."
        why = re.sub(r" Example of usage.*", "", text)
        fix = f"Name one that it has: {wanted.setting}={repository}:SPLIT, or {wanted.setting}={repository}:SUBSET:SPLIT"
    elif "scripts are no longer supported" in text:
        what, why = f"The data set {repository} is a program.", "Such data sets are no longer run, by `datasets` either."
        fix = f"Try its tables: {wanted.setting.rpartition('.')[0]}.revision=refs/convert/parquet"
    raise MinilimaError(what, why, fix) from None
