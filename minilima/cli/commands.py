"""The grammar of the command line: a sub-parser for each verb, each declared by the verb's own module.

minilima VERB words and options ─> the verb's parser ─> the verb's handle(…) ─> exit status
minilima words and options      ─> the same for `run`
"""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from minilima import __version__, console
from minilima.cli import agreement, chat, compare, completion, doctor, export, fetch, init, plan, run, score, serve, store, view
from minilima.cli.mistakes import unknown_word
from minilima.cli.options import PROGRAM, Parser, own_folder
from minilima.config.groups import CONF, groups
from minilima.environment import DOCS

_MODULES = (run, plan, init, doctor, compare, view, chat, serve, export, store, agreement, score, fetch, completion)

_INTRODUCTION = """\
minilima: from seed tasks to an aligned model and a win rate, in one command.

  minilima +experiment=quickstart                            everything, on a laptop, without network or keys
  minilima plan +experiment=lima_1k                          what would be built and cost, before anything is done
  minilima -m +experiment=lima_1k dataset.size=100,300       a sweep: every combination; any setting can be overridden
  minilima +sweep=size_lr +experiment=lima_1k                a sweep whose axes stand in conf/sweep/; also with plan
  minilima compare outputs/runs                              finished runs beside each other, with their intervals
  minilima compare outputs/runs --html sweep.html            the same as a page with figures, also as SVG and PNG files
  minilima doctor +experiment=lima_1k                        can this machine run it, and if not, what to fix

`python -m minilima …` does the same where the command minilima is not on the path.
"""


@cache
def build() -> Mapping[str, Parser]:
    """The parser of each verb, in the order in which help shows them."""
    verbs = Parser(prog=PROGRAM).add_subparsers(parser_class=Parser, prog=PROGRAM)
    for module in _MODULES:
        module.declare(verbs)
    _declare_help(verbs)
    return dict(verbs.choices)


def execute(arguments: Sequence[str]) -> int:
    """Runs one command; returns its exit status.

    Raises:
        MinilimaError: something typed is wrong, or the command met a problem that the user can fix.
    """
    verbs, rest = build(), list(arguments)
    verb = rest.pop(0) if rest and "=" not in rest[0] and not rest[0].startswith(("-", "+", "~")) else None
    if verb is not None and verb not in verbs:
        raise unknown_word(verb, verbs, groups(own_folder(rest)), first=True)
    # A sweep without a single override would be the default experiment, which nobody asked for.
    if not set(arguments) - {"-m", "--multirun"} or {"-h", "--help"} & set(rest):
        return show_help(verb)
    if rest and rest[0] == "--version":
        console.say_raw(f"minilima {__version__}")
        return 0
    values = verbs[verb or "run"].read(rest, verbs)
    status: int = values.pop("handler")(**values)
    return status


def _declare_help(verbs: Any) -> None:
    parser = verbs.add_parser(
        "help",
        summary="show this overview, or the options of one command",
        description="Shows an overview of commands and groups, or the options of one command, like minilima COMMAND --help.",
        examples=("help", "help compare"),
    )
    names = sorted([*verbs.choices])
    parser.add_argument("command", nargs="?", choices=names, metavar="COMMAND", help="one of the commands")
    parser.set_defaults(handler=show_help)


def show_help(command: str | None = None) -> int:
    """Prints the overview, or the help of one verb."""
    console.say_raw((overview() if command is None else build()[command].format_help()).rstrip())
    return 0


def overview() -> str:
    """What `minilima --help` shows."""
    lines = [_INTRODUCTION, "commands (minilima COMMAND --help shows the options of each, with examples)"]
    lines += [f"  {verb:<12}{parser.summary}" for verb, parser in build().items()]
    lines += ["", "groups (choose with group=option; experiments and sweeps are added: +experiment=…, +sweep=…)"]
    lines += [f"  {group:<12}{'  '.join(names)}" for group, names in groups().items()]
    lines += ["", *_where_settings_are(), "An experiment's settings as they are: minilima --cfg job +experiment=quickstart"]
    return "\n".join(lines)


def _near(path: Path) -> str:
    """A path as it is typed from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _where_settings_are() -> list[str]:
    """The files that explain settings; an installed package has docs/ and conf/ within it."""
    return [
        f"Every setting with its meaning, unit, range and default: {_near(DOCS / 'reference' / 'settings.md')}",
        f"Guides, a tutorial and a glossary: {_near(DOCS / 'index.md')}",
        f"Every option, its lines explained: {_near(CONF)}/<group>/<option>.yaml",
    ]
