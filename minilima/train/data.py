"""From examples to token ids and labels: one chat template, loss on the answer and its end-of-turn token only. Pure.

The prompt part is exactly what the model sees when it is asked later (`add_generation_prompt=True`), so that training and
answering cannot differ; this is checked for every example.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from minilima.errors import MinilimaError
from minilima.records import Example, user_text

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
    """Applies the chat template and masks the prompt.

    Args:
        example: what to learn.
        tokenizer: with a chat template and an eos_token that ends a turn.
        max_tokens: longer examples are cut at the end.
        train_on_prompt: whether the prompt has loss too.

    Raises:
        MinilimaError: the template renders a conversation differently with and without its answer.
    """
    prompt = [{"role": "user", "content": example.prompt or user_text(example.instruction, example.input)}]
    ids = _ids(tokenizer, prompt, add_generation_prompt=True)
    whole = _ids(tokenizer, [*prompt, {"role": "assistant", "content": example.output}], add_generation_prompt=False)
    if whole[: len(ids)] != ids:
        raise MinilimaError(
            "The chat template is not consistent.",
            "With the answer added, the tokens before it change: the model would be trained on other prompts than it is asked.",
            "Use a model whose template has a fixed generation prompt.",
        )
    end = _end_of_turn(whole, len(ids), tokenizer)
    input_ids = whole[: min(end, max_tokens)]
    visible = 0 if train_on_prompt else len(ids)
    labels = [IGNORED] * min(visible, len(input_ids)) + input_ids[visible:]
    return TokenizedExample(input_ids=input_ids, labels=labels)


def _ids(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> list[int]:
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, return_dict=False)
    return list(ids)


def _end_of_turn(ids: Sequence[int], start: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """Position after the answer's end-of-turn token; what the template adds behind it is never generated."""
    ends = [place for place in range(start, len(ids)) if ids[place] == tokenizer.eos_token_id]
    if not ends:
        raise MinilimaError(
            "The chat template does not end a turn with the tokenizer's eos_token.",
            "The model would never learn to stop.",
            f"Set eos_token to the token that ends a turn in this template (it is {tokenizer.eos_token!r}).",
        )
    return ends[-1] + 1


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
