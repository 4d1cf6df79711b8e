"""Guesses in which language a text is, from its script and from words of grammar. Pure, and cheap."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

LATIN = "Latin"
NO_LETTERS = "None"
UNKNOWN = "unknown"
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
    return dict(Counter(language_of(text) for text in texts).most_common())


def language_of(text: str) -> str:
    """The language of a text in Latin script, or `unknown`; the name of any other script."""
    if (script := script_of(text)) != LATIN:
        return script
    words = Counter(re.findall(r"[^\W\d_]+", text.lower()))
    scores = {language: sum(words[word] for word in known) for language, known in _LANGUAGES.items()}
    best = max(scores, key=lambda language: scores[language])
    return best if scores[best] >= 2 else UNKNOWN


def is_foreign(text: str) -> bool:
    """Whether a text in Latin script is clearly not English: different words of another language's grammar are twice as many."""
    words = set(re.findall(r"[^\W\d_]+", text.lower()))
    scores = {language: len(words & known) for language, known in _LANGUAGES.items()}
    most = max(scores.values())
    return most >= 2 and most > 2 * scores["English"]


def script_of(text: str) -> str:
    """The script of most letters, by their Unicode names: Latin, Cyrillic, CJK …"""
    names = Counter(unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0] for letter in text if letter.isalpha())
    script = names.most_common(1)[0][0] if names else NO_LETTERS
    return script if script == "CJK" else script.capitalize()
