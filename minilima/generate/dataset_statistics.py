"""What a data set looks like in figures: lengths, labels, languages. Pure, and cheap enough to compute whenever shown."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from minilima.formats.records import Example
from minilima.formats.words import count_words
from minilima.generate.classification import label_balance
from minilima.generate.filters import is_refusal

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


_LATIN = "Latin"
_UNKNOWN = "unknown"
# Words of grammar that are frequent in one of these languages and rare or absent in the others.
_WORDS = {
    "English": "the of and to is that with for it this are you from which was have not",
    "German": "der die und das ist nicht ein eine mit für auf sich dem den auch wird",
    "French": "le la les des et est une dans pour que qui pas sur du au avec ce",
    "Spanish": "el los las una es y en que por con para del como su más está",
    "Italian": "il che di è un per non gli della con sono dei una nel più alla",
    "Portuguese": "o os uma é em não que com para do da dos mais como são ao",
    "Dutch": "de het een en van is niet dat op te voor met zijn ook aan wordt",
    "Danish": "og at er det en af på ikke til som den med for har et fra",
    "Swedish": "och att är det en av på inte till som den med för har ett från",
}
_LANGUAGES = {language: frozenset(words.split()) for language, words in _WORDS.items()}


def languages(texts: Sequence[str]) -> dict[str, int]:
    """How many texts are in which language, guessed from words of grammar; in another script than Latin, its name.

    A text in Latin script with fewer than two such words is unknown: a line of code, a name, a label.
    """
    return dict(Counter(_language(text) for text in texts).most_common())


def _language(text: str) -> str:
    script = _script(text)
    if script != _LATIN:
        return script
    words = Counter(re.findall(r"[^\W\d_]+", text.lower()))
    scores = {language: sum(words[word] for word in known) for language, known in _LANGUAGES.items()}
    best = max(scores, key=lambda language: scores[language])
    return best if scores[best] >= 2 else _UNKNOWN


def _script(text: str) -> str:
    """The script of most letters, by their Unicode names: Latin, Cyrillic, CJK …"""
    names = Counter(unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0] for letter in text if letter.isalpha())
    script = names.most_common(1)[0][0] if names else "None"
    return script if script == "CJK" else script.capitalize()
