"""What a data set looks like in figures: lengths, labels, languages. Pure, and cheap enough to compute whenever shown."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minilima.formats.records import Example
from minilima.formats.words import count_words
from minilima.generate.classification import label_balance
from minilima.generate.languages import languages
from minilima.generate.refusals import is_refusal

_PERCENTILES = {"p5": 5, "median": 50, "p95": 95}


def describe(examples: Sequence[Example]) -> dict[str, Any]:
    """Figures of the examples of a data set."""
    return {
        "classification": sum(bool(example.is_classification) for example in examples),
        "with_input": sum(bool(example.input) for example in examples),
        "instruction_words": word_statistics([example.instruction for example in examples]),
        "output_words": word_statistics([example.output for example in examples]),
        "refusals": sum(is_refusal(example.output) for example in examples),
        "languages": languages([f"{example.instruction} {example.output}" for example in examples]),
        **label_balance(examples),
    }


def word_statistics(texts: Sequence[str]) -> dict[str, float]:
    """Mean and percentiles of the number of words (`formats.words`)."""
    words = [count_words(text) for text in texts] or [0]
    values = {name: float(np.percentile(words, percentile)) for name, percentile in _PERCENTILES.items()}
    return {"mean": round(float(np.mean(words)), 1), **values}
