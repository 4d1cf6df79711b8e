"""Writes a value so that Hydra takes it as it is, whatever characters are in it."""

import re
import shlex


def quoted(value: str) -> str:
    """The value in Hydra's quotes."""
    # Hydra drops backslashes before a quote only: those at the end, and before a quote inside, are doubled.
    return "'" + re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), value) + "'"


def as_typed(override: str) -> str | None:
    """The override with its value quoted, as it is typed in a shell; None where quotes are not what it lacks."""
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"[+~]{0,2}[\w./@-]+", key) or not value or value[0] in "'\"[{":
        return None
    return shlex.quote(f"{key}={quoted(value)}") if re.search(r"[^\w./:+-]", value) else None
