"""From examples to token ids and labels: loss on answers and their end-of-turn tokens only. Pure.

Which tokens those are is read from the conversation as the chat template renders it (`models/template.py`), as it is for the
loss on reference answers and for what the model is asked with later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from minilima.config.choices import Thinking
from minilima.errors import MinilimaError
from minilima.formats.records import Example
from minilima.models.packing import IGNORED
from minilima.models.template import render

UNTRAINED = 0.05
"""Largest share of the examples that may have no token to learn."""


@dataclass(frozen=True, kw_only=True)
class TokenizedExample:
    """Token ids and labels of one example, both of the same length; labels are IGNORED where there is no loss."""

    input_ids: list[int]
    labels: list[int]


def tokenize_example(
    example: Example,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    *,
    train_on_prompt: bool = False,
    thinking: Thinking | None = None,
) -> TokenizedExample:
    """Applies the chat template and masks what the user said; every answer of a conversation has loss.

    Args:
        example: what to learn.
        tokenizer: with a chat template that ends every turn with a token of its own.
        max_tokens: longer examples are cut at the end.
        train_on_prompt: whether the prompts have loss too.
        thinking: `model.thinking`.

    Raises:
        MinilimaError: the template does not render the conversation as it is.
    """
    rendered = render(tokenizer, example.messages(), thinking, f"row {example.id}")
    whole, answers = rendered.ids, rendered.answers
    length = min(answers[-1][1], max_tokens)
    labels = whole[:length] if train_on_prompt else [IGNORED] * length
    for start, end in answers:
        labels[start:end] = whole[start : min(end, length)]
    return TokenizedExample(input_ids=whole[:length], labels=labels)


def check_tokens(examples: Sequence[TokenizedExample], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a mistake that spoils a training silently.

    Raises:
        MinilimaError: examples begin with two tokens that begin a text.
    """
    begin = tokenizer.bos_token_id
    if begin is not None and any(example.input_ids[:2] == [begin, begin] for example in examples):
        raise MinilimaError(
            f"Examples begin with {tokenizer.bos_token!r} twice.",
            "The chat template writes it and the tokenizer adds another; models are asked with one.",
            "Take it out of the template, or set add_bos_token to false in tokenizer_config.json.",
        )


def check_embeddings(examples: Sequence[TokenizedExample], vocabulary: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses tokens that the model has no embedding for; `vocabulary` is how many it has.

    Raises:
        MinilimaError: names the token.
    """
    highest = max((max(example.input_ids, default=0) for example in examples), default=0)
    if highest >= vocabulary:
        raise MinilimaError(
            f"The token {tokenizer.convert_ids_to_tokens(highest)!r} ({highest:,}) lies beyond the model's embeddings.",
            f"There are {vocabulary:,}: tokenizer and weights do not belong together.",
            "Take the tokenizer that came with the weights, or save the model after resize_token_embeddings.",
        )


def masked_text(example: TokenizedExample, tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[str, bool], ...]:
    """The text of an example in pieces, each with whether it has loss."""
    pieces = []
    pairs = zip(example.input_ids, example.labels, strict=True)
    for trained, run in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        pieces.append((str(tokenizer.decode([token for token, _ in run])), trained))
    return tuple(pieces)


def check_trained_ends(examples: Sequence[TokenizedExample], end_id: int | None, max_tokens: int) -> int:
    """How many examples train the end-of-turn token; the others were cut at `max_tokens`.

    Raises:
        MinilimaError: fewer than half do, so the model would not learn to stop.
    """
    trained = sum(bool(example.labels) and example.labels[-1] == end_id for example in examples)
    if trained < len(examples) / 2:
        raise MinilimaError(
            f"Only {trained:,} of {len(examples):,} examples keep their end of turn.",
            f"The others are longer than sft.max_tokens={max_tokens:,}, and a model trained on them would not stop.",
            "Raise sft.max_tokens.",
        )
    return trained


def check_trained(examples: Sequence[TokenizedExample], max_tokens: int) -> int:
    """How many examples have no token to learn, since they were cut at `max_tokens` before their answer.

    Raises:
        MinilimaError: more than UNTRAINED of them, so the model would learn from another data set than was named.
    """
    untrained = sum(all(label == IGNORED for label in example.labels[1:]) for example in examples)
    if untrained > UNTRAINED * len(examples):
        raise MinilimaError(
            f"{untrained:,} of {len(examples):,} examples have nothing to learn.",
            f"Their prompts alone take sft.max_tokens={max_tokens:,} or more, so the answers are cut off.",
            "Raise sft.max_tokens, or take long prompts out of the data.",
        )
    return untrained
