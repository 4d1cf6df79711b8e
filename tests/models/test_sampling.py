"""Sampling: tokens follow the probabilities, and the nucleus is the one that transformers finds."""

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

from minilima.models.sampling import GREEDY, draws, least_by_sorting, penalise, sample


def test_tokens_follow_the_probabilities() -> None:
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).repeat(4000, 1)
    drawn = torch.tensor([draws(str(n), 0, 1) for n in range(4000)])
    free = torch.zeros(4000, 0, dtype=torch.bool)
    shares = torch.bincount(sample(scores, free, 1.0, 1.0, 1.0, drawn)[:, 0], minlength=3) / 4000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.03)


def test_rows_of_different_ways_are_chosen_as_each_by_itself() -> None:
    scores, written, drawn = torch.randn(5, 300) * 2, torch.rand(5, 300) < 0.3, torch.rand(5, 1)
    drawn[2:4] = 0.0
    ways = [(1.2, 0.7, 0.9), (1.0, 1.0, 1.0), (1.5, GREEDY, 1.0), (1.0, GREEDY, 1.0), (1.1, 0.5, 0.2)]
    penalty, temperature, top_p = torch.tensor(ways).T[:, :, None]
    together = sample(scores, written, penalty, temperature, top_p, drawn)
    each = [sample(scores[row : row + 1], written[row : row + 1], *way, drawn[row : row + 1]) for row, way in enumerate(ways)]
    assert torch.equal(together, torch.cat(each))
    assert together[2:4, 0].tolist() == [int(penalise(scores[row], written[row], ways[row][0]).argmax()) for row in (2, 3)]


def test_the_numbers_of_a_request_go_on_where_they_were_left() -> None:
    assert draws("a", 0, 9) == draws("a", 0, 4) + draws("a", 4, 5)
    assert draws("a", 0, 9) != draws("b", 0, 9)


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 5.0])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9])
def test_the_nucleus_is_that_of_transformers(spread: float, top_p: float) -> None:
    """Sharp and flat distributions: from one token to nine tenths of the vocabulary."""
    scores = torch.randn(8, 700, generator=torch.Generator().manual_seed(1)) * spread
    scores += torch.linspace(0, 1e-3, 700)  # no two are equal, so that the nucleus is defined
    kept = TopPLogitsWarper(top_p)(None, scores) > -torch.inf
    probabilities = scores.softmax(-1)
    ours = probabilities >= least_by_sorting(probabilities, top_p)
    # Where rounding decides about a last token, its weight is nothing.
    assert (probabilities * (kept != ours)).sum(-1).max() < 2e-3
    assert (kept != ours).sum(-1).max() <= 1


def test_the_penalty_is_that_of_transformers() -> None:
    scores = torch.randn(3, 20)
    written = torch.tensor([[1, 2, 3], [4, 4, 4], [0, 19, 7]])
    mask = torch.zeros(3, 20, dtype=torch.bool).scatter_(1, written, True)
    assert torch.equal(penalise(scores, mask, 1.3), RepetitionPenaltyLogitsProcessor(1.3)(written, scores.clone()))
