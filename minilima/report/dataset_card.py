"""The data card: README.md of an exported data set, from its examples and manifests. Pure.

Rows, reasons, names and commands are other people's text: they stand in code spans and code blocks that they cannot close,
and what a reader could not see is written as an escape.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import mean, median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from minilima.environment import PACKAGE
from minilima.formats.records import Example
from minilima.formats.words import count_words
from minilima.generate.classification import label_balance
from minilima.generate.languages import languages
from minilima.generate.refusals import is_refusal

ROWS_SHOWN = 10
CHARACTERS_SHOWN = 600
"""Longer texts are cut in the rows that are shown."""

_FILTER_SETTINGS = (
    "min_words", "max_words", "blocked_words", "max_similarity", "tokenizer", "min_output_words", "max_output_words", "select",
    "encoding",
)  # fmt: skip
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who or what wrote the rows that are no seed tasks: a few words, a name, and a sentence on its terms."""

    what: str
    name: str
    terms: str


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """The content of a card. `pool` is the pool's manifest, None where the store no longer has it."""

    name: str
    examples: Sequence[Example]
    dataset: Mapping[str, Any]
    pool: Mapping[str, Any] | None
    origin: Origin
    model: str | None = None
    """The name on the hub of a model that was trained on the data."""


def card_text(facts: CardFacts) -> str:
    """The card as Markdown with a YAML header."""
    # Markdown, not HTML: what is not ours goes through `code` or `fenced`.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(PACKAGE / "report" / "page"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"code": code, "yaml": yaml_text}
    recipe, pool = facts.dataset["recipe"], facts.pool or {}
    pool_recipe = pool.get("recipe", {})
    left_out = {"From the pool to the data set": facts.dataset["metrics"].get("reasons", {})}
    text = environment.get_template("dataset_card.md.j2").render(
        name=facts.name,
        examples=facts.examples,
        size_category=next((label for limit, label in _SIZES if len(facts.examples) < limit), "n>1M"),
        version=facts.dataset["packages"].get("minilima", "unknown"),
        made=facts.dataset["created_at"][:10],
        sources=dict(Counter(example.source for example in facts.examples).most_common()),
        multi_turn=sum(bool(example.history) for example in facts.examples),
        with_system=sum(example.system is not None for example in facts.examples),
        origin=facts.origin,
        model=facts.model,
        seeds=pool_recipe.get("seeds") or recipe.get("seeds"),
        # The path of the interpreter says more about its owner than about the data.
        command=re.sub(r"^\S*/(?=\S)", "", facts.dataset["command"]),
        entry=f"{facts.dataset['stage']}-{facts.dataset['key']}",
        pool_known=facts.pool is not None,
        left_out={"While the pool was made": pool["metrics"].get("reasons", {}), **left_out} if pool else left_out,
        settings={key: value for key in _FILTER_SETTINGS if (value := {**recipe, **pool_recipe}.get(key)) is not None},
        decontaminated=recipe.get("decontaminate"),
        contaminated=facts.dataset["metrics"].get("reasons", {}).get("contamination", 0),
        max_similarity=recipe.get("max_similarity"),
        lengths=_lengths(facts.examples),
        languages=languages([f"{example.instruction} {example.output}" for example in facts.examples]),
        refusals=sum(is_refusal(example.output) for example in facts.examples),
        classification=sum(bool(example.is_classification) for example in facts.examples),
        balance=label_balance(facts.examples),
        shown=[fenced(_shown(example)) for example in facts.examples[:ROWS_SHOWN]],
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def code(value: object) -> str:
    """A code span that holds `value` on one line, whatever is in it; not for tables, where a bar would end the cell."""
    text = _visible(" ".join(str(value).split())) or "-"
    mark = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{mark}{pad}{text}{pad}{mark}"


def fenced(text: str) -> str:
    """A code block of JSON that holds `text`, whatever is in it."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}json\n{_visible(text)}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(list(run)) for char, run in groupby(text) if char == "`"), default=0)


def _visible(text: str) -> str:
    """`text` with every character that does not print (controls, reversed writing) as a JSON escape."""
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def yaml_text(text: str) -> str:
    """A YAML string: double-quoted YAML takes JSON's escapes."""
    return _visible(json.dumps(text, ensure_ascii=False))


def _shown(example: Example) -> str:
    def cut(text: str) -> str:
        more = len(text) - CHARACTERS_SHOWN
        return text if more <= 0 else f"{text[:CHARACTERS_SHOWN]}… ({more:,} characters more)"

    row: dict[str, Any] = {
        "id": example.id,
        "source": example.source,
        "system": cut(example.system or ""),
        "history": [[cut(user), cut(assistant)] for user, assistant in example.history],
        "instruction": cut(example.instruction),
        "input": cut(example.input),
        "output": cut(example.output),
    }
    return json.dumps({key: value for key, value in row.items() if value}, ensure_ascii=False, indent=1)


def _lengths(examples: Sequence[Example]) -> dict[str, dict[str, str]]:
    """Words of what the user says and of the answers, all turns of a conversation together."""
    words: dict[str, list[int]] = {"what the user says": [], "the answer": []}
    for example in examples:
        for what, role in zip(words, ("user", "assistant"), strict=True):
            words[what].append(sum(count_words(turn["content"]) for turn in example.messages() if turn["role"] == role))
    return {what: _spread(sorted(counts)) for what, counts in words.items()}


def _spread(ordered: Sequence[int]) -> dict[str, str]:
    ninety = ordered[max(0, -(-len(ordered) * 9 // 10) - 1)]
    figures = {"least": ordered[0], "median": median(ordered), "mean": mean(ordered), "ninety": ninety, "most": ordered[-1]}
    return {name: f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}" for name, value in figures.items()}
