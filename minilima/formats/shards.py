"""Which files make up a table: one file, the shards of a folder, those that a pattern names, or those inside a ZIP archive.

    /data/train-*.parquet, /data/shards, /data/shards.zip ─> file names, by the numbers in them (part-9 before part-10)
Files of several splits, or of several kinds, are not one table: they are refused by name.
"""

import glob
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from minilima.errors import MinilimaError

_TABLES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".feather")
_PACKED = (".gz", ".zst", ".bz2", ".xz")
_ABOUT_TABLES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What `datasets` and LLaMA-Factory write beside tables."""
_SPLIT = re.compile(r"(?:^|[^a-z])(train|validation|valid|val|dev|test|eval)(?:[^a-z]|$)", re.IGNORECASE)
_STATE = "state.json"
"""What `datasets` writes beside the arrow files of a folder, with their names in their order."""


def is_there(path: Path) -> bool:
    """Whether it is a file, a folder, or a pattern that names files."""
    return path.exists() or bool(_matches(path))


def files_of(path: Path) -> Sequence[Path]:
    """The files of a table, in their order; the path itself where it is no folder and no pattern.

    Raises:
        MinilimaError: a folder holds no table, or several.
    """
    if path.is_dir():
        return _saved(path) if (path / _STATE).is_file() else _shards(path)
    if not path.exists() and (matches := _matches(path)):
        return [path.parent / name for name in one_table(path, [match.name for match in matches])]
    return [path]


def one_table(path: Path, names: Sequence[str]) -> list[str]:
    """Those of the files in a folder or an archive that hold its rows, in their order.

    Raises:
        MinilimaError: there is none, or they belong to several splits or are of several kinds.
    """
    tables = sorted((name for name in names if _is_table(name)), key=_natural)
    if not tables:
        few = ", ".join(sorted(names)[:5])
        raise MinilimaError(
            f"{path} holds no table.", f"It holds: {few}." if few else "It is empty.", "Name the file or folder with the rows."
        )
    splits = sorted({found[-1].lower() if (found := _SPLIT.findall(name)) else "no split's name" for name in tables})
    if len(splits) > 1:
        raise _several(path, f"files of several splits: {', '.join(splits)}", tables)
    kinds = sorted({_kind(name) for name in tables})
    if len(kinds) > 1:
        raise _several(path, f"files of several kinds: {', '.join(kinds)}", tables)
    return tables


def _several(path: Path, what: str, tables: Sequence[str]) -> MinilimaError:
    folder = path if path.is_dir() else path.parent
    fix = "Unpack it, and name" if path.suffix == ".zip" else "Name"
    return MinilimaError(
        f"{path} holds {what}.",
        "Which of them are meant is not known, and rows of a test set are not to be learnt.",
        f'{fix} a file or a pattern: "{folder / tables[0]}", or "{folder}/{PurePath(tables[0]).stem[:5]}*{_kind(tables[0])}"',
    )


def _matches(path: Path) -> list[Path]:
    return [file for file in path.parent.glob(path.name) if file.is_file()] if glob.has_magic(path.name) else []


def _is_table(name: str) -> bool:
    path = PurePath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not hidden and path.name not in _ABOUT_TABLES and _kind(name).startswith(_TABLES)


def _kind(name: str) -> str:
    """`.jsonl.gz`."""
    path = PurePath(name.lower())
    return (PurePath(path.stem).suffix + path.suffix) if path.suffix in _PACKED else path.suffix


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _shards(folder: Path) -> list[Path]:
    inside = sorted(folder.iterdir())
    names = [file.name for file in inside if file.is_file()]
    splits = [item for item in inside if (item / _STATE).is_file()]
    folders = [item for item in inside if item.is_dir() and any(_is_table(file.name) for file in item.iterdir())]
    if len(splits) == 1:
        return _saved(splits[0])
    if splits or (folders and not any(_is_table(name) for name in names)):
        there = ", ".join(item.name for item in splits or folders)
        raise MinilimaError(
            f"The folder {folder} is no table.",
            f"It has {'splits' if splits else 'folders'}: {there}.",
            f"Name one of them: {(splits or folders)[0]}",
        )
    return [folder / name for name in one_table(folder, names)]


def _saved(folder: Path) -> list[Path]:
    """The arrow files of a folder that `datasets` saved, in their order."""
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        files = [folder / Path(file["filename"]).name for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise MinilimaError(
            f"The folder {folder} is no table.", f"Its {_STATE} is not one that save_to_disk wrote.", "Save it again."
        ) from None
    if state.get("_indices_data_files") or any(not file.is_file() for file in files):
        raise MinilimaError(f"The folder {folder} is not whole.", "Files of it are missing.", "Save it again.")
    return files
