"""From a model's scores to the next tokens, row by row: penalty, temperature, nucleus, and one random number a token.

Sampling is by inverse transform with numbers drawn from a generator of the request's own, so a reply does not depend on its
neighbours in the batch, nor on what was answered before an interruption. Nothing here looks at values on a GPU, so that a
whole step can be recorded and played again.
"""

import random

import torch

_LIKELIEST = 128
"""On a CPU the nucleus is looked for among so many tokens first: sorting a vocabulary costs more than the model's own work."""
_HALVINGS = 24
"""Precision of a float32's fraction."""


def draws(key: str, start: int, count: int) -> list[float]:
    """The random numbers of a request's tokens `start` to `start + count`, each in [0, 1)."""
    generator = random.Random(key)
    return [generator.random() for _ in range(start + count)][start:]


def penalise(scores: torch.Tensor, written: torch.Tensor, penalty: float) -> torch.Tensor:
    """Lowers the scores (rows, vocabulary) of tokens that were written (same shape, bool), as in CTRL (Keskar et al. 2019)."""
    return torch.where(written, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def sample(scores: torch.Tensor, temperature: float, top_p: float, drawn: torch.Tensor) -> torch.Tensor:
    """One token a row.

    Args:
        scores: (rows, vocabulary), float32.
        temperature: above 0.
        top_p: nucleus, 0 to 1 (Holtzman et al. 2020).
        drawn: (rows, 1), one random number for each.

    Returns:
        (rows, 1) token ids.
    """
    probabilities = torch.softmax(scores / temperature, dim=-1)
    if top_p < 1:
        least = least_by_halving(probabilities, top_p) if probabilities.is_cuda else least_by_sorting(probabilities, top_p)
        probabilities = torch.where(probabilities >= least, probabilities, 0.0)
    cumulated = probabilities.cumsum(dim=-1)
    return torch.searchsorted(cumulated, drawn * cumulated[:, -1:]).clamp(max=scores.shape[-1] - 1)


def least_by_sorting(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest probability in each row's nucleus (rows, 1): tokens belong to it while those above them make up less than
    `top_p`. Only rows whose nucleus is large are sorted as a whole."""
    likeliest = probabilities.topk(min(_LIKELIEST, probabilities.shape[-1]), dim=-1).values
    least = _least(likeliest, top_p)
    large = likeliest.sum(dim=-1) < top_p
    if large.any():
        least[large] = _least(probabilities[large].sort(dim=-1, descending=True).values, top_p)
    return least


def _least(descending: torch.Tensor, top_p: float) -> torch.Tensor:
    above = descending.cumsum(dim=-1) - descending
    return torch.where(above < top_p, descending, torch.inf).amin(dim=-1, keepdim=True)


def least_by_halving(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """As `least_by_sorting`, by bisection: a fixed number of passes over the row, without a look at a value."""
    most = probabilities.amax(dim=-1, keepdim=True)
    least = torch.zeros_like(most)
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        few = torch.where(probabilities > middle, probabilities, 0.0).sum(dim=-1, keepdim=True) < top_p
        least, most = torch.where(few, least, middle), torch.where(few, middle, most)
    return torch.where(probabilities > least, probabilities, torch.inf).amin(dim=-1, keepdim=True)
