"""The rows of the verdict browser: both answers to each prompt, who won, and what the judge said."""

from collections.abc import Mapping
from typing import Any

from minilima.evaluate.judged import Judged
from minilima.formats.records import TIE, Answer, Verdict
from minilima.formats.words import count_words


def verdict_rows(judged: Judged | None, references: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """One row a prompt, in the order of the evaluation set; empty where nothing was judged.

    Args:
        judged: the answers and their verdicts.
        references: the set's own answer to each prompt that has one, by the prompt's id.
    """
    known = references or {}
    return [
        {
            "id": prompt.id,
            "instruction": prompt.instruction,
            "category": prompt.category or "",
            "outcome": _outcome(prompt.verdict.preference),
            "preference": prompt.verdict.preference,
            "weight": prompt.verdict.weight,
            "scores": prompt.verdict.scores,
            "flipped": is_flipped(prompt.verdict),
            "tuned": _answer(prompt.tuned),
            "base": _answer(prompt.reference),
            "words": prompt.verdict.explanation or "",
            "reference": known.get(prompt.id, ""),
        }
        for prompt in (judged.prompts if judged is not None else ())
    ]


def _outcome(preference: float | None) -> str:
    if preference is None:
        return "unread"
    return "won" if preference > TIE else "lost" if preference < TIE else "tied"


def is_flipped(verdict: Verdict) -> bool:
    """Whether the two orders of presentation led to different winners: the judge followed the position, not the answer."""
    sides = {(order > TIE) - (order < TIE) for order in verdict.orders}
    return len(sides) > 1


def _answer(answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "words": count_words(answer.text), "cut": answer.truncated}
