"""Prompts whose answers a program can check, packaged: an accuracy without a judge, strict and loose.

minilima_verifiable.jsonl ─> Item(instruction, checks) ─> score(answer) ─> (strict, loose)
Strict takes the answer as it is. Loose also takes it without its first line, its last line, both, and without asterisks, which
is how IFEval (Zhou et al. 2023, section 2.2) forgives a greeting or bold type; each check may hold in another form, as there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minilima.evaluate.verifiable_checks import CHECKS
from minilima.formats.files import DATA, read_jsonl

NAME = "minilima_verifiable"
FILE = DATA / f"{NAME}.jsonl"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One prompt, what its answer must fulfil, and an answer that does."""

    id: str
    category: str
    instruction: str
    checks: tuple[Mapping[str, Any], ...]
    """`kind` names a check, the other values are its arguments; all must hold."""
    output: str


@dataclass(frozen=True, kw_only=True)
class Score:
    """Whether an answer fulfils all checks of its prompt."""

    strict: bool
    loose: bool


def load_items(size: int | None = None) -> list[Item]:
    """The packaged prompts, or the first `size` of them; every beginning is balanced over the categories."""
    return [Item(**{**row, "checks": tuple(row["checks"])}) for row in read_jsonl(FILE)][:size]


def score(item: Item, answer: str) -> Score:
    """Checks an answer strictly and loosely."""
    forms = _forms(answer)
    return Score(
        strict=all(_holds(check, answer) for check in item.checks),
        loose=all(any(_holds(check, form) for form in forms) for check in item.checks),
    )


def _holds(check: Mapping[str, Any], answer: str) -> bool:
    arguments = {name: value for name, value in check.items() if name != "kind"}
    return bool(answer.strip()) and CHECKS[check["kind"]](answer, **arguments)


def _forms(answer: str) -> list[str]:
    """The answer in the forms that the loose score takes as well."""
    lines = answer.split("\n")
    cut = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(form.replace("*", "") for form in cut)]
