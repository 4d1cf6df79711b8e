"""What a data set looks like in figures: lengths, labels, scripts. Pure, and cheap enough to compute whenever shown."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from minilima.construct.instances import label_balance
from minilima.records import Example

_PERCENTILES = {"p5": 5, "median": 50, "p95": 95}


def describe(examples: Sequence[Example]) -> dict[str, Any]:
    """Figures of the examples of a data set."""
    return {
        "classification": sum(bool(example.is_classification) for example in examples),
        "with_input": sum(bool(example.input) for example in examples),
        "instruction_words": word_statistics([example.instruction for example in examples]),
        "output_words": word_statistics([example.output for example in examples]),
        "scripts": scripts([f"{example.instruction} {example.output}" for example in examples]),
        **label_balance(examples),
    }


def word_statistics(texts: Sequence[str]) -> dict[str, float]:
    """Mean and percentiles of the number of words (runs between white space)."""
    words = [len(text.split()) for text in texts] or [0]
    values = {name: float(np.percentile(words, percentile)) for name, percentile in _PERCENTILES.items()}
    return {"mean": round(float(np.mean(words)), 1), **values}


def scripts(texts: Sequence[str]) -> dict[str, int]:
    """How many texts are mostly in which script, by the Unicode names of their letters: a stand-in for the language."""
    return dict(Counter(_script(text) for text in texts).most_common())


def _script(text: str) -> str:
    names = Counter(unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0] for letter in text if letter.isalpha())
    return names.most_common(1)[0][0].capitalize() if names else "None"
