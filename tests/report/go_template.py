"""Ollama's template language, as far as our Modelfiles use it: what Go's text/template makes of it.

Compared with Go's own engine on every family of `tests/conformance/families.py`: the same texts.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Turns = Sequence[Mapping[str, str]]


def rendered(template: str, turns: Turns) -> str:
    """A conversation as Ollama asks the model: `.System` holds what the system says, `.Messages` all turns."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    words = iter(re.split(r"\{\{ (.*?) \}\}", template, flags=re.S))
    body, ended = _body(words)
    assert ended == ""
    return "".join(_said(body, {"system": system, "turns": turns}))


def _body(words: Iterator[str]) -> tuple[list[Any], str]:
    """What stands before an `end` or `else`, and which it is."""
    nodes: list[Any] = [next(words)]
    for action in words:
        if action == "end" or action.startswith("else"):
            return nodes, action
        if action.startswith("if "):
            nodes.append(_choice(action.removeprefix("if "), words))
        elif action.startswith("range "):
            assert action == "range $i, $turn := .Messages"
            nodes.append(("range", _body(words)[0]))
        else:
            nodes.append(("value", action))
        nodes.append(next(words))
    return nodes, ""


def _choice(condition: str, words: Iterator[str]) -> tuple[str, str, list[Any], list[Any]]:
    body, ended = _body(words)
    if ended.startswith("else if "):
        return "if", condition, body, [_choice(ended.removeprefix("else if "), words)]
    return "if", condition, body, _body(words)[0] if ended == "else" else []


def _said(nodes: Sequence[Any], scope: dict[str, Any]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, str):
            yield node
        elif node[0] == "range":
            for index, turn in enumerate(scope["turns"]):
                yield from _said(node[1], {**scope, "index": index, "turn": turn})
        elif node[0] == "if":
            yield from _said(node[2] if _value(node[1], scope) else node[3], scope)
        elif not node[1].startswith("$last := "):
            yield str(_value(node[1], scope))
        else:
            assert node[1] == "$last := eq (len (slice $.Messages $i)) 1"


def _value(expression: str, scope: Mapping[str, Any]) -> Any:
    turn, last = scope.get("turn", {}), scope.get("index") == len(scope["turns"]) - 1
    known = {".System": scope["system"], "$.System": scope["system"], ".Content": turn.get("content")}
    known |= {f'eq .Role "{role}"': turn.get("role") == role for role in ("user", "assistant")}
    known |= {"$last": last, "not $last": not last, "and $.System (le $i 1)": scope["system"] and scope.get("index", 2) <= 1}
    return known[expression]
