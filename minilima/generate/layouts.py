"""Layouts of instruction and input in one text: Self-Instruct's, drawn at random so that a model learns all of them.

After prepare_for_finetuning.py of Self-Instruct, which draws one of 7 layouts with an input or 6 without.
"""

import random

_WITH_INPUT = (
    "{instruction}\nInput: {input}\nOutput:",
    "{instruction}\n\nInput: {input}\n\nOutput:",
    "Task: {instruction}\nInput: {input}\nOutput:",
    "{instruction}\n\n{input}\n\nOutput:",
    "{instruction}\n\n{input}",
    "{instruction}\n{input}\n\nOutput:",
    "Task: {instruction}\n\n{input}",
)
_WITHOUT_INPUT = (
    "{instruction} Output:",
    "{instruction}\nOutput:",
    "{instruction}\n\nOutput:",
    "{instruction}",
    "{instruction}\n",
    "Task: {instruction}",
)


def encode(instruction: str, given: str, seed: str) -> str:
    """One layout, drawn by `seed` alone (the run's seed and the example's id)."""
    rng = random.Random(f"encoding:{seed}")
    layout = rng.choice(_WITH_INPUT if given else _WITHOUT_INPUT)
    # Not str.format: an instruction may hold braces.
    return layout.replace("{instruction}", instruction).replace("{input}", given)
