"""What can still be read of a damaged reply cache: rows are taken from each page by itself, whatever became of the others.

    pages of the file, those of its log laid over them ─> leaves of tables ─> rows ─> known by their shape ─> a new file
The damaged file is kept beside the new one. The format is that of https://sqlite.org/fileformat2.html.
"""

import os
import re
import shutil
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.config.schema import BudgetConfig
from minilima.errors import MinilimaError, explain
from minilima.models.batch_notes import Notes
from minilima.models.budget import Budget
from minilima.models.cache import REPLIES, parse_reply
from minilima.models.database import Database, check_schema, open_database, unusable

_KEY = re.compile(r"[0-9a-f]{64}")
_LEAF = 0x0D
_PAGE_SIZES = {2**power for power in range(9, 17)}
_USUAL_PAGE = 4096
_WIDTHS = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8, 8: 0, 9: 0}
"""Bytes of a value by its serial type; 12 and more are bytes and text."""

_Row = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Salvaged:
    """How many replies and bookings of costs the new file holds, and where the damaged one is kept."""

    replies: int
    bookings: int
    kept: Path


def find_damage(file: Path) -> MinilimaError | None:
    """What is wrong with a reply cache; None of one that is whole or not there. Reads all of it."""
    try:
        if not file.is_file():
            return None
        with closing(open_database(file)) as database:
            said = [row[0] for row in database.execute("PRAGMA integrity_check(1)")]
            if said != ["ok"]:
                raise sqlite3.DatabaseError(str(said[0]).splitlines()[0])
            check_schema(database)
            for (text,) in database.execute("SELECT reply FROM replies") if _has_replies(database) else ():
                if parse_reply(text) is None:
                    raise sqlite3.DatabaseError("a reply in it is no reply")
    except (MinilimaError, OSError) as error:
        if (mistake := explain(error)) is None:
            raise
        return mistake
    except sqlite3.Error as error:
        return unusable(file, error)
    return None


def _has_replies(database: Database) -> bool:
    return database.execute("SELECT 1 FROM sqlite_master WHERE name = 'replies'").fetchone() is not None


def salvage(file: Path) -> Salvaged:
    """Replaces a damaged file by a new one with all that can be read. Nobody may use it meanwhile."""
    number = 1
    while (kept := file.with_name(f"{file.name}.damaged-{number}")).exists():
        number += 1
    rows = list(read_rows(file))
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    for left in file.parent.glob(f".{file.name}.*"):  # of a repair that was killed
        left.unlink()
    replies, bookings = _write(aside, rows)
    for end in ("-wal", ""):
        with suppress(FileNotFoundError):
            _keep(file.with_name(file.name + end), kept.with_name(kept.name + end))
    # A log that is laid over another file would spoil that: it goes first.
    for end in ("-wal", "-shm", "-journal"):
        file.with_name(file.name + end).unlink(missing_ok=True)
    aside.replace(file)
    return Salvaged(replies=replies, bookings=bookings, kept=kept)


def _keep(file: Path, copy: Path) -> None:
    try:
        copy.hardlink_to(file)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without such links
        shutil.copyfile(file, copy)


def _write(aside: Path, rows: list[_Row]) -> tuple[int, int]:
    """A new file with the rows that are replies, bookings and batches; where a ticket is there twice, the settled one counts."""
    with closing(Budget(aside, "", BudgetConfig(), None).database) as database:
        database.execute(REPLIES)
        Notes(database)
        database.execute("BEGIN")
        for row in rows:
            if _is_reply(row):
                database.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", row)
            elif _is_batch(row):
                database.execute("INSERT OR IGNORE INTO batched VALUES (?, ?, ?)", row)
        bookings: dict[int, _Row] = {}
        for row in filter(_is_booking, rows):
            settled = row[5] if len(row) > 5 else 0
            if row[0] not in bookings or settled >= bookings[row[0]][5]:
                bookings[row[0]] = (*row[:5], settled)
        for row in bookings.values():
            database.execute("INSERT INTO spent (ticket, scope, requests, tokens, usd, settled) VALUES (?, ?, ?, ?, ?, ?)", row)
        (replies,) = database.execute("SELECT count(*) FROM replies").fetchone()
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("PRAGMA journal_mode=DELETE")
        return replies, len(bookings)


def _is_reply(row: _Row) -> bool:
    return len(row) == 2 and all(isinstance(value, str) for value in row) and bool(_KEY.fullmatch(row[0])) and (
        parse_reply(row[1]) is not None
    )  # fmt: skip


def _is_batch(row: _Row) -> bool:
    return len(row) == 3 and [type(value) for value in row] == [str, str, int] and bool(_KEY.fullmatch(row[0]))


def _is_booking(row: _Row) -> bool:
    kinds = [type(value) for value in row]
    return len(row) in (5, 6) and kinds[:4] == [int, str, int, int] and kinds[4] in (int, float) and kinds[5:] in ([], [int])


def read_rows(file: Path) -> Iterator[_Row]:
    """Every row of every leaf page that can be read, the number of the row instead of a missing first value."""
    pages = _pages(file)
    for number, page in pages.items():
        start = 100 if number == 1 else 0
        if len(page) < 512 or page[start] != _LEAF:
            continue
        (count,) = struct.unpack_from(">H", page, start + 3)
        for cell in range(count):
            try:
                (at,) = struct.unpack_from(">H", page, start + 8 + 2 * cell)
                yield _row(page, at, pages)
            except (struct.error, IndexError, KeyError, ValueError):
                continue


def _pages(file: Path) -> dict[int, bytes]:
    """The pages by their numbers, as they are after the log was laid over the file."""
    content = file.read_bytes()
    (size,) = struct.unpack_from(">H", content, 16) if len(content) > 18 else (0,)
    size = 65_536 if size == 1 else size
    size = size if size in _PAGE_SIZES and content.startswith(b"SQLite format 3\0") else _USUAL_PAGE
    pages = {start // size + 1: content[start : start + size] for start in range(0, len(content), size)}
    log = file.with_name(file.name + "-wal")
    frames = log.read_bytes() if log.is_file() else b""
    salts = frames[16:24]
    for start in range(32, len(frames) - 24 - size + 1, 24 + size):
        # Frames of an earlier log stand behind the present ones.
        if frames[start + 8 : start + 16] == salts:
            (number,) = struct.unpack_from(">I", frames, start)
            pages[number] = frames[start + 24 : start + 24 + size]
    return pages


def _row(page: bytes, at: int, pages: Mapping[int, bytes]) -> _Row:
    length, at = _varint(page, at)
    number, at = _varint(page, at)
    body = _payload(page, at, length, pages)
    head, offset = _varint(body, 0)
    kinds = []
    while offset < head:
        kind, offset = _varint(body, offset)
        kinds.append(kind)
    values = []
    for kind in kinds:
        width = _WIDTHS[kind] if kind < 12 else (kind - 12) // 2
        if offset + width > len(body):
            raise ValueError("cut")
        values.append(_value(kind, body[offset : offset + width]))
        offset += width
    return (number if values[:1] == [None] else values[0], *values[1:])


def _payload(page: bytes, at: int, length: int, pages: Mapping[int, bytes]) -> bytes:
    """The bytes of a row, also those that lie on further pages."""
    usable = len(page)
    most = usable - 35
    if length <= most:
        return page[at : at + length]
    least = (usable - 12) * 32 // 255 - 23
    here = least + (length - least) % (usable - 4)
    here = here if here <= most else least
    body = page[at : at + here]
    (following,) = struct.unpack_from(">I", page, at + here)
    while following and len(body) < length:
        further = pages[following]
        (following,) = struct.unpack_from(">I", further, 0)
        body += further[4 : 4 + length - len(body)]
    return body


def _value(kind: int, raw: bytes) -> Any:
    if kind == 0:
        return None
    if kind in (8, 9):
        return kind - 8
    if kind == 7:
        return struct.unpack(">d", raw)[0]
    if kind < 7:
        return int.from_bytes(raw, "big", signed=True)
    return raw.decode("utf-8") if kind % 2 else raw


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for count in range(8):
        byte = content[at + count]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + count + 1
    return value << 8 | content[at + 8], at + 9
