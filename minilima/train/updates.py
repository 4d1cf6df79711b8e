"""AdamW's update of one weight, written so that torch.compile makes it one pass over memory (Loshchilov and Hutter 2019).

Everything that changes from step to step is in a small tensor on the device, so that nothing is compiled anew and the host
waits for nothing.
"""

from typing import Any

import torch


def factors(group: dict[str, Any], clip: torch.Tensor) -> torch.Tensor:
    """What a group's next update multiplies by, on the device of `clip`: clip, what decay keeps, rate, the moments' decays
    and bias corrections, eps. Counts the group's updates in `group["taken"]`."""
    group["taken"] = taken = group.get("taken", 0) + 1
    beta1, beta2 = group["betas"]
    rate = float(group["lr"])
    known = [1 - rate * group["weight_decay"], rate, beta1, 1 - beta1**taken, beta2, 1 - beta2**taken, group["eps"]]
    host = torch.tensor(known, dtype=torch.float32, pin_memory=clip.is_cuda)
    return torch.cat([clip.float().view(1), host.to(clip.device, non_blocking=True)])


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """In rows of 64, so that compiled code reads several numbers at once; of one where the size is odd."""
    return tensor.detach().view(-1, 64 if tensor.numel() % 64 == 0 else 1)


def adamw(
    weight: torch.Tensor, master: torch.Tensor, gradient: torch.Tensor, mean: torch.Tensor, square: torch.Tensor,
    now: torch.Tensor,
) -> None:  # fmt: skip
    """Updates the float32 master and its moments in place, and rounds it into the weight."""
    updated, new_mean, new_square = _updated(master, gradient, mean, square, now)
    mean.copy_(new_mean)
    square.copy_(new_square)
    master.copy_(updated)
    weight.copy_(updated)


def stochastic_adamw(
    weight: torch.Tensor, gradient: torch.Tensor, mean: torch.Tensor, square: torch.Tensor, now: torch.Tensor
) -> None:
    """Updates a bfloat16 weight and its bfloat16 moments in place, each rounded up or down at random."""
    updated, new_mean, new_square = _updated(weight.float(), gradient.float(), mean.float(), square.float(), now)
    mean.copy_(round_at_random(new_mean))
    square.copy_(round_at_random(new_square))
    weight.copy_(round_at_random(updated))


def round_at_random(exact: torch.Tensor) -> torch.Tensor:
    """float32 numbers that bfloat16 holds exactly, above or below with odds by which the mean stays `exact`."""
    bits = exact.view(torch.int32)
    noise = torch.randint_like(bits, 0, 1 << 16)
    return ((bits + noise) & -(1 << 16)).view(torch.float32)


def _updated(
    weight: torch.Tensor, gradient: torch.Tensor, mean: torch.Tensor, square: torch.Tensor, now: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    clip, kept, rate, beta1, correction1, beta2, correction2, eps = now.unbind()
    gradient = gradient * clip
    mean = mean * beta1 + gradient * (1 - beta1)
    square = square * beta2 + gradient * gradient * (1 - beta2)
    step = (mean / correction1) / ((square / correction2).sqrt() + eps)
    return weight * kept - rate * step, mean, square
