"""Writes docs/reference/ from the code, so that it cannot be out of date: every setting, every option, every command.

    python -m minilima.cli.reference            # or: make reference
    python -m minilima.cli.reference --check    # exit status 1 where the files differ from the code; a test does the same

Meanings come from the attribute docstrings of `config.py`, ranges from `compose.py`, defaults from conf/ as it composes
without overrides, options from the first lines of conf/<group>/<option>.yaml.
"""

import ast
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from minilima.config.compose import load_config
from minilima.config.groups import CONF, groups
from minilima.config.schema import Config
from minilima.config.validate import range_of
from minilima.environment import ROOT
from minilima.formats.files import write_atomic

FOLDER = ROOT / "docs" / "reference"

_UNITS = {
    "seconds": "seconds", "minutes": "minutes", "tokens": "tokens", "words": "words", "usd": "USD", "epochs": "passes",
    "bytes": "bytes", "gigabytes": "GB", "processes": "processes", "requests": "requests",
}  # fmt: skip
"""Last word of a setting's name -> its unit."""
_TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One line of the reference. `valid` is its type, unit and range in words."""

    name: str
    valid: str
    default: str
    meaning: str


def settings() -> dict[str, list[Setting]]:
    """Every setting by its section: `{"": top level, "sft": […], …}`; nested ones stand in their section."""
    found: dict[str, list[Setting]] = {}
    for name, kind, meaning, default in _walk(Config, load_config([]), ""):
        section = name.partition(".")[0] if "." in name else ""
        found.setdefault(section, []).append(
            # On the command line and in YAML files, None is written null.
            Setting(name=name, valid=_valid(name, kind), default=_value(default), meaning=re.sub(r"\bNone\b", "null", meaning))
        )
    return found


def _walk(owner: type, values: Any, prefix: str) -> Iterator[tuple[str, Any, str, Any]]:
    meanings = docstrings(owner)
    hints = typing.get_type_hints(owner)
    for item in fields(owner):
        kind, value = hints[item.name], getattr(values, item.name)
        if is_dataclass(kind):
            assert isinstance(kind, type)
            yield from _walk(kind, value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, kind, meanings[item.name], value


def docstrings(owner: type) -> dict[str, str]:
    """The strings below the fields of a dataclass, each as one line.

    Raises:
        KeyError: when asked for a field without one: every setting has a meaning.
    """
    (tree,) = ast.parse(inspect.getsource(owner)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            found[field.target.id] = " ".join(ast.literal_eval(text.value).split())  # type: ignore[attr-defined]
    return found


def _valid(name: str, kind: Any) -> str:
    optional = isinstance(kind, types.UnionType) and type(None) in kind.__args__
    if optional:
        kind = next(item for item in kind.__args__ if item is not type(None))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        said = ", ".join(f"`{item.value}`" for item in kind)
    elif typing.get_origin(kind) is list:
        said = f"list of {_TYPES[typing.get_args(kind)[0]]}s"
    else:
        said = _TYPES[kind]
    words = name.rpartition(".")[2].split("_")
    unit = _UNITS.get("usd" if "usd" in words else words[-1]) if kind in (int, float) else None
    parts = [said, f"in {unit}" if unit else "", range_of(name) or "", "or null" if optional else ""]
    return ", ".join(filter(None, parts))


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def settings_page() -> str:
    """docs/reference/settings.md."""
    lines = [
        _HEAD.format(title="Every setting"),
        "Any of them can be given on the command line (`sft.epochs=2`), swept (`-m sft.epochs=1,2`), or written into a file of",
        "`conf/`. Defaults are those of a run without overrides; choosing another option of a group changes them",
        "([options](options.md)). `python -m minilima --cfg job` shows all settings of an experiment as they are.",
        "",
    ]
    for section, found in settings().items():
        lines += [f"## {section or 'Top level'}", ""]
        if section:
            owner = typing.get_type_hints(Config)[section]
            lines += [str(inspect.getdoc(owner)), ""]
        lines += ["| setting | valid | default | meaning |", "|---|---|---|---|"]
        lines += [f"| `{one.name}` | {_cell(one.valid)} | `{one.default}` | {_cell(one.meaning)} |" for one in found]
        lines.append("")
    return "\n".join(lines)


def options_page() -> str:
    """docs/reference/options.md."""
    lines = [
        _HEAD.format(title="Groups and their options"),
        "A group takes one option, chosen with `group=option`; `experiment` and `sweep` are added with `+experiment=option`.",
        "Each is a file `conf/<group>/<option>.yaml` in which every line is explained; files of your own go into a folder with",
        "the same layout, named with `--config-dir`.",
        "",
    ]
    for group, names in groups().items():
        lines += [f"## {group}", "", "| option | what it is |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(_first_comment(CONF / group / f'{name}.yaml'))} |" for name in names]
        lines.append("")
    return "\n".join(lines)


def commands_page() -> str:
    """docs/reference/commands.md."""
    from minilima.__main__ import VERBS

    lines = [
        _HEAD.format(title="Commands"),
        "`python -m minilima COMMAND overrides…`; after an installation, `minilima COMMAND` is the same. Exit status: 0; 1 for",
        "what you can mend, explained in one paragraph; 130 after Ctrl-C.",
        "",
        "| command | what it does |",
        "|---|---|",
        *(f"| `{verb}` | {_cell(meaning[:1].upper() + meaning[1:])} |" for verb, meaning in VERBS.items()),
        "",
    ]
    return "\n".join(lines)


PAGES = {"settings.md": settings_page, "options.md": options_page, "commands.md": commands_page}

_HEAD = "# {title}\n\n<!-- Written by `make reference`; changes belong into the code. -->\n"


def _first_comment(file: Path) -> str:
    """The comment lines at the top of a YAML file, as one line; Hydra's own (`@package`) left out."""
    comments = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            comments.append(line.lstrip("# ").strip())
    return " ".join(comments)


def _cell(text: str) -> str:
    """Text in a cell of a table; what looks like HTML stays text."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def stale() -> list[str]:
    """Names of the pages that differ from what the code says now."""
    return [name for name, page in PAGES.items() if _read(FOLDER / name) != page()]


def _read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.is_file() else None


def main(arguments: list[str]) -> int:
    """Writes the pages, or with `--check` only compares them."""
    if "--check" in arguments:
        return 1 if stale() else 0
    for name, page in PAGES.items():
        write_atomic(FOLDER / name, page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
