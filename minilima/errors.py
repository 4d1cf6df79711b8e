"""The one error a user sees: what happened, why, and what to type next.

Everything that a user can fix is raised as `MinilimaError` and printed as one paragraph without a traceback.
`explain` turns the operating system's refusals (disk full, no permission) into the same form; any other exception is a
bug and keeps its traceback.
"""

import errno
import os
import shlex
from pathlib import Path


class MinilimaError(Exception):
    """A mistake or an obstacle that the user can remove."""

    def __init__(self, what: str, why: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        return f"{self.what} {self.why} {self.fix}"

    def __reduce__(self) -> tuple[type["MinilimaError"], tuple[str, str, str]]:
        return type(self), (self.what, self.why, self.fix)


def options(names: object) -> str:
    """Joins the valid options for an error's text: `a, b, c`."""
    return ", ".join(sorted(str(name) for name in names))  # type: ignore[attr-defined]


def explain(error: BaseException) -> MinilimaError | None:
    """The user's view of `error`, or None where it is a bug."""
    if isinstance(error, MinilimaError):
        return error
    # Libraries wrap the system's message in errors of their own; SQLite has words of its own.
    words = ("No space left on device", "Disk quota exceeded", "database or disk is full")
    if _number(error) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(part in str(error) for part in words):
        return disk_full(getattr(error, "filename", None))
    if _number(error) == errno.ENAMETOOLONG:
        return MinilimaError(
            f"A name is too long for this disk: {str(getattr(error, 'filename', ''))[-80:]}",
            "A file's or folder's name has at most 255 bytes, and a whole path some 4,000.",
            "Choose a shorter name=…, or a shorter paths.outputs=…, and run again.",
        )
    if not isinstance(error, OSError):
        return None
    file = error.filename or "A file of the run"
    if error.errno in (errno.EACCES, errno.EPERM):
        return no_permission(error.filename)
    if error.errno == errno.EROFS:
        return MinilimaError(
            f"{file} cannot be written: {error.strerror}.",
            "Its disk is mounted read-only.",
            f"Choose a folder on another disk, {_OWN_FOLDER}, or have it mounted for writing, and run the same command again.",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return MinilimaError(
            f"{file} cannot be written or read: {error.strerror}.",
            "A file has the name of a folder.",
            f"Give that file another name, or choose another folder, {_OWN_FOLDER}.",
        )
    return None


_OWN_FOLDER = "for example paths.outputs=$HOME/minilima"


def no_permission(file: str | Path | None) -> MinilimaError:
    """What to say of a file or folder that may be whole and that this user may not read or write."""
    path = Path(os.path.normpath(Path(file or ".").absolute()))
    path = next((above for above in reversed(path.parents) if above.is_dir() and not os.access(above, os.X_OK)), path)
    whose = f"It belongs to {owner(path)}."
    if _may_not_be_read(path):
        return MinilimaError(
            f"This user has no permission to read {path}.",
            whose,
            f"Ask its owner to share it (chmod -R a+rX {shlex.quote(str(path))}, and a+x for the folders above it).",
        )
    return MinilimaError(
        f"This user has no permission to write {path}.",
        whose,
        f"Ask its owner for permission, or choose a folder of your own, {_OWN_FOLDER}.",
    )


def _may_not_be_read(path: Path) -> bool:
    return path.exists() and not (may_look_into(path) if path.is_dir() else os.access(path, os.R_OK))


def may_look_into(folder: Path) -> bool:
    """Whether this user may list a folder and open what it holds."""
    return os.access(folder, os.R_OK | os.X_OK)


def owner(path: Path) -> str:
    """The name of the user whose file it is; `another user` where that is not known here."""
    try:
        while not path.exists():
            path = path.parent
        return path.owner()
    except (OSError, KeyError):
        return "another user"


def disk_full(file: str | None) -> MinilimaError:
    """What to say where nothing more can be written; `file` is what could not be."""
    return MinilimaError(
        f"The disk is full: {file or 'a file of the run'} could not be written.",
        "What was finished before is safe; the stage in progress keeps its checkpoints.",
        "Free some space (minilima store gc), or choose another disk with paths.outputs=/a/larger/disk, and run the same "
        "command again. Where df shows free space, a quota or the number of files (df -i) is used up.",
    )


def _number(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None
