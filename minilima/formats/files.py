"""Reading and writing files so that a crash never leaves half of one behind, and naming them by their content."""

import fcntl
import glob
import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from minilima.environment import PACKAGE
from minilima.errors import MinilimaError

Value = TypeVar("Value")
Json = None | bool | int | float | str | list["Json"] | Mapping[str, "Json"]


def canonical_json(value: object) -> str:
    """One text for one value: sorted keys, no spaces, None fields left out (so an added option changes no old key)."""
    return json.dumps(_without_none(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _without_none(value: Any) -> Any:
    if isinstance(value, str | int | float):  # first, since to ask for a Mapping takes long
        return value
    if isinstance(value, Mapping):
        return {str(key): _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_ASIDE = re.compile(r"\..+\.\d+")
"""`.NAME.PID`: a file or folder that is being written, until it is renamed to NAME."""


def write_atomic(path: Path, text: str) -> None:
    """Writes `text` aside, syncs it and renames it over `path`: a reader sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    with _held(aside, lambda: os.open(aside, os.O_WRONLY | os.O_CREAT, 0o666)) as descriptor:
        # Half of a surrogate pair, which a model's reply may hold, cannot be encoded; so written, JSON gives it back as it was.
        with os.fdopen(os.dup(descriptor), "w", encoding="utf-8", errors="backslashreplace") as file:
            file.truncate()
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)


def _aside(path: Path) -> Path:
    """Where to write what will be renamed to `path`. What killed processes left of the same name is removed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if is_aside(left) and left.suffix != f".{os.getpid()}":
            remove_unheld(left)
    return path.with_name(f".{path.name}.{os.getpid()}")


def is_aside(path: Path) -> bool:
    """Whether it is named as what is written aside."""
    return _ASIDE.fullmatch(path.name) is not None


@contextmanager
def _held(aside: Path, create: Callable[[], int]) -> Iterator[int]:
    """The descriptor of a new file or folder, locked for as long as the block lasts, so that nobody takes it for a leftover."""
    while True:
        descriptor = create()
        with suppress(OSError):  # a file system without locks: there nothing is taken for a leftover
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # it was removed between its creation and its lock
    try:
        yield descriptor
    except BaseException:
        _remove(aside)
        raise
    finally:
        os.close(descriptor)


def remove_unheld(path: Path) -> bool:
    """Removes what was written aside by a process that has died; False where one that lives holds it, or it cannot be known."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clear_aside(folder: Path) -> None:
    """Removes everything below `folder` that was being written aside, for a folder that this process alone writes."""
    for path in sorted(folder.rglob(".*")):
        if is_aside(path) and not path.is_symlink():
            _remove(path)


def umask() -> int:
    """The bits that new files of this process lack."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def share(folder: Path) -> None:
    """Lets others read and write what is below `folder` as far as the umask does: some libraries create files for one user."""
    mask = umask()
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            wanted = mode | ((0o777 if path.is_dir() else 0o666) & ~mask)
            if wanted != mode:
                path.chmod(wanted)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which is renamed to `folder` at the end: that is there whole or not at all.

    Raises:
        MinilimaError: `folder` holds something.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise MinilimaError(
            f"{folder} is already there.",
            "An export never writes over anything, an earlier export included.",
            "Name a new folder, or remove that one first.",
        )
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(folder.absolute())

    def create() -> int:
        aside.mkdir(exist_ok=True)
        return os.open(aside, os.O_RDONLY)

    with _held(aside, create):
        yield aside
        share(aside)
        for item in sorted(aside.rglob("*"), reverse=True):
            sync(item)
        aside.rename(folder)
        sync(folder.absolute().parent)


def remembered(path: Path, parse: Callable[[Any], Value]) -> Value | None:
    """What a file of ours holds that can be made again; None where it is not there or damaged, so that it is."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None


def recorded(path: Path, parse: Callable[[Any], Value], fix: str) -> Value:
    """What a file of ours holds that only its command can write again.

    Raises:
        MinilimaError: it is not there or damaged; `fix` says what to type.
    """
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise MinilimaError(f"{path} cannot be read.", f"{type(error).__name__}: {error}.".replace("\n", " "), fix) from None


def below(folder: Path) -> Iterator[Path]:
    """All folders and files below a folder. What vanishes during the walk, at which `Path.rglob` fails, is passed over."""
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def sizes(folder: Path) -> dict[str, int]:
    """The files below a folder, by their names in it, with their sizes in bytes."""
    return {str(file.relative_to(folder)): file.stat().st_size for file in sorted(below(folder)) if file.is_file()}


def size_text(size_bytes: float) -> str:
    """Bytes for people: `1.5 MB`."""
    power = min(int(math.log(size_bytes, 1000)), 4) if size_bytes >= 1 else 0
    return f"{size_bytes / 1000**power:.{min(power, 1)}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def sync(path: Path) -> None:
    """Flushes a file or a directory entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """One JSON object a line; dataclasses are written as their fields, None fields left out."""
    lines = []
    for row in rows:
        fields = asdict(row) if is_dataclass(row) and not isinstance(row, type) else row
        lines.append(json.dumps(_without_none(fields), ensure_ascii=False))
    write_atomic(path, "".join(line + "\n" for line in lines))


_ENCODING = "utf-8-sig"
"""UTF-8, with or without the mark at its beginning that some Windows programs write."""


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file.

    Raises:
        MinilimaError: a line is not a JSON object; the line's number is named.
    """
    rows = []
    # Not splitlines(): U+2028 and the like may stand inside a JSON string.
    for number, line in enumerate(path.read_text(encoding=_ENCODING).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise _broken_line(path, number, json_reason(error)) from None
        if not isinstance(row, dict):
            raise _broken_line(path, number, f"a JSON object is needed, this is a {type(row).__name__}")
        rows.append(row)
    return rows


def json_reason(error: json.JSONDecodeError) -> str:
    """What is wrong with a line of JSON, and in which column."""
    return f"{error.msg.removesuffix(' at')} at column {error.colno}"


def _broken_line(path: Path, number: int, why: str) -> MinilimaError:
    return MinilimaError(
        f"Line {number} of {path} cannot be read.",
        f"It is not a JSON object: {why}.",
        f"Correct or delete that line (sed -n {number}p {path} shows it) and run the same command again.",
    )


DATA = PACKAGE / "data"
