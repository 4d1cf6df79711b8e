"""Verdicts of a judge that sees each answer alone: a score for either model, and the higher one is preferred.

answers ─> one question an answer (of a conversation: a turn) ─> scores ─> mean over turns ─> preference
No order of presentation can matter, since no two answers are shown together. Equal answers are asked about once.
"""

from collections.abc import Mapping, Sequence

from minilima.config.schema import JudgeConfig
from minilima.evaluate.judge_asking import ask_all, why_unread
from minilima.evaluate.judge_forms import FIRST_WINS, SECOND_WINS, JudgeForm, form_named
from minilima.formats.records import TIE, Answer, EvalPrompt, OnProgress, Verdict
from minilima.models.cache import CachedModel
from minilima.models.chat import Message, Reply, Request, ask
from minilima.prompts import render

Question = tuple[Message, ...]


def judge_alone(
    model: CachedModel,
    judge: JudgeConfig,
    pairs: Sequence[tuple[Answer, Answer]],
    prompts: Mapping[str, EvalPrompt],
    rubric: str,
    on_progress: OnProgress,
    *,
    first: int,
) -> list[Verdict]:
    """The verdict on each pair (reference model's answer, tuned model's), in their order.

    Args:
        model: the judge.
        judge: its settings.
        pairs: the answers.
        prompts: with reference answers and criteria, by the answers' ids.
        rubric: the text that a form with a rubric shows.
        on_progress: called with how far it is.
        first: how many requests are waited for before the others.
    """
    form = form_named(judge.prompt)
    asked = [tuple(_questions(form, answer, prompts.get(answer.id), rubric) for answer in pair) for pair in pairs]
    unique = list(dict.fromkeys(question for pair in asked for questions in pair for question in questions))
    requests = [Request(messages=question, sampling=form.sampling(judge), schema=form.schema) for question in unique]
    replies = dict(zip(unique, ask_all(model, requests, judge, on_progress, first=first), strict=True))
    return [
        _verdict(pair[1].id, form, *([replies[question] for question in questions] for questions in both))
        for pair, both in zip(pairs, asked, strict=True)
    ]


def _questions(form: JudgeForm, answer: Answer, prompt: EvalPrompt | None, rubric: str) -> list[Question]:
    """What is asked about one answer: its last turn, or each of its turns."""
    history = list(answer.history or ())
    turns = prompt.turns if prompt is not None and prompt.turns else (answer.instruction,)
    said = [*(text for _, text in history), answer.output]
    given = (prompt.references or (prompt.output or "",)) if prompt is not None else ()
    numbers = range(len(said)) if form.each_turn else [len(said) - 1]
    return [
        ask(
            render(
                form.template,
                instruction=turns[number],
                answer=said[number],
                history=history[:number],
                reference=given[number] if number < len(given) else "",
                criteria=(prompt.criteria if prompt is not None else None) or "",
                rubric=rubric,
            )
        )
        for number in numbers
    ]


def _verdict(identity: str, form: JudgeForm, base: Sequence[Reply], tuned: Sequence[Reply]) -> Verdict:
    """The verdict from the replies on either model's turns; unread if any of them cannot be read."""
    scored: list[tuple[float, float]] = []
    for pair in zip(base, tuned, strict=True):
        one, two = (form.read(reply) for reply in pair)
        if one is None or two is None:
            return Verdict(id=identity, explanation=why_unread(pair[0] if one is None else pair[1]))
        scored.append((one, two))
    reference, own = (sum(scores) / len(scored) for scores in zip(*scored, strict=True))
    preference = TIE if own == reference else SECOND_WINS if own > reference else FIRST_WINS
    shown = "+.3f" if form.needs_logprobs else ".3g"
    words = f"score of the tuned answer {own:{shown}}, of the reference model's {reference:{shown}}"
    if not form.needs_logprobs:
        words += "".join(
            f"\n\n[{who}{f', turn {number}' if len(scored) > 1 else ''}] {reply.text.strip()}"
            for who, replies in (("tuned", tuned), ("reference model", base))
            for number, reply in enumerate(replies, start=1)
        )
    return Verdict(
        id=identity,
        preference=preference,
        explanation=words,
        scores=(reference, own),
        turn_scores=tuple(scored) if len(scored) > 1 else None,
    )
