"""Completion of commands, groups, options and settings in bash, zsh and fish, without importing Hydra (0.1 s a key).

    eval "$(minilima completion bash)"                             # zsh: the same with zsh
    minilima completion fish | source

The shell calls `minilima completion query LINE` and shows the words that come back. Hydra's own completion does not know
our commands, and takes as long as a composition.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from minilima import console
from minilima.cli.mistakes import ADDED, shown_choices
from minilima.cli.options import Parser, own_folder
from minilima.config.groups import groups
from minilima.config.settings import members, section_at, settings

_BASH = r"""
_minilima() {
    local line="${COMP_LINE:0:COMP_POINT}" program=(minilima) IFS=$'\n'
    [[ $line == *" -m minilima "* ]] && program=("${line%% *}" -m minilima)
    local word="${line##*[[:space:]]}"
    COMPREPLY=($("${program[@]}" completion query "$line" 2>/dev/null))
    # bash counts '=' as the end of a word: what stands before it is there already.
    [[ $word == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != *[=.] ]] && COMPREPLY=("${COMPREPLY[0]} ")
}
_minilima_module() {
    if [[ $COMP_LINE == *" -m minilima "* ]]; then _minilima; elif declare -F _python >/dev/null; then _python "$@"; fi
}
complete -o nospace -o default -F _minilima minilima
complete -o nospace -o default -F _minilima_module python python3
"""

_ZSH = r"""
_minilima() {
    local -a program=(minilima) offered
    [[ $words[2,3] == "-m minilima" ]] && program=($words[1,3])
    offered=("${(@f)$($program completion query "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    [[ -z $offered ]] && { _files; return }
    compadd -Q -S '' -- ${(M)offered:#*[=.]}
    compadd -Q -- ${offered:#*[=.]}
}
_minilima_module() {
    if [[ $words[2,3] == "-m minilima" ]]; then _minilima; else _python; fi
}
autoload -Uz compinit && (( $+functions[compdef] )) || compinit
compdef _minilima minilima
autoload -Uz _python; compdef _minilima_module python python3
"""

_FISH = r"""
complete -c minilima -f -a '(minilima completion query (commandline -cp | string collect) 2>/dev/null)'
for program in python python3
    complete -c $program -n 'string match -q "* -m minilima *" (commandline -cp)' -f \
        -a "($program -m minilima completion query (commandline -cp | string collect) 2>/dev/null)"
end
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_MODULE = " -m minilima "
"""How the command is typed where its script is not on the path."""
_QUERY = "query"
"""What the scripts ask for; no shell's name, and not shown."""


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "completion",
        summary="print the script that completes commands and settings in bash, zsh or fish",
        description="Prints the script with which a shell completes commands, groups, options and settings. To have it now: "
        'eval "$(minilima completion bash)", or the same with zsh; to keep it, put that line into ~/.bashrc or ~/.zshrc.',
        examples=("completion bash", "completion fish | source"),
    )
    parser.add_argument("shell", choices=(*SCRIPTS, _QUERY), metavar="|".join(SCRIPTS), help="your shell")
    parser.add_argument("line", nargs="?", help=argparse.SUPPRESS)
    parser.set_defaults(handler=handle)


def handle(*, shell: str, line: str | None) -> int:
    """Prints the script for a shell, or (`query LINE`) the words that may stand where the line ends."""
    if shell == _QUERY:
        from minilima.cli.commands import build

        console.say_raw("\n".join(complete(line or "", build())))
    else:
        console.say_raw(SCRIPTS[shell].strip())
    return 0


def complete(line: str, verbs: Mapping[str, Parser]) -> list[str]:
    """The words that may stand at the end of `line`, which begins with `minilima` or `python -m minilima`."""
    *before, word = line.partition(_MODULE if _MODULE in line else " ")[2].split(" ")
    typed = [item for item in before if item]
    known = groups(own_folder(typed))
    verb = typed.pop(0) if typed and typed[0] in verbs else None
    offered = list(_after(verbs[verb or "run"], typed, word, known))
    return [*(item for item in verbs if not typed and verb is None and item.startswith(word)), *offered]


def _after(parser: Parser, typed: Sequence[str], word: str, known: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What may follow the words and options `typed` after a verb."""
    shown = parser.options
    if typed and (option := shown.get(typed[-1])) is not None and option.nargs != 0:
        yield from (item for item in shown_choices(option) if item.startswith(word))
    elif word.startswith("-"):
        yield from (name for name in shown if name.startswith(word) and (name.startswith("--") or word == "-"))
    else:
        position = len(_bare(parser, typed))
        words = parser.words
        expected = words[min(position, len(words) - 1)] if words else None
        if expected is not None and expected.dest == "overrides":
            yield from _overrides(word, known)
        elif expected is not None and position < len(words):
            yield from sorted(item for item in shown_choices(expected) if item.startswith(word))


def _bare(parser: Parser, typed: Sequence[str]) -> list[str]:
    """The words in `typed` that are neither options nor their values."""
    takes_value = [name for name, option in parser.options.items() if option.nargs != 0]
    return [
        item
        for item, earlier in zip(typed, ["", *typed], strict=False)
        if not item.startswith("-") and earlier not in takes_value
    ]


def _overrides(word: str, known: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if "=" in word:
        key, _, typed = word.partition("=")
        # Values of a sweep stand beside each other; the last one is being typed.
        done, comma, last = typed.rpartition(",")
        for value in [*known.get(key.lstrip("+~"), ()), *_values(key.lstrip("+~"))]:
            if value.startswith(last) and value not in done.split(","):
                yield f"{key}={done}{comma}{value}"
        return
    for group in known:
        name = f"+{group}=" if group in ADDED else f"{group}="
        if name.startswith(word):
            yield name
    parent, dot, leaf = word.rpartition(".")
    for item in members(parent):
        if item.startswith(leaf):
            yield f"{parent}{dot}{item}" + ("." if section_at(f"{parent}{dot}{item}") is not None else "=")


def _values(key: str) -> list[str]:
    """The values of a setting that has a list of them."""
    setting = settings().get(key)
    if setting is None:
        return []
    if setting.kind is bool:
        return ["false", "true"]
    return [item.value for item in setting.kind] if isinstance(setting.kind, type) and issubclass(setting.kind, StrEnum) else []
