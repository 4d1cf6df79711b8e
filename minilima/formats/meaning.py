"""Keys of a row or of a turn that change what it means: each is honoured, or refused by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from minilima.formats.broken import BrokenRowError

SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction")
"""What data sets call the message that opens a conversation."""

PICTURES = tuple(
    f"{kind}{end}" for kind in ("image", "img", "audio", "video") for end in ("", "s", "_path", "_paths", "_url", "_urls")
)
"""Columns with what a text model neither sees nor hears."""
_NOT_UNDERSTOOD = {
    **dict.fromkeys(PICTURES, "A text model neither sees nor hears."),
    **dict.fromkeys(("tools", "functions", "tool_calls", "function_call", "tool_call_id"), "Calls of tools are not learnt here."),
    **dict.fromkeys(("reasoning_content", "reasoning", "thinking"), "Thoughts before an answer are not learnt here."),
    "chat_template_kwargs": "Settings of the chat template are model.thinking and the template itself here.",
    "documents": "Documents beside a conversation are not shown to the model.",
    "prefix": "An answer whose beginning is given is not learnt here.",
    "train_detail": "A turn is learnt as a whole, or not at all.",
}
_NOTHING: tuple[object, ...] = (None, "", [], {}, "[]", "{}", False)
_LEARNT = {"weight": "weight_0", "train": "train_false"}
_ALSO_LEARNT = ("loss", "train_on_turn", "trainable", "learn", "loss_mask")
"""Of axolotl, ms-swift and others; of a row, they may be something else: a loss that was measured."""
_MASKED = ("mask", "masked", "deleted", "is_deleted")
GOOD = ("kto_tag", "desirable", "is_desirable", "is_chosen", "is_correct")
"""Beside `label`, whether an answer is a good one."""
LATER_REASONS = frozenset((*(f"{key}_false" for key in (*_ALSO_LEARNT, *GOOD)), *(f"{key}_true" for key in _MASKED)))
"""Reasons for rejecting what earlier versions of this reader learned."""
_YES_NO = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_OPTIONS = ("choices", "options")


def check_keys(values: Mapping[str, Any], where: str = "") -> None:
    """Refuses a key of a row or of a turn that changes what the row means, and that cannot be honoured."""
    for key, why in _NOT_UNDERSTOOD.items():
        if key in values and values[key] not in _NOTHING:
            raise BrokenRowError(f"has {key}{where}, which is not understood", why)


def check_options(values: Mapping[str, Any], asked: str) -> None:
    """Refuses answers to choose from that stand beside the question, and not in it."""
    for key in _OPTIONS:
        given = values.get(key)
        texts = given.get("text") if isinstance(given, Mapping) else given
        listed = [str(text) for text in texts] if isinstance(texts, Sequence) and not isinstance(texts, str) else [texts or ""]
        if any(text not in asked for text in listed):
            raise BrokenRowError(
                f"has {key} that its question does not name", "Without them the model would be asked something else."
            )


def check_text(text: str, what: str) -> None:
    """Refuses a text that cannot be written as UTF-8, or that speaks of what a text model does not get."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise BrokenRowError(f"has half a character in its {what}", "A \\ud8…-escape stands there without its second half.")
    for mark in ("<image>", "<audio>", "<video>"):
        if mark in text and mark.replace("<", "</") not in text:  # with its end it is a text about HTML
            raise BrokenRowError(f"has the mark {mark} in its {what}", "A text model neither sees nor hears.")


def left_out(values: Mapping[str, Any], *, turn: bool) -> str | None:
    """Why a row or a turn says of itself that it is not to be learnt: weight 0, train false, masked."""
    for key, reason in _LEARNT.items():
        if not (truth(key, values[key]) if values.get(key) not in (None, "") else True):
            return reason
    for key in (*_ALSO_LEARNT, *GOOD, *_MASKED):
        value, masks = values.get(key), key in _MASKED
        if value in (None, "") or (not turn and str(value).lower() not in _YES_NO):
            continue
        if truth(key, value) == masks:
            return f"{key}_{'true' if masks else 'false'}"
    return None


def truth(key: str, value: object) -> bool:
    """A yes or no, which tables without types hold as a text."""
    if (said := _YES_NO.get(str(value).lower())) is None:
        raise BrokenRowError(f"has the {key} {value!r}", "Only 0 and 1, or true and false, are understood.")
    return said


def honoured(values: Mapping[str, Any], *, turn: bool) -> set[str]:
    """Those of its keys that say whether it is learnt, or that are refused unless they are empty."""
    masks = {key for key in (*_ALSO_LEARNT, *GOOD, *_MASKED) if turn or str(values.get(key)).lower() in _YES_NO}
    return {*_LEARNT, *_NOT_UNDERSTOOD, *_OPTIONS, *masks} & {str(key) for key in values}
