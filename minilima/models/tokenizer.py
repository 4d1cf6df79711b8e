"""A model's tokenizer as every stage uses it: with a chat template that renders the same text on every day.

Dates that a template takes from the clock are fixed (Llama 3.2's would change prompts daily, and no key). A model without a
template gets a plain one, with the beginning of text that its tokenizer adds to every text.
"""

import re
from datetime import date
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from minilima.errors import MinilimaError

# For models that come without a template. End of turn is the tokenizer's own end token: no new one has to be learned.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
DATE = date(2024, 7, 26)
"""The day that templates see: Llama 3.2's own where there is no clock."""
_NOW = re.compile(r"""strftime_now\(\s*(["'])([^"']*)\1\s*\)""")
_CLOCK = "strftime_now("
_CHANCE = re.compile(r"\|\s*random\b|\blipsum\s*\(")
_NO_THOUGHT = "{%- set enable_thinking = enable_thinking if enable_thinking is defined else false %}"


def split_location(location: str) -> tuple[str, str]:
    """(folder or hub name, revision) of a location; a folder's name may hold an @ of its own."""
    if Path(location).is_dir():
        return location, "main"
    name, _, revision = location.partition("@")
    return name, revision or "main"


def load_tokenizer(location: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model (folder, or owner/name@commit) with a chat template. It may have no token for padding, or pad
    with the end of a text: nothing here is padded with it.

    Raises:
        MinilimaError: it cannot be read, has no end, or its template draws lots.
    """
    name, revision = split_location(location)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise MinilimaError(
            f"The tokenizer of {name} cannot be read.",
            f"transformers says: {' '.join(str(error).split())[:300]}",
            "The model's folder must hold its tokenizer (tokenizer.json or tokenizer.model, tokenizer_config.json).",
        ) from None
    return completed(tokenizer, name)


def completed(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer with a template that does not change, and with a padding token if it has one to spare."""
    if not tokenizer.chat_template:
        if tokenizer.eos_token_id is None:
            raise MinilimaError(
                f"The tokenizer of {name} has neither a chat template nor an eos_token.",
                "Nothing would end an answer.",
                "Name the token that ends a text as eos_token in tokenizer_config.json, or use another model.",
            )
        tokenizer.chat_template = ("{{ bos_token }}" if adds_bos(tokenizer) else "") + PLAIN_TEMPLATE
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = {form: fixed(text, name) for form, text in tokenizer.chat_template.items()}
    else:
        tokenizer.chat_template = fixed(tokenizer.chat_template, name)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        # Other libraries do not learn from the token they pad with, so it had better not be the end of a turn.
        spare = (token for token in (tokenizer.unk_token, tokenizer.bos_token) if token not in (None, tokenizer.eos_token))
        if token := next(spare, None):
            tokenizer.pad_token = token
    return tokenizer


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer begins every text with its bos_token."""
    first: list[int] = tokenizer("a")["input_ids"][:1]
    return tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]


def fixed(template: str, name: str) -> str:
    """The template with the date DATE wherever it asks for today's.

    Raises:
        MinilimaError: it draws lots.
    """
    if _CHANCE.search(template):
        raise MinilimaError(
            f"The chat template of {name} draws lots.",
            "It would render the same conversation in another way each time.",
            "Take the random part out of its chat_template.",
        )
    still = _NOW.sub(lambda match: repr(DATE.strftime(match[2])), template)
    return _still_clock() + still if _CLOCK in still and not still.startswith("{%- macro strftime_now") else still


def _still_clock() -> str:
    """A macro in place of the clock, for templates that put the form of a date together."""
    parts = "".join(f" | replace('{part}', '{DATE.strftime(part)}')" for part in ("%d", "%b", "%B", "%Y", "%y", "%m", "%A", "%a"))
    return "{%- macro strftime_now(form) -%}{{- form" + parts + " -}}{%- endmacro -%}"


def without_thinking(template: Any) -> Any:
    """The template of a model that was trained without reasoning, which asks for none where nobody says otherwise."""
    known = isinstance(template, str) and "enable_thinking" in template and not template.startswith(_NO_THOUGHT)
    return _NO_THOUGHT + template if known else template
