"""The fused output layer: the loss and gradients of logits that were never there all at once."""

import weakref

import pytest
import torch

from minilima.models import loss


def test_the_fused_head_gives_the_loss_and_gradients_of_plain_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK", 4)
    torch.manual_seed(0)
    hidden, weight = torch.randn(1, 11, 8), torch.randn(50, 8)
    places, targets = torch.tensor([0, 1, 3, 4, 5, 8, 9]), torch.randint(0, 50, (7,))
    results = []
    for fused in (False, True):
        states, head = hidden.clone().requires_grad_(), torch.nn.Linear(8, 50, bias=False)
        head.weight.data.copy_(weight)
        if fused:
            loss.fuse_head(Model(head))
            head.predicting, head.targets = places, targets
            total = head(states)
        else:
            total = torch.nn.functional.cross_entropy(head(states)[0, places], targets, reduction="sum")
        (0.5 * total).backward()
        results.append((total.detach(), states.grad, head.weight.grad))
    for wanted, got in zip(*results, strict=True):
        assert wanted is not None and got is not None and torch.allclose(wanted, got, atol=1e-4)


def test_the_logits_of_one_chunk_are_gone_before_those_of_the_next_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK", 4)
    earlier: list[weakref.ref[torch.Tensor]] = []

    def kernel(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert all(one() is None for one in earlier)
        summed, gradient = loss.loss_and_gradient(logits, wanted)
        earlier.extend([weakref.ref(logits), weakref.ref(gradient)])
        return summed, gradient

    monkeypatch.setattr(loss, "_fastest", lambda weight, compiled: kernel)
    head = torch.nn.Linear(8, 50, bias=False)
    loss.fuse_head(Model(head))
    head.predicting, head.targets = torch.arange(11), torch.zeros(11, dtype=torch.long)
    head(torch.randn(1, 11, 8))
    assert len(earlier) == 6


class Model:
    """What `fuse_head` asks of a model."""

    def __init__(self, head: torch.nn.Linear) -> None:
        self.head = head

    def get_output_embeddings(self) -> torch.nn.Linear:
        return self.head
