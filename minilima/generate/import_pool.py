"""Imports a finished data set as a pool."""

from collections import Counter
from pathlib import Path
from typing import Any

from minilima.config.choices import OnBadRow, Side
from minilima.config.schema import DataConfig
from minilima.errors import MinilimaError
from minilima.formats.files import write_jsonl
from minilima.formats.imports import Imported, Reading, read_file
from minilima.formats.llamafactory import Layout, import_identity, locate, split_name
from minilima.store.job import Job, Outcome
from minilima.store.sources import FileSource


def import_pool(job: Job) -> Outcome:
    """Writes instances.jsonl, and rejected.jsonl where prompts have no answer to learn."""
    assert job.sources.data is not None
    imported = read_source(job.sources.data, reading(job.config.data))
    write_jsonl(job.work / "instances.jsonl", imported.examples)
    metrics: dict[str, Any] = {"rows": len(imported.examples)}
    if imported.rejected:
        write_jsonl(job.work / "rejected.jsonl", imported.rejected)
        metrics |= {"rejected": len(imported.rejected), "reasons": dict(Counter(item.reason for item in imported.rejected))}
    return Outcome(metrics=metrics)


def reading(data: DataConfig) -> Reading:
    """How the settings ask a table to be read."""
    named = tuple((name, column) for name, column in vars(data.columns).items() if column is not None)
    return Reading(chosen=data.side == Side.chosen, reject=data.on_bad_row == OnBadRow.reject, columns=named)


def read_source(source: FileSource, how: Reading | None = None) -> Imported:
    """The import that a source stands for.

    Raises:
        MinilimaError: a row is broken, nothing is left, or the file is no longer the one that the key was made from.
    """
    path, layout = _located(source)
    if import_identity(path, layout) != source.sha256:
        raise MinilimaError(
            f"{path} has changed since this command began.", "Its content is part of the result's key.", "Run the command again."
        )
    return read_file(path, layout, how)


def layout_of(source: FileSource) -> Layout | None:
    """Where the rows keep their parts, where an entry of a dataset_info.json says so."""
    return _located(source)[1]


def _located(source: FileSource) -> tuple[Path, Layout | None]:
    assert source.path is not None
    if source.listing is not None and (named := split_name(source.listing)):
        path, _, layout = locate(Path(named[0]), named[1])
        return path, layout
    return source.path, None
