"""Imports a finished data set as a pool."""

from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.formats.files import write_jsonl
from minilima.formats.imports import UNANSWERED, Imported, read_file
from minilima.formats.llamafactory import import_identity, locate, split_name
from minilima.store.job import Job, Outcome
from minilima.store.sources import FileSource


def import_pool(job: Job) -> Outcome:
    """Writes instances.jsonl, and rejected.jsonl where prompts have no answer."""
    assert job.sources.data is not None
    imported = read_source(job.sources.data)
    write_jsonl(job.work / "instances.jsonl", imported.examples)
    metrics: dict[str, Any] = {"rows": len(imported.examples)}
    if imported.rejected:
        write_jsonl(job.work / "rejected.jsonl", imported.rejected)
        metrics |= {"rejected": len(imported.rejected), "reasons": {UNANSWERED: len(imported.rejected)}}
    return Outcome(metrics=metrics)


def read_source(source: FileSource) -> Imported:
    """The import that a source stands for.

    Raises:
        MinilimaError: a row is broken, nothing is left, or the file is no longer the one that the key was made from.
    """
    assert source.path is not None
    path, layout = source.path, None
    if source.listing is not None and (named := split_name(source.listing)):
        path, _, layout = locate(Path(named[0]), named[1])
    if import_identity(path, layout) != source.sha256:
        raise MinilimaError(
            f"{path} has changed since this command began.", "Its content is part of the result's key.", "Run the command again."
        )
    return read_file(path, layout)
