"""Writes docs/reference/ from the code, so that it cannot be out of date: every setting, every option, every command.

    python -m minilima.cli.reference            # or: make reference
    python -m minilima.cli.reference --check    # exit status 1 where the files differ from the code; a test does the same

Meanings, ranges and units come from the fields of `config/schema.py`, defaults from conf/ as it composes without overrides,
options from the first lines of conf/<group>/<option>.yaml, commands from the parsers in `cli/`.
"""

import ast
import inspect
import re
import sys
import typing
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from minilima.cli.commands import build
from minilima.config.compose import check_composes
from minilima.config.groups import CONF, groups
from minilima.config.settings import Setting, section_at, settings
from minilima.config.validate import range_of
from minilima.environment import ROOT
from minilima.formats.files import write_atomic

FOLDER = ROOT / "docs" / "reference"

_TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the reference. `valid` is its type, unit and range in words."""

    name: str
    valid: str
    default: str
    meaning: str


def lines_of_settings() -> dict[str, list[Line]]:
    """Every setting by its section: `{"": top level, "sft": […], …}`; nested ones stand in their section."""
    sections: dict[str, list[Line]] = {}
    defaults = check_composes([])  # as they stand in conf/: a finished config names the folder that paths.outputs=auto found
    for name, setting in settings().items():
        # On the command line and in YAML files, None is written null.
        meaning = re.sub(r"\bNone\b", "null", docstrings(setting.section)[name.rpartition(".")[2]])
        line = Line(name=name, valid=_valid(setting), default=_value(setting.of(defaults)), meaning=meaning)
        sections.setdefault(name.partition(".")[0] if "." in name else "", []).append(line)
    return sections


@cache
def docstrings(owner: type) -> dict[str, str]:
    """The strings below the fields of a dataclass, each as one line.

    Raises:
        KeyError: when asked for a field without one: every setting has a meaning.
    """
    (tree,) = ast.parse(inspect.getsource(owner)).body
    assert isinstance(tree, ast.ClassDef)
    lines = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            lines[field.target.id] = " ".join(ast.literal_eval(text.value).split())  # type: ignore[attr-defined]
    return lines


def _valid(setting: Setting) -> str:
    kind = setting.kind
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        values = ", ".join(f"`{item.value}`" for item in kind)
    elif typing.get_origin(kind) is list:
        values = f"list of {_TYPES[typing.get_args(kind)[0]]}s"
    elif typing.get_origin(kind) is dict:
        values = "names and values, as {name: value}"
    else:
        values = _TYPES[kind]
    unit = f"in {setting.unit}" if setting.unit else ""
    return ", ".join(filter(None, [values, unit, range_of(setting.name), "or null" if setting.optional else ""]))


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
        "([options](options.md)). `minilima --cfg job` shows all settings of an experiment as they are.",
        "",
    ]
    for section, described in lines_of_settings().items():
        lines += [f"## {section or 'Top level'}", ""]
        if section:
            lines += [str(inspect.getdoc(section_at(section))), ""]
        lines += ["| setting | valid | default | meaning |", "|---|---|---|---|"]
        lines += [f"| `{one.name}` | {_cell(one.valid)} | `{one.default}` | {_cell(one.meaning)} |" for one in described]
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
    verbs = build()
    lines = [
        _HEAD.format(title="Commands"),
        "`minilima COMMAND …`; without a command it is `run`. `python -m minilima` does the same where the command minilima is",
        "not on the path. Exit status: 0; 1 for what you can fix, explained in one paragraph; 130 after Ctrl-C.",
        "",
        "| command | what it does |",
        "|---|---|",
        *(f"| [`{verb}`](#{verb}) | {_cell(_sentence(parser.summary))} |" for verb, parser in verbs.items()),
        "",
    ]
    for verb, parser in verbs.items():
        lines += [f"## {verb}", "", parser.about, ""]
        lines += ["| written | meaning |", "|---|---|"] if parser.rows() else []
        lines += [f"| `{_cell(name)}` | {_cell(meaning)} |" for name, meaning in parser.rows()]
        lines += ["", "```bash", *parser.examples, "```", ""]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


PAGES = {"settings.md": settings_page, "options.md": options_page, "commands.md": commands_page}

_HEAD = "# {title}\n\n<!-- Written by `make reference`; changes belong in the code. -->\n"


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
