"""A key or a proxy's password that is repeated to us is never shown: its variable's name stands there, however it was written.

words of a server ─> whole, escaped (JSON, URL, HTML), in base64, broken over lines, or cut off at the end ─> $VARIABLE
"""

import base64
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from urllib.parse import unquote, urlsplit

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")
_LEAST, _LEAST_CHANGED = 4, 8
"""Shorter ones are no keys, and stand in ordinary words; so do parts and other spellings of less than the second."""


def masked(text: str, variable: str) -> str:
    """The text with the key that the environment's variable holds, and with proxies' passwords, replaced by variables' names."""
    for name, key in ((variable, os.environ.get(variable, "").strip()), *_passwords()):
        text = _without(text, key, name)
    return text


def _passwords() -> Iterator[tuple[str, str]]:
    """Of the proxies that the environment names, with the variable of each."""
    for variable in PROXIES:
        with suppress(ValueError):
            if password := urlsplit(os.environ.get(variable, "")).password:
                yield variable, unquote(password)


def _without(text: str, key: str, variable: str) -> str:
    if len(key) < _LEAST:
        return text
    text = text.replace(key, f"${variable}")
    if len(key) >= _LEAST_CHANGED:
        text = _pattern(key).sub(f"${variable}", text)
    for length in range(len(key) - 1, _LEAST_CHANGED - 1, -1):
        text = re.sub(rf"{re.escape(key[:length])}(?=…|\.{{3}}|[\"')\]}}]*\.?$)", f"${variable}", text)
    return text


@cache
def _pattern(key: str) -> "re.Pattern[str]":
    """Every way to write a key."""
    spelt = r"(?:\\[nrt]|\s)*".join(map(_written, key))
    coded = set(_base64(key))
    return re.compile("|".join([spelt, *sorted(map(re.escape, coded), key=len, reverse=True)]))


def _written(character: str) -> str:
    """One character as itself or escaped, as in JSON, a URL or HTML."""
    number = ord(character)
    codes = [rf"u{number:04x}", rf"x{number:02x}", rf"%{number:02x}", rf"&#0*{number};", rf"&#x0*{number:x};"]
    return rf"(?:\\*{re.escape(character)}|\\*(?i:{'|'.join(codes)}))"


def _base64(key: str) -> list[str]:
    """What stands of a key in base64 whatever comes before and after it, in the usual and in the alphabet of URLs."""
    forms = []
    for before in range(3):
        coded = base64.b64encode((" " * before + key).encode()).decode().rstrip("=")
        # The first and the last letters also depend on what stands beside.
        inner = coded[(8 * before + 5) // 6 :][:-1]
        forms += [inner, inner.replace("+", "-").replace("/", "_")]
    return [form for form in forms if len(form) >= _LEAST_CHANGED]
