"""From a model's scores to the next tokens, row by row: penalty, temperature, nucleus, and one random number a token.

On a CPU these are operations of torch. On a GPU sampling is one kernel (sampling_triton.py), which reads the vocabulary a dozen
times where the operations would write and read copies of it a hundred times. Sampling is by inverse transform with numbers drawn
from a generator of the request's own, so a reply does not depend on its neighbours in the batch, nor on what was answered before
an interruption. Nothing here looks at values on a GPU, so that a whole step can be recorded and played again.
"""

import random

import torch

from minilima.models.chat import Sampling

GREEDY = 1e-30
"""A temperature at which nothing but the highest score has any probability."""
_LEAST = 1e-30
"""A random number of 0 would choose the first token of the vocabulary, whatever its probability."""
_LIKELIEST = 128
"""On a CPU the nucleus is looked for among so many tokens first: sorting a vocabulary costs more than the model's own work."""


def draws(key: str, start: int, count: int) -> list[float]:
    """The random numbers of a request's tokens `start` to `start + count`, each in [0, 1)."""
    generator = random.Random(key)
    return [generator.random() for _ in range(start + count)][start:]


def penalise(scores: torch.Tensor, written: torch.Tensor, penalty: float | torch.Tensor) -> torch.Tensor:
    """Lowers the scores (rows, vocabulary) of tokens that were written (same shape, bool), as in CTRL (Keskar et al. 2019), by
    one penalty or one a row (rows, 1)."""
    return torch.where(written, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def choose(scores: torch.Tensor, sampling: Sampling, written: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """One token a row, as `sampling` says.

    Args:
        scores: (rows, vocabulary), of any floating type.
        written: same shape, bool: the tokens that a row has written; empty without a penalty.
        drawn: (rows, 1), one random number for each.

    Returns:
        (rows, 1) token ids.
    """
    penalty, top_p = sampling.repetition_penalty, 1.0 if sampling.top_p is None else sampling.top_p
    if sampling.temperature:
        return sample(scores, written, 1.0 if penalty is None else penalty, sampling.temperature, top_p, drawn)
    scores = scores.float()
    return (scores if penalty is None else penalise(scores, written, penalty)).argmax(dim=-1, keepdim=True)


def sample(
    scores: torch.Tensor,
    written: torch.Tensor,
    penalty: float | torch.Tensor,
    temperature: float | torch.Tensor,
    top_p: float | torch.Tensor,
    drawn: torch.Tensor,
) -> torch.Tensor:
    """One token a row.

    Args:
        scores: (rows, vocabulary), of any floating type.
        written: same shape, bool: the tokens that a row has written; empty without a penalty.
        penalty: of what was written; this and the next two are one for all, or all three float32 (rows, 1).
        temperature: above 0; `GREEDY` takes the highest score with a random number of 0.
        top_p: nucleus, 0 to 1 (Holtzman et al. 2020).
        drawn: (rows, 1), one random number for each.

    Returns:
        (rows, 1) token ids.
    """
    if scores.is_cuda:
        from minilima.models.sampling_triton import sample_fused

        return sample_fused(scores, written, penalty, temperature, top_p, drawn)
    scores = scores.float()
    if written.shape[1]:
        scores = penalise(scores, written, penalty)
    probabilities = torch.softmax(scores / temperature, dim=-1)
    if isinstance(top_p, torch.Tensor) or top_p < 1:
        probabilities = torch.where(probabilities >= least_by_sorting(probabilities, top_p), probabilities, 0.0)
    cumulated = probabilities.cumsum(dim=-1)
    wanted = (drawn * cumulated[:, -1:]).clamp(min=_LEAST)
    return torch.searchsorted(cumulated, wanted).clamp(max=scores.shape[-1] - 1)


def least_by_sorting(probabilities: torch.Tensor, top_p: float | torch.Tensor) -> torch.Tensor:
    """The smallest probability in each row's nucleus (rows, 1): tokens belong to it while those above them make up less than
    `top_p`, one or one a row (rows, 1). Only rows whose nucleus is large are sorted as a whole."""
    mass = torch.as_tensor(top_p, dtype=torch.float32).expand(len(probabilities), 1)
    mass = torch.where(mass < 1, mass, torch.inf)
    likeliest = probabilities.topk(min(_LIKELIEST, probabilities.shape[-1]), dim=-1).values
    least = _least(likeliest, mass)
    large = (likeliest.sum(dim=-1, keepdim=True) < mass)[:, 0]
    if large.any():
        least[large] = _least(probabilities[large].sort(dim=-1, descending=True).values, mass[large])
    return least


def _least(descending: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    above = descending.cumsum(dim=-1) - descending
    return torch.where(above < top_p, descending, torch.inf).amin(dim=-1, keepdim=True)
