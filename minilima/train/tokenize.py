"""From examples to token ids and labels: one chat template, loss on answers and their end-of-turn tokens only. Pure.

The prompt part is exactly what the model sees when it is asked later (`add_generation_prompt=True`), so that training and
answering cannot differ; this is checked for every example.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from minilima.errors import MinilimaError
from minilima.formats.records import Example

IGNORED = -100
"""Label of tokens without loss (torch's cross_entropy)."""


@dataclass(frozen=True, kw_only=True)
class TokenizedExample:
    """Token ids and labels of one example, both of the same length; labels are IGNORED where there is no loss."""

    input_ids: list[int]
    labels: list[int]


def tokenize_example(
    example: Example, tokenizer: PreTrainedTokenizerBase, max_tokens: int, *, train_on_prompt: bool = False
) -> TokenizedExample:
    """Applies the chat template and masks what the user said; every answer of a conversation has loss.

    Args:
        example: what to learn.
        tokenizer: with a chat template and an eos_token that ends a turn.
        max_tokens: longer examples are cut at the end.
        train_on_prompt: whether the prompts have loss too.

    Raises:
        MinilimaError: the template renders a conversation differently with and without its answers.
    """
    turns = example.messages()
    whole = _ids(tokenizer, turns, add_generation_prompt=False)
    answers = _answers(turns, whole, tokenizer)
    length = min(answers[-1][1], max_tokens)
    labels = whole[:length] if train_on_prompt else [IGNORED] * length
    for start, end in answers:
        labels[start:end] = whole[start : min(end, length)]
    return TokenizedExample(input_ids=whole[:length], labels=labels)


def _answers(turns: list[dict[str, str]], whole: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    """Where in `whole` each answer starts, and where it ends with its end-of-turn token included."""
    places = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    prompts = [_ids(tokenizer, turns[:place], add_generation_prompt=True) for place in places]
    if any(list(whole[: len(prompt)]) != prompt for prompt in prompts):
        raise MinilimaError(
            "The chat template is not consistent.",
            "With the answer added, the tokens before it change: the model would be trained on other prompts than it is asked.",
            "Use a model whose template has a fixed generation prompt.",
        )
    starts = [len(prompt) for prompt in prompts]
    spans = []
    for place, start, limit in zip(places, starts, [*starts[1:], len(whole)], strict=True):
        # The answer may itself hold the token, and a template may render an answer shorter once others follow (Qwen3
        # keeps a block of reasoning in the last one only): counting the tokens is right for both.
        count = _ids(tokenizer, turns[: place + 1], add_generation_prompt=False)[start:].count(tokenizer.eos_token_id)
        spans.append((start, _end_of_turn(whole[:limit], start, count, tokenizer)))
    return spans


def _ids(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> list[int]:
    try:
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, return_dict=False)
    except TemplateError as error:
        raise MinilimaError(
            "The model's chat template refuses a conversation.",
            f"It says: {error}. The roles are: {', '.join(turn['role'] for turn in turns)}.",
            "Use a model whose template takes these roles, or take that conversation out of the data.",
        ) from None
    return list(ids)


def _end_of_turn(ids: Sequence[int], start: int, count: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """Position after the answer's end-of-turn token; what the template adds behind it is never generated."""
    ends = [place for place in range(start, len(ids)) if ids[place] == tokenizer.eos_token_id]
    if not 0 < count <= len(ends):
        raise MinilimaError(
            "The chat template does not end a turn with the tokenizer's eos_token.",
            "The model would never learn to stop.",
            f"Set eos_token to the token that ends a turn in this template (it is {tokenizer.eos_token!r}).",
        )
    return ends[count - 1] + 1


def check_tokens(examples: Sequence[TokenizedExample], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses two mistakes that spoil a training silently.

    Raises:
        MinilimaError: padding is the end of a turn, or examples begin with two tokens that begin a text.
    """
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise MinilimaError(
            f"The tokenizer pads with {tokenizer.eos_token!r}, which ends a turn.",
            "Where padding has no loss, the model would never learn to stop.",
            "Give it a pad_token of its own in tokenizer_config.json.",
        )
    begin = tokenizer.bos_token_id
    if begin is not None and any(example.input_ids[:2] == [begin, begin] for example in examples):
        raise MinilimaError(
            f"Examples begin with {tokenizer.bos_token!r} twice.",
            "The chat template writes it and the tokenizer adds another; models are asked with one.",
            "Take it out of the template, or set add_bos_token to false in tokenizer_config.json.",
        )


def masked_text(example: TokenizedExample, tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[str, bool], ...]:
    """The text of an example in pieces, each with whether it has loss."""
    pieces = []
    pairs = zip(example.input_ids, example.labels, strict=True)
    for trained, run in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        pieces.append((str(tokenizer.decode([token for token, _ in run])), trained))
    return tuple(pieces)


def check_trained_ends(examples: Sequence[TokenizedExample], end_id: int, max_tokens: int) -> int:
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
