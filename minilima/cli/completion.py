"""Completion of commands, groups, options and settings in bash, zsh and fish, without importing Hydra (0.1 s a key).

    eval "$(minilima completion bash)"                             # zsh: the same with zsh
    minilima completion fish | source

The shell calls `minilima completion query LINE` and shows the words that come back. Hydra's own completion does not know
our commands, and takes as long as a composition.
"""

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any

from minilima import console
from minilima.config.groups import groups
from minilima.config.schema import Config
from minilima.errors import MinilimaError, options

_BASH = r"""
_minilima() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\n'
    local word="${line##*[[:space:]]}"
    COMPREPLY=($(minilima completion query "$line" 2>/dev/null))
    # bash counts '=' as the end of a word: what stands before it is there already.
    [[ $word == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != *[=.] ]] && COMPREPLY=("${COMPREPLY[0]} ")
}
complete -o nospace -o default -F _minilima minilima
"""

_ZSH = r"""
_minilima() {
    local -a found
    found=("${(@f)$(minilima completion query "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    [[ -z $found ]] && { _files; return }
    compadd -Q -S '' -- ${(M)found:#*[=.]}
    compadd -Q -- ${found:#*[=.]}
}
autoload -Uz compinit && (( $+functions[compdef] )) || compinit
compdef _minilima minilima
"""

_FISH = r"""
complete -c minilima -f -a '(minilima completion query (commandline -cp | string collect) 2>/dev/null)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

_FOLLOWING = {
    "completion": tuple(SCRIPTS),
    "export": ("alpaca_eval", "data"),
    "store": ("gc", "ls", "verify"),
}
"""What comes after a command, where that is a word of its own."""
_WITHOUT_SETTINGS = ("compare", "score", "fetch", "completion")
_ADDED = ("experiment", "sweep")
"""Groups without a default: their option is added with `+`."""


def run_completion(arguments: Sequence[str], verbs: Mapping[str, str]) -> int:
    """Prints the script for a shell, or (`query LINE`) the words that may stand where the line ends."""
    if len(arguments) == 2 and arguments[0] == "query":
        console.say_raw("\n".join(complete(arguments[1], list(verbs))))
        return 0
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        raise MinilimaError(
            "Completion for which shell?",
            f"There are scripts for {options(SCRIPTS)}.",
            'Write: eval "$(minilima completion bash)"',
        )
    console.say_raw(SCRIPTS[arguments[0]].strip())
    return 0


def complete(line: str, verbs: Sequence[str]) -> list[str]:
    """The words that may stand at the end of `line`, which begins with the program's name."""
    _, *before, word = line.split(" ") if " " in line else [line, ""]
    given = [item for item in before if item]
    verb = given[0] if given and given[0] in verbs else None
    if verb is not None and len(given) == 1 and verb in _FOLLOWING:
        return [item for item in _FOLLOWING[verb] if item.startswith(word)]
    if verb in _WITHOUT_SETTINGS:
        return []
    offered = list(_overrides(word))
    return [*(item for item in verbs if not given and item.startswith(word)), *offered]


def _overrides(word: str) -> Iterator[str]:
    known = groups()
    if "=" in word:
        key, _, typed = word.partition("=")
        # Values of a sweep stand beside each other; the last one is being typed.
        done, comma, last = typed.rpartition(",")
        for value in [*known.get(key.lstrip("+~"), ()), *_values(key.lstrip("+~"))]:
            if value.startswith(last) and value not in done.split(","):
                yield f"{key}={done}{comma}{value}"
        return
    for group in known:
        name = f"+{group}=" if group in _ADDED else f"{group}="
        if name.startswith(word):
            yield name
    parent, dot, leaf = word.rpartition(".")
    for item, kind in _members(parent):
        if item.startswith(leaf):
            yield f"{parent}{dot}{item}" + ("." if is_dataclass(kind) else "=")


def _members(path: str) -> list[tuple[str, Any]]:
    """The settings below a dotted path, with their types."""
    owner: Any = Config
    for part in filter(None, path.split(".")):
        owner = typing.get_type_hints(owner).get(part) if is_dataclass(owner) else None
    return [(item.name, typing.get_type_hints(owner)[item.name]) for item in fields(owner)] if is_dataclass(owner) else []


def _values(key: str) -> list[str]:
    """The values of a setting that has a list of them."""
    parent, _, leaf = key.rpartition(".")
    kind: Any = dict(_members(parent)).get(leaf)
    if isinstance(kind, types.UnionType):
        kind = next(item for item in kind.__args__ if item is not type(None))
    if kind is bool:
        return ["false", "true"]
    return [item.value for item in kind] if isinstance(kind, type) and issubclass(kind, StrEnum) else []
