"""Reads the rows of any table that people have: its first bytes say what it is, not its name.

    gzip, zstd ─> unpacked ─> parquet, arrow ─> rows
                          └─> text in UTF-8 or UTF-16 ─> JSON, JSONL, or by its name CSV and TSV ─> rows
A folder is one that `datasets` saved (save_to_disk). Other encodings are never guessed: a wrong guess spoils texts in silence.
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.formats.files import canonical_json, sha256_file, sha256_text

SHOWN = 5
"""Broken lines that an error names."""
_STATE = "state.json"
"""What `datasets` writes beside the arrow files of a folder, with their names in their order."""


@dataclass(frozen=True, kw_only=True)
class BrokenLine:
    """A line in which no row can be read."""

    number: int
    why: str
    unit: str = "line"
    """`row` in a JSON list."""
    text: str = ""
    """What stands there, to be shown."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table.

    Raises:
        MinilimaError: it cannot be read, or lines are no JSON objects: all are counted, the first five named.
    """
    rows, broken = [], []
    for number, row in enumerate(scan_rows(path), start=1):
        if isinstance(row, dict):
            rows.append(row)
        else:
            kind = f"a JSON object is needed, this is a {type(row).__name__}"
            broken.append(row if isinstance(row, BrokenLine) else BrokenLine(number=number, why=kind, unit="row"))
    if broken:
        raise _broken_lines(path, broken)
    return rows


def scan_rows(path: Path) -> list[object]:
    """The rows of a table, a `BrokenLine` instead of each that cannot be read.

    Raises:
        MinilimaError: the table as a whole cannot be read.
    """
    if path.is_dir():
        return [row for file in _arrow_files(path) for row in _arrow(file, file.read_bytes())]
    try:
        content = _unpacked(path, path.read_bytes())
    except OSError as error:
        raise MinilimaError(f"{path} cannot be read.", f"{error.strerror or error}.", "Check the path.") from None
    if content.startswith(b"PAR1"):
        return _parquet(path, content)
    if content.startswith(b"ARROW1") or content.startswith(b"\xff\xff\xff\xff"):
        return _arrow(path, content)
    if content.startswith(b"PK\x03\x04"):
        raise MinilimaError(f"{path} is a ZIP archive or a spreadsheet.", "Neither is read.", "Unpack it, or save it as CSV.")
    return _parsed(path, _decoded(path, content))


def table_identity(path: Path) -> str:
    """What a table enters keys with: the content of its file, or of all files of its folder."""
    if not path.is_dir():
        return sha256_file(path)
    return sha256_text(canonical_json([sha256_file(file) for file in _arrow_files(path)]))


def _unpacked(path: Path, content: bytes) -> bytes:
    try:
        if content.startswith(b"\x1f\x8b"):
            return gzip.decompress(content)
        if content.startswith(b"\x28\xb5\x2f\xfd"):
            import pyarrow

            with pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd") as stream:
                return bytes(stream.read())
    except (EOFError, zlib.error, OSError):
        raise MinilimaError(f"{path} cannot be unpacked.", "Its packed data are damaged or cut off.", "Fetch it again.") from None
    return content


def _decoded(path: Path, content: bytes) -> str:
    # UTF-8, 16 and 32, by the mark at the beginning or by where its first bytes are null.
    encoding = json.detect_encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise MinilimaError(
            f"{path} is not a text in {encoding.removesuffix('-sig').upper()}.",
            f"The byte at position {error.start:,} does not fit; which other encoding the file has is never guessed.",
            "Convert it from the encoding in which it was written (GB18030, LATIN1, …): iconv -f ENCODING -t UTF-8",
        ) from None


def _parsed(path: Path, text: str) -> list[object]:
    kinds = [suffix.lower() for suffix in path.suffixes]
    if ".csv" in kinds or ".tsv" in kinds:
        return _separated(path, text, tabs=".tsv" in kinds)
    if text.lstrip().startswith("{") and (whole := _one_object(text)) is not None:
        return [whole]
    if not text.lstrip().startswith("["):
        # Not splitlines(): U+2028 and the like may stand inside a JSON string.
        return [_line(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    try:
        rows: list[object] = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        why = _why(error).partition(" at column")[0]
        raise MinilimaError(f"{path} is not JSON.", f"{why}{where}.", "Correct the file.") from None
    return rows


def _one_object(text: str) -> dict[str, Any] | None:
    """The object of a file that holds a single one over several lines; None for any other file."""
    try:
        json.loads(text.lstrip().partition("\n")[0])
    except ValueError:
        with suppress(ValueError, RecursionError):
            whole = json.loads(text, object_pairs_hook=_distinct)
            return whole if isinstance(whole, dict) else None
    return None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no name stands twice: the last would win in silence."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return row


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "its brackets are nested too deeply" if isinstance(error, RecursionError) else str(error)


def _line(number: int, line: str) -> object:
    try:
        row = json.loads(line, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        return BrokenLine(number=number, why=_why(error), text=line)
    return row if isinstance(row, dict) else BrokenLine(number=number, why=f"this is a {type(row).__name__}", text=line)


def _separated(path: Path, text: str, *, tabs: bool) -> list[object]:
    """The rows of a CSV or TSV file; spreadsheets of some countries separate by semicolons or tabs."""
    csv.field_size_limit(sys.maxsize)
    header = text.partition("\n")[0]
    mark = "\t" if tabs else max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        cells = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise MinilimaError(f"{path} is not CSV.", f"Line {reader.line_num}: {error}.", "Correct the file.") from None
    if not cells:
        return []
    names = [name.strip() for name in cells[0][1]]
    if len(set(names)) < len(names):
        raise MinilimaError(f"{path} has two columns of one name.", f"They are: {', '.join(names)}.", "Rename one of them.")
    wrong = "it has {} cells, and the header has {}"
    return [
        dict(zip(names, row, strict=True))
        if len(row) == len(names)
        else BrokenLine(number=number, why=wrong.format(len(row), len(names)), text=mark.join(row))
        for number, row in cells[1:]
    ]


def _parquet(path: Path, content: bytes) -> list[object]:
    import pyarrow
    from pyarrow import parquet

    try:
        return list(parquet.read_table(pyarrow.BufferReader(content)).to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, "parquet", error) from None


def _arrow(path: Path, content: bytes) -> list[object]:
    import pyarrow
    from pyarrow import ipc

    opened = ipc.open_file if content.startswith(b"ARROW1") else ipc.open_stream
    try:
        return list(opened(pyarrow.BufferReader(content)).read_all().to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, "arrow", error) from None


def _damaged(path: Path, kind: str, error: Exception) -> MinilimaError:
    return MinilimaError(f"{path} cannot be read as {kind}.", f"{str(error).splitlines()[0].rstrip('.')}.", "Fetch it again.")


def _arrow_files(folder: Path) -> Sequence[Path]:
    """The files of a folder that `datasets` saved, in their order."""
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        files = [folder / Path(file["filename"]).name for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        splits = sorted(item.parent.name for item in folder.glob(f"*/{_STATE}"))
        why = f"It has splits: {', '.join(splits)}." if splits else f"A folder needs the {_STATE} that save_to_disk writes."
        raise MinilimaError(f"The folder {folder} is no table.", why, "Name one file, or the folder of one split.") from None
    if state.get("_indices_data_files") or any(not file.is_file() for file in files):
        raise MinilimaError(f"The folder {folder} is not whole.", "Files of it are missing.", "Save it again.")
    return files


def _broken_lines(path: Path, broken: Sequence[BrokenLine]) -> MinilimaError:
    few = "; ".join(f"{line.unit} {line.number}: {line.why}" for line in broken[:SHOWN])
    if len(broken) == 1:
        (line,) = broken
        return MinilimaError(
            f"{line.unit.capitalize()} {line.number} of {path} cannot be read.",
            f"It is not a JSON object: {line.why}.",
            f"Correct or delete that {line.unit}, and run the same command again.",
        )
    return MinilimaError(
        f"{len(broken):,} {broken[0].unit}s of {path} cannot be read.", f"They are no rows: {few}.", "Correct or delete them."
    )
