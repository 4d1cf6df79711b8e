"""The rows of the verdict browser: both answers to each prompt, who won, and what the judge said."""

from collections.abc import Mapping
from typing import Any

from minilima.evaluate.judged import Judged
from minilima.evaluate.panel import is_split
from minilima.formats.records import TIE, Answer, Verdict
from minilima.formats.words import count_words
from minilima.report.panel import Panel


def all_rows(judged: Judged | None, references: Mapping[str, str] | None, panel: Panel | None) -> list[dict[str, Any]]:
    """As `verdict_rows`, of all evaluation sets; each row has what every judge said, where there are several."""
    if panel is None:
        return verdict_rows(judged, references)
    rows = []
    for one in panel.sets:
        first, *_ = one.opinions
        for row in verdict_rows(first.judged, references):
            said = [(opinion.asked.judge, opinion.verdicts[row["id"]]) for opinion in one.opinions]
            row["set"] = one.set
            if len(said) > 1:
                row["judges"] = [
                    {"name": name, "outcome": _outcome(verdict.preference), "words": verdict.explanation or ""}
                    for name, verdict in said
                ]
                row["split"] = is_split([verdict for _, verdict in said])
            rows.append(row)
    return rows


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
