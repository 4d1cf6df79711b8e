"""What a request becomes in tokens: the prompt, the tokens that may end its reply, and how many there is room for."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedTokenizerBase

from minilima.config.choices import Thinking
from minilima.errors import MinilimaError
from minilima.models.chat import TEXT, Message, Request
from minilima.models.template import prompt_ids, prompt_text, turn_end


def asked_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prefill: str | None = None, thinking: str | None = None
) -> list[int]:
    """A conversation as the template renders it, up to where the assistant speaks; or a text as it is."""
    if messages[0].role == TEXT:
        text: list[int] = tokenizer.encode(messages[0].content)
        ends = len(text) > 1 and text[-1] == tokenizer.eos_token_id
        return text[:-1] if ends and not messages[0].content.endswith(str(tokenizer.eos_token)) else text
    ids = prompt_ids(tokenizer, [asdict(message) for message in messages], Thinking(thinking) if thinking else None)
    return ids + (tokenizer.encode(prefill, add_special_tokens=False) if prefill else [])


def open_user_turn(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message]) -> str:
    """A conversation as the template renders it, up to where the user's next turn begins."""
    mark = "\ufffc"
    rendered = prompt_text(tokenizer, [*map(asdict, turns), {"role": "user", "content": mark}], complete=True)
    return rendered.partition(mark)[0]


def end_ids(tokenizer: PreTrainedTokenizerBase, generation: Any) -> list[int]:
    """Tokens that end a turn, by the template, by the tokenizer and by a model's generation_config."""
    ids = generation.eos_token_id
    known = ids if isinstance(ids, list) else [ids]
    return sorted({token for token in (*known, tokenizer.eos_token_id, turn_end(tokenizer)) if token is not None})


def reply_tokens(request: Request, prompt: Sequence[int], context: int | None, name: str) -> int:
    """The most tokens that the reply to `prompt` may have in a context of so many.

    Raises:
        MinilimaError: there is no room for any.
    """
    if context is None:
        return request.sampling.max_tokens
    if len(prompt) >= context:
        raise MinilimaError(
            f"A prompt of {len(prompt):,} tokens does not fit into {name}.",
            f"Its context is {context:,} tokens.",
            "Use fewer or shorter demonstrations, or a model with a longer context.",
        )
    return min(request.sampling.max_tokens, context - len(prompt))
