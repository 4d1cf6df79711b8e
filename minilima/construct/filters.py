"""What is left out of the pool, and the reason for each: pure predicates over texts."""

import re

from minilima.config import DataConfig


def instruction_fault(text: str, data: DataConfig) -> str | None:
    """The reason to reject an instruction, or None (Self-Instruct, section 2.2 and its code).

    Unlike the original, texts may begin with a letter of any script, and case is left as it is.
    """
    words = text.split()
    if not words:
        return "empty"
    if len(words) < data.min_words:
        return "too_short"
    if len(words) > data.max_words:
        return "too_long"
    if not text[0].isalnum() and text[0] not in "\"'¿¡(":
        return "starts_with_punctuation"
    lowered = text.lower()
    if any(lowered.startswith(beginning.lower()) for beginning in data.blocked_beginnings):
        return "blocked_beginning"
    for blocked in data.blocked_words:
        if re.search(rf"\b{re.escape(blocked.lower())}\b", lowered):
            return f"blocked_word:{blocked}"
    return "repeats_itself" if is_repetitive(text) else None


def instance_fault(*, instruction: str, input_text: str, output: str, truncated: bool) -> str | None:
    """The reason to reject a worked instance, or None (after prepare_for_finetuning.py)."""
    if truncated:
        return "truncated"
    if not output.strip():
        return "empty_output"
    if output.strip() in (input_text.strip(), instruction.strip()):
        return "output_repeats_input"
    if output.rstrip().endswith(":") or input_text.rstrip().endswith(":"):
        return "unfinished"
    if is_refusal(output):
        return "refusal"
    return "repeats_itself" if is_repetitive(output) or is_repetitive(input_text) else None


def is_repetitive(text: str, *, window: int = 4, share: float = 0.3) -> bool:
    """True where over `share` of the runs of `window` words occur before in the same text: small models loop."""
    words = text.lower().split()
    runs = [tuple(words[start : start + window]) for start in range(len(words) - window + 1)]
    return len(runs) >= 2 * window and 1 - len(set(runs)) / len(runs) > share


_REFUSAL = re.compile(r"^(i['’]m sorry|i am sorry|sorry, (but )?i|as an ai|i cannot|i can['’]t|i['’]m unable|i am unable)", re.I)


def is_refusal(output: str) -> bool:
    """True where an answer begins by declining."""
    return bool(_REFUSAL.match(output.strip()))
