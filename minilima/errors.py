"""The one error a user sees: what happened, why, and what to type next.

Everything that a user can fix is raised as `MinilimaError` and printed as one paragraph without a traceback.
`explain` turns the operating system's refusals (disk full, no permission) into the same form; any other exception is a
bug and keeps its traceback.
"""

import errno


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
    # safetensors wraps the system's message in an error of its own.
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "No space left on device" in str(error):
        return MinilimaError(
            f"The disk is full: {getattr(error, 'filename', None) or 'a file of the run'} could not be written.",
            "What was finished before is safe; the stage in progress keeps its checkpoints.",
            "Free some space, or choose another place with paths.outputs=/a/larger/disk, and run the same command again.",
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        return MinilimaError(
            f"{error.filename or 'A file of the run'} cannot be written or read: {error.strerror}.",
            "The folder belongs to another user, is mounted read-only, or a file is in its place.",
            "Choose a folder of your own, for example paths.outputs=$HOME/minilima.",
        )
    return None
