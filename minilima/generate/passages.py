"""Examples as texts for a model that scores them: the answer after its question or alone, with or without template."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from minilima.config.choices import Thinking
from minilima.formats.records import Example
from minilima.generate.tools import Text
from minilima.models.reader import Passage
from minilima.models.template import prompt_ids, prompt_text, render
from minilima.models.tokenizer import adds_bos

_A_THREAD = 500
"""Examples for which another thread is worth it; the tokenizer computes without Python's lock."""


def passages(
    examples: Sequence[Example], text: Text, tokenizer: Any, thinking: Thinking | None = None, *, with_end: bool = False
) -> list[Passage]:
    """The examples in tokens.

    Args:
        with_end: whether the end of the turn counts as a part of the answer, as it does in training.

    Raises:
        MinilimaError: the chat template does not render a conversation as it is.
    """
    if text == Text.answer:
        return answers_alone(passages(examples, Text.conversation, tokenizer, thinking, with_end=with_end), tokenizer, thinking)
    forms: dict[Text, Callable[[Any, Example], Passage]] = {Text.plain: _plain, Text.plain_answer: _plain_answer}
    return _threaded(examples, tokenizer, forms.get(text, partial(_rendered, thinking=thinking, with_end=with_end)))


def answers_alone(conversations: Sequence[Passage], tokenizer: Any, thinking: Thinking | None) -> list[Passage]:
    """The same tokens of the answers, after nothing but the template's beginning of an answer."""
    begin = _begin(tokenizer, thinking)
    bodies = [list(whole.ids[whole.start : whole.end]) for whole in conversations]
    return [Passage(ids=[*begin, *body], start=len(begin), end=len(begin) + len(body)) for body in bodies]


def question(text: str, tokenizer: Any, thinking: Thinking | None, longest: int) -> Passage:
    """A request to the model, up to where it answers; of one that is too long, the middle is left out."""
    ids = prompt_ids(tokenizer, [{"role": "user", "content": text}], thinking)
    if len(ids) > longest:
        ids = [*ids[: longest // 2], *ids[longest // 2 - longest :]]
    return Passage(ids=ids, start=len(ids), end=len(ids))


def _rendered(tokenizer: Any, example: Example, *, thinking: Thinking | None, with_end: bool) -> Passage:
    rendered = render(tokenizer, example.messages(), thinking, f"row {example.id}")
    start, end = rendered.answers[-1]
    end -= 0 if with_end else 1
    return Passage(ids=rendered.ids[:end], start=start, end=end)


def _begin(tokenizer: Any, thinking: Thinking | None) -> list[int]:
    """What the template writes where the assistant begins to speak."""
    asked = [{"role": "user", "content": "a"}]
    header = prompt_text(tokenizer, asked, thinking).removeprefix(prompt_text(tokenizer, asked, thinking, complete=True))
    first = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
    return [*first, *tokenizer(header, add_special_tokens=False)["input_ids"]]


def _plain(tokenizer: Any, example: Example) -> Passage:
    before = "".join(f"{user}\n{assistant}\n" for user, assistant in example.history)
    asked = example.prompt or "\n".join(part for part in (example.instruction, example.input) if part)
    head = f"{before}{asked}\n"
    ids = list(tokenizer(head + example.output)["input_ids"])
    return Passage(ids=ids, start=min(len(ids), len(tokenizer(head)["input_ids"])), end=len(ids))


def _plain_answer(tokenizer: Any, example: Example) -> Passage:
    ids = list(tokenizer(example.output)["input_ids"])
    return Passage(ids=ids, start=0, end=len(ids))


def _threaded(examples: Sequence[Example], tokenizer: Any, form: Callable[[Any, Example], Passage]) -> list[Passage]:
    threads = min(os.cpu_count() or 1, 1 + len(examples) // _A_THREAD)
    if threads == 1:
        return [form(tokenizer, example) for example in examples]
    # The first call may set the tokenizer up, later ones only read it: threads share it. To copy a large one takes seconds.
    first = form(tokenizer, examples[0])
    with ThreadPoolExecutor(threads) as pool:
        return [first, *pool.map(partial(form, tokenizer), examples[1:])]
