"""The rows of the verdict browser: both answers to each prompt, who won, and what the judge said."""

import json
from collections.abc import Mapping
from typing import Any

from minilima.formats.files import read_jsonl
from minilima.formats.records import Verdict
from minilima.store.entries import Artifact


def verdict_rows(artifacts: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """One row a prompt, in the order of the evaluation set; empty where nothing was judged."""
    if "verdicts" not in artifacts:
        return []
    tuned, base = (
        {row["id"]: row for row in read_jsonl(artifacts[role].path / "answers.jsonl")}
        for role in ("answers", "reference_answers")
    )
    outputs = json.loads((artifacts["answers"].path / "model_outputs.json").read_text(encoding="utf-8"))
    categories = {row["instruction"]: row.get("dataset") for row in outputs}
    return [
        {
            "id": verdict.id,
            "instruction": tuned[verdict.id]["instruction"],
            "category": categories.get(tuned[verdict.id]["instruction"]) or "",
            "outcome": _outcome(verdict.preference),
            "preference": verdict.preference,
            "flipped": is_flipped(verdict),
            "tuned": _answer(tuned[verdict.id]),
            "base": _answer(base[verdict.id]),
            "words": verdict.explanation or "",
        }
        for verdict in (Verdict(**row) for row in read_jsonl(artifacts["verdicts"].path / "verdicts.jsonl"))
    ]


def _outcome(preference: float | None) -> str:
    if preference is None:
        return "unread"
    return "won" if preference > 1.5 else "lost" if preference < 1.5 else "tied"


def is_flipped(verdict: Verdict) -> bool:
    """Whether the two orders of presentation led to different winners: the judge went by the place, not by the answer."""
    sides = {(order > 1.5) - (order < 1.5) for order in verdict.orders}
    return len(sides) > 1


def _answer(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": row["output"], "words": len(row["output"].split()), "cut": row["truncated"]}
