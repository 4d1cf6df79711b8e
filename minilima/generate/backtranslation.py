"""Instruction backtranslation: people's texts are the answers, the requests to them are written (Li et al. 2023, 2308.06259).

    texts ─> a request for each ─> how good an example is it, from 1 to 5 ─> data.min_score and above: kept, else rejected.jsonl
The model that writes also scores, as in the paper's self-curation; the paper does both twice, with a model trained between.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from minilima.formats.records import Example, OnProgress, Rejected
from minilima.generate.filters import instruction_fault
from minilima.generate.prompting import Prompter
from minilima.models.cache import CachedModel
from minilima.models.chat import FAILED, Reply, counted

_SCORE = re.compile(r"\b([1-5])\b")
_HEADING = re.compile(r"^\W*(?:the )?(?:request|instruction|prompt)\W*:\s*", re.IGNORECASE)
_SCORE_TOKENS = 4


def backtranslate(
    texts: Sequence[tuple[str, str]], model: CachedModel, prompter: Prompter, on_progress: OnProgress
) -> tuple[list[Example], list[Rejected]]:
    """Examples with a written request and a person's text as the answer, each with its `score`; and what was rejected.

    Args:
        texts: id and text of each.
        model: writes the requests and scores.
        prompter: asks it, as the experiment's `generator` and `data` say.
        on_progress: called reply by reply.
    """
    sampling = prompter.sampling(prompter.data.instruction_tokens)
    asked = [prompter.request("backtranslate", [], sampling, output=text) for _, text in texts]
    replies = model.reply_many(
        asked, counted(on_progress, len(asked), "requests"), usable=lambda reply: bool(_request_in(reply.text))
    )
    made = [
        Example(id=identity, instruction=_request_in(reply.text), input="", output=text, source="machine", request=reply.key)
        for (identity, text), reply in zip(texts, replies, strict=True)
    ]
    faults = [_fault(reply, prompter, example) for reply, example in zip(replies, made, strict=True)]
    going = [example for example, fault in zip(made, faults, strict=True) if fault is None]
    scores = dict(zip((each.id for each in going), score(going, model, prompter, on_progress), strict=True))
    examples, rejected, least = [], [], prompter.data.min_score or 1.0
    for example, fault in zip(made, faults, strict=True):
        value = scores.get(example.id)
        reason = fault or ("no_score" if value is None else f"score_{value:g}" if value < least else None)
        if reason is None:
            examples.append(replace(example, score=value))
        else:
            rejected.append(
                Rejected(id=example.id, text=example.instruction, reason=reason, output=example.output, request=example.request)
            )
    return examples, rejected


def score(examples: Sequence[Example], model: CachedModel, prompter: Prompter, on_progress: OnProgress) -> list[float | None]:
    """How good each is as an example, from 1 to 5; None where no reply said so."""
    sampling = prompter.greedy(_SCORE_TOKENS)
    requests = [prompter.request("curate", [], sampling, request=each.instruction, output=each.output) for each in examples]
    replies = model.reply_many(
        requests, counted(on_progress, len(requests), "scores"), usable=lambda reply: parse_score(reply.text) is not None
    )
    return [parse_score(reply.text) for reply in replies]


def parse_score(text: str) -> float | None:
    """The first number from 1 to 5 in a reply."""
    found = _SCORE.search(text)
    return float(found[1]) if found else None


def _request_in(text: str) -> str:
    """The request in a reply: without a heading or quotation marks around it."""
    return _HEADING.sub("", text.strip()).strip().strip('"“”*').strip()


def _fault(reply: Reply, prompter: Prompter, example: Example) -> str | None:
    if reply.finish == FAILED:
        return "no_reply"
    if reply.finish == "length":
        return "truncated"
    return instruction_fault(example.instruction, prompter.data)
