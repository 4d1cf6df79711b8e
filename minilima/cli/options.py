"""What all verbs share: a parser whose mistakes are MinilimaErrors, options that several verbs take, what to type again."""

import argparse
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

from minilima import console
from minilima.cli.mistakes import unknown_choice, unknown_option, unknown_word
from minilima.config.groups import existing, groups
from minilima.errors import MinilimaError

PROGRAM = "minilima"
_OVERRIDES = "key=value"


def _lacking(name: str) -> str:
    """FILE: no file; ls|gc: none of ls, gc."""
    return f"none of {name.replace('|', ', ')}" if "|" in name else f"no {name.lower()}"


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30)


class Parser(argparse.ArgumentParser):
    """The words and options of one verb; a mistake names the nearest valid word. Help, completion and reference read it."""

    def __init__(
        self, *, summary: str = "", description: str = "", examples: Sequence[str] = (), paths: int = 0, **settings: Any
    ) -> None:
        """`paths`: how many words among the settings may be paths, for a verb of which one kind takes more of them."""
        self.paths = paths
        settings |= {"add_help": False, "allow_abbrev": False, "formatter_class": _formatter}
        self.summary, self.about, self.examples = summary, description, tuple(f"{PROGRAM} {example}" for example in examples)
        super().__init__(
            description=textwrap.fill(description, min(shutil.get_terminal_size().columns, 120) - 2),
            epilog="\n  ".join(["examples:", *self.examples]) if examples else None,
            **settings,
        )
        self._positionals.title = "arguments"
        self.add_argument("-h", "--help", action="store_true", default=argparse.SUPPRESS, help="show this help")

    @property
    def verb(self) -> str:
        return self.prog.rpartition(" ")[2]

    @property
    def options(self) -> dict[str, argparse.Action]:
        """Each spelling of each option that is shown."""
        return {name: item for item in self._actions if item.help != argparse.SUPPRESS for name in item.option_strings}

    @property
    def words(self) -> list[argparse.Action]:
        """What is written without dashes, in order."""
        return [item for item in self._actions if not item.option_strings and item.help != argparse.SUPPRESS]

    def rows(self) -> list[tuple[str, str]]:
        """Each word and option as it is written, but for --help, with its meaning."""
        shown = [item for item in [*self.words, *dict.fromkeys(self.options.values())] if item.dest != "help"]
        written = [(", ".join(item.option_strings), item.metavar or ("" if item.option_strings else item.dest)) for item in shown]
        return [(f"{names} {value}".strip(), str(item.help)) for (names, value), item in zip(written, shown, strict=True)]

    def read(self, arguments: Sequence[str], verbs: "Mapping[str, Parser]") -> dict[str, Any]:
        """The values of all options and words by name, the verb's handler among them.

        Raises:
            MinilimaError: something typed is unknown, missing or of the wrong form.
        """
        values, rest = self.parse_known_intermixed_args(list(arguments))
        if strange := [item for item in rest if item.startswith("-")]:
            owners = [verb for verb, parser in verbs.items() if strange[0].partition("=")[0] in parser.options]
            raise unknown_option(strange[0], self.verb, self.options, arguments, own_folder(arguments), owners)
        if rest:
            self.error(f"{rest[0]!r} is one word too many")
        parsed = vars(values)
        bare = [word for word in parsed.get("overrides", ()) if "=" not in word and not word.startswith("~")]
        for word in bare[self.paths :]:
            raise unknown_word(word, verbs, groups(parsed["config_dir"]), first=False)
        if "overrides" in parsed:
            # A preset of the data is an option of its group.
            parsed["overrides"] = [re.sub(r"^data\.preset=", "data=", item) for item in parsed["overrides"]]
        return parsed

    def error(self, message: str) -> NoReturn:
        """A MinilimaError instead of argparse's usage text and exit status 2."""
        if missing := re.fullmatch(r"the following arguments are required: (.*)", message):
            message = f"it was given {' and '.join(_lacking(name) for name in missing[1].split(', ') if name != _OVERRIDES)}"
        elif named := re.fullmatch(r"argument (\S+?): expected (?:one|at least one) argument", message):
            option = max(named[1].split("/"), key=len)
            message = f"{option} names no {str(self.options[option].metavar or 'value').lower()}"
        elif wrong := re.fullmatch(r"argument (\S+): invalid int value: (.*)", message):
            message = f"{wrong[1]} must be a whole number, not {wrong[2]}"
        raise MinilimaError(
            f"This {self.verb} command cannot be read.",
            f"{message[:1].upper()}{message[1:]}.",
            f"For example: {self.examples[0]}",
        )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise unknown_choice(str(value), self.verb, action)


def add_overrides(parser: Parser) -> None:
    """The settings of an experiment, and where groups of the user's own are."""
    parser.add_argument(
        "overrides", nargs="*", metavar=_OVERRIDES, help="settings, and options of groups: +experiment=quickstart"
    )
    parser.add_argument(
        "--config-dir", "-cd", type=existing, metavar="FOLDER", help="a folder with groups of your own, laid out like conf/"
    )


def add_multirun(parser: Parser) -> None:
    parser.add_argument("-m", "--multirun", action="store_true", help="a sweep: values with commas give a run for each")


def add_json(parser: Parser) -> None:
    parser.add_argument("--json", dest="in_json", action="store_true", help="print JSON, for other programs")


def add_yes(parser: Parser, what: str) -> None:
    parser.add_argument("--yes", dest="confirmed", action="store_true", help=what)


def own_folder(arguments: Sequence[str]) -> str | None:
    """The user's folder of groups in arguments that no parser has read."""
    for name, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        option, _, value = name.partition("=")
        if option in ("--config-dir", "-cd") and (value or following):
            return value or following
    return None


def is_sweep(overrides: Sequence[str]) -> bool:
    return any(item.startswith("+sweep=") for item in overrides)


def command_line(arguments: Sequence[str]) -> str:
    """What to type for this command, quoted for a shell: as it was started, `minilima …` or `python -m minilima …`."""
    installed = Path(sys.argv[0]).name == PROGRAM
    return shlex.join([*([PROGRAM] if installed else [sys.orig_argv[0], "-m", "minilima"]), *arguments])


def plain_line(*arguments: str, config_dir: str | None = None) -> str:
    """A command for records and errors, the same on every machine."""
    return shlex.join([PROGRAM, *(["--config-dir", config_dir] if config_dir else []), *arguments])


def show_stopped(arguments: Sequence[str]) -> None:
    """After Ctrl-C: the command to resume."""
    console.say("\nStopped. What was finished is kept; to resume:")
    console.say_raw(f"  {command_line(arguments)}")  # unbroken, to be copied
