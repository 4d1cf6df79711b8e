"""Curves of noisy steps, made readable by running means. Pure."""

from collections.abc import Sequence


def running_mean(values: Sequence[float], share: int = 20) -> list[float]:
    """Each value's mean with its neighbours, over a twentieth of them all."""
    reach = max(1, len(values) // share) // 2
    near = [values[max(0, place - reach) : place + reach + 1] for place in range(len(values))]
    return [sum(around) / len(around) for around in near]
