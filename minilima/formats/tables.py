"""Reads the rows of any table that people have: its first bytes say what it is, not its name.

    file, or all files of a folder, of a pattern, of a ZIP archive (shards.py)
        gzip, zstd, bzip2, xz ─> unpacked ─> parquet, arrow ─> rows
                                         └─> text in UTF-8 or UTF-16 ─> JSON, JSONL, or by its name CSV and TSV ─> rows
Other encodings are never guessed: a wrong guess spoils texts in silence.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.formats.files import canonical_json, json_reason, sha256_file, sha256_text
from minilima.formats.packed import archived, unpacked
from minilima.formats.shards import files_of

_BLANKS = re.compile(r"\s*")
SHOWN = 5
"""Broken lines that an error names."""


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
    return [row for _, rows in _parts(path) for row in rows]


def place(path: Path, number: int) -> tuple[Path, int]:
    """The file that holds a row, and the row's number in it."""
    for file, rows in _parts(path):
        if number <= len(rows):
            return file, number
        number -= len(rows)
    return path, number


def table_identity(path: Path) -> str:
    """What a table enters keys with: the content of its file, or of all its files."""
    files = files_of(path)
    return sha256_file(path) if files == [path] else sha256_text(canonical_json([sha256_file(file) for file in files]))


def _parts(path: Path) -> Iterator[tuple[Path, list[object]]]:
    """The files of a table with their rows; those inside an archive under its path."""
    for file in files_of(path):
        try:
            content = unpacked(file, file.read_bytes())
        except OSError as error:
            raise MinilimaError(f"{file} cannot be read.", f"{error.strerror or error}.", "Check the path.") from None
        if content.startswith(b"PK\x03\x04"):
            yield from ((member, _rows(member, unpacked(member, inside))) for member, inside in archived(file, content))
        else:
            yield file, _rows(file, content)


def _rows(path: Path, content: bytes) -> list[object]:
    if content.startswith(b"PAR1"):
        return _parquet(path, content)
    if content.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return _arrow(path, content)
    if content[257:262] == b"ustar":
        raise MinilimaError(f"{path} is a TAR archive.", "Such archives are not read.", "Unpack it, and name its folder.")
    return _parsed(path, _decoded(path, content))


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
    if text.lstrip().startswith("[") and not _starts_with_a_row(text):
        return _listed(path, text)
    if (objects := _objects(text)) is not None:
        return objects if len(objects) > 1 else _columns(objects[0]) or objects
    # Not splitlines(): U+2028 and the like may stand inside a JSON string. A mark of UTF-8 stands where files were joined.
    lines = [(number, line.removeprefix("\ufeff")) for number, line in enumerate(text.split("\n"), start=1)]
    rows = [_line(number, line) for number, line in lines if line.strip()]
    if rows and all(isinstance(row, BrokenLine) for row in rows) and not text.lstrip().startswith(("{", "[")):
        begin = text.lstrip()[:40].partition("\n")[0]
        raise MinilimaError(
            f"{path} holds no JSON.",
            f"It begins: {begin!r}. Tables in CSV and TSV are known by their names.",
            "Name it .csv or .tsv if it is one, or save it as JSONL.",
        )
    return rows


def _starts_with_a_row(text: str) -> bool:
    """Whether the first of several lines is a list of its own, so that the text is no list of rows."""
    first, _, rest = text.lstrip().partition("\n")
    try:
        return bool(rest.strip()) and isinstance(json.loads(first), list)
    except (ValueError, RecursionError):
        return False


def _listed(path: Path, text: str) -> list[object]:
    try:
        rows: list[object] = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        why = _why(error).partition(" at column")[0]
        raise MinilimaError(f"{path} is not JSON.", f"{why}{where}.", "Correct the file.") from None
    return rows


def _objects(text: str) -> list[object] | None:
    """The objects of a file that holds one or more, each over several lines or all on one; None for any other file."""
    first = text.lstrip().partition("\n")[0]
    decoder = json.JSONDecoder(object_pairs_hook=_distinct)
    try:
        if text.lstrip().startswith("{") and isinstance(json.loads(first), dict) and text.strip() != first.strip():
            return None  # an object a line
    except (ValueError, RecursionError):
        pass
    objects: list[object] = []
    end = 0
    try:
        while (at := _BLANKS.match(text, end).end()) < len(text):  # type: ignore[union-attr]  # it matches nothing, too
            row, end = decoder.raw_decode(text, at)
            if not isinstance(row, dict):
                return None
            objects.append(row)
    except (ValueError, RecursionError):
        return None
    return objects or None


def _columns(table: object) -> list[object] | None:
    """The rows of an object that holds a list for each column, as pandas and `datasets` write them; None for a single row."""
    assert isinstance(table, dict)
    columns = {name: _numbered(cells) if isinstance(cells, dict) else cells for name, cells in table.items()}
    lists = [cells for cells in columns.values() if isinstance(cells, list)]
    texts = [cells for cells in lists if cells and all(isinstance(cell, str | None) for cell in cells)]
    if "turns" in table or any(isinstance(cell, dict) and cell.keys() & {"role", "from"} for cells in lists for cell in cells):
        return None  # a conversation
    if len(lists) < max(2, len(columns)) or not texts or len({len(cells) for cells in lists}) > 1:
        return None
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*lists, strict=True)]


def _numbered(cells: dict[str, object]) -> object:
    """The cells of a column that pandas wrote with the numbers of its rows."""
    return list(cells.values()) if list(cells) == [str(number) for number in range(len(cells))] else cells


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no name stands twice: the last would win in silence."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return row


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return json_reason(error)
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
    mark = "\t" if tabs else max(",;\t|", key=header.count)
    if header.strip().lower() == f"sep={mark}":  # what Excel writes to say so
        text = text.partition("\n")[2]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        cells = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise MinilimaError(f"{path} is not CSV.", f"Line {reader.line_num}: {error}.", "Correct the file.") from None
    if not cells:
        return []
    names = [name.strip() for name in cells[0][1]]
    while names and not names[-1] and not any(any(row[len(names) - 1 :]) for _, row in cells[1:]):  # what spreadsheets add
        names.pop()
        cells = [(number, row[: len(names)]) for number, row in cells]
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
