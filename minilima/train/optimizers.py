"""AdamW for bfloat16 weights that keeps float32 masters, and averages their gradients over processes.

bfloat16 has 8 bits of precision: at a learning rate of 1e-5 most updates would round to nothing. The masters take them;
the model sees the masters rounded. Autocast over float32 weights is as exact and a fifth slower (measured).
Processes average the float32 gradients once a step; summed in bfloat16, as by DDP, they would lose what the masters keep.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import distributed
from torch.distributed.distributed_c10d import _coalescing_manager


class MasterAdamW(torch.optim.AdamW):
    """Gradients are taken from the model as soon as they are there. A weight's first of a step is kept as it is; from the second
    row on they are added up in float32, as the masters' gradients.

    A step ends with the gradients dropped: the Trainer zeroes the model's, and knows nothing of these.

    Args:
        groups: AdamW's parameter groups over the model's own parameters.
        max_grad_norm: clips the whole gradient before a step; 0 = not at all. The Trainer cannot: it sees no gradients.
        compiled: whether clipping, update and rounding are one compiled pass over the weights, for weights large enough that
            a launch each does not matter; else AdamW's own, which passes over them three times.
        settings: AdamW's other arguments.
    """

    def __init__(self, groups: list[dict[str, Any]], *, max_grad_norm: float, compiled: bool = False, **settings: Any) -> None:
        self.pairs: list[tuple[torch.nn.Parameter, torch.nn.Parameter]] = []
        self._sums: list[torch.Tensor] = []
        self._first: dict[torch.nn.Parameter, torch.Tensor] = {}
        """By master: a step's first gradient, in bfloat16, until a second one comes."""
        self.max_grad_norm = max_grad_norm
        self.update = torch.compile(adamw, dynamic=True) if compiled else None
        self.grad_norm = torch.zeros(())
        """Norm of the whole gradient of the last step, before clipping."""
        ours = []
        for group in groups:
            masters = [self._master(parameter) for parameter in group["params"] if parameter.requires_grad]
            ours.append({**group, "params": masters})
        super().__init__(ours, **settings)

    def sums(self) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
        """Each trained weight with the float32 tensor in which the gradients of a step are added up: the same at every call."""
        if not self._sums:
            self._sums = [torch.zeros_like(master) for _, master in self.pairs]
        return [(parameter, added) for (parameter, _), added in zip(self.pairs, self._sums, strict=True)]

    def begin(self) -> None:
        """Before the rows of a step where `sums` is used: the masters' gradients are those tensors, at zero."""
        torch._foreach_zero_(self._sums)
        for (_, master), added in zip(self.pairs, self._sums, strict=True):
            master.grad = added

    def _master(self, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        master = torch.nn.Parameter(parameter.detach().float().clone())
        self.pairs.append((parameter, master))

        def take(finished: torch.Tensor) -> None:
            assert finished.grad is not None
            if master.grad is None and master not in self._first:
                self._first[master] = finished.grad
            else:
                if master.grad is None:
                    master.grad = self._first.pop(master).float()
                master.grad += finished.grad
            finished.grad = None

        parameter.register_post_accumulate_grad_hook(take)  # type: ignore[no-untyped-call]
        return master

    def gather(self) -> None:
        """Gives every master its gradient of the step in float32, also where there was one row alone."""
        if not self._first:
            return
        exact = [torch.empty_like(master) for master in self._first]
        torch._foreach_copy_(exact, list(self._first.values()))
        for master, gradient in zip(self._first, exact, strict=True):
            master.grad = gradient
        self._first.clear()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """AdamW's, with what was kept of a first row."""
        self._first.clear()
        super().zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Averages over processes, clips, steps on the masters, and rounds them into the model."""
        masters = [master for _, master in self.pairs]
        alone = not distributed.is_initialized() or distributed.get_world_size() == 1
        if self.update is None or not alone:
            self.gather()
        if not alone:
            _average([master.grad for master in masters if master.grad is not None])
        most = self.max_grad_norm or float("inf")
        result = None
        if self.update is None:
            self.grad_norm = torch.nn.utils.clip_grad_norm_(masters, most)
            result = super().step(closure)
            self._round()
        else:
            given = {master: gradient for master in masters if (gradient := self._first.get(master, master.grad)) is not None}
            self.grad_norm = torch.stack(torch._foreach_norm(list(given.values()), 2, dtype=torch.float32)).norm()
            self._step_in_one_pass(given, (most / (self.grad_norm + 1e-6)).clamp(max=1.0))
        self.zero_grad()
        return result

    def _step_in_one_pass(self, given: Mapping[torch.nn.Parameter, torch.Tensor], clip: torch.Tensor) -> None:
        assert self.update is not None
        rounded = {master: parameter for parameter, master in self.pairs}
        for group in self.param_groups:
            masters = [master for master in group["params"] if master in given]
            for master in masters:
                if not self.state[master]:
                    moments = {name: torch.zeros_like(master) for name in ("exp_avg", "exp_avg_sq")}
                    self.state[master] = {"step": torch.zeros((), dtype=torch.float32, device=master.device), **moments}
            states = [self.state[master] for master in masters]
            torch._foreach_add_([state["step"] for state in states], 1)
            now = factors(group, clip)
            for master, state in zip(masters, states, strict=True):
                mean, square = flat(state["exp_avg"]), flat(state["exp_avg_sq"])
                self.update(flat(rounded[master]), flat(master), flat(given[master]), mean, square, now)

    def _round(self) -> None:
        torch._foreach_copy_([parameter.data for parameter, _ in self.pairs], [master.data for _, master in self.pairs])

    def state_dict(self) -> dict[str, Any]:
        """AdamW's, with the masters: without them a resumed run would continue from rounded weights."""
        return {**super().state_dict(), "masters": [master.detach() for _, master in self.pairs]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        saved = state.pop("masters")
        super().load_state_dict(state)
        for (_, master), value in zip(self.pairs, saved, strict=True):
            master.data.copy_(value)
        self._round()


def _average(gradients: list[torch.Tensor]) -> None:
    """All at once, after the backward pass: sent during it they take longer, for NCCL's kernels hold processors that the
    matrix products count on (see benchmarks/README.md)."""
    # As one group of NCCL's; gloo cannot.
    together = _coalescing_manager(device=gradients[0].device) if gradients[0].is_cuda else nullcontext()
    with together:
        for gradient in gradients:
            distributed.all_reduce(gradient)
    torch._foreach_div_(gradients, distributed.get_world_size())


class StochasticAdamW(torch.optim.Optimizer):
    """Gradients stay in bfloat16, also when those of several rows are added: prefer rows as long as memory allows.

    Args:
        groups: AdamW's parameter groups, with `weight_decay`.
        max_grad_norm: clips the whole gradient before a step; 0 = not at all.
        compiled: whether an update is one compiled pass over each weight.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, max_grad_norm: float, lr: float, betas: tuple[float, float], eps: float,
        compiled: bool,
    ) -> None:  # fmt: skip
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.max_grad_norm = max_grad_norm
        self.grad_norm = torch.zeros(())
        """Norm of the whole gradient of the last step, before clipping."""
        self.update = torch.compile(stochastic_adamw, dynamic=True) if compiled else stochastic_adamw

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Clips and updates; gradients stay for the Trainer to drop."""
        gradients = [weight.grad for group in self.param_groups for weight in group["params"] if weight.grad is not None]
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
        self.grad_norm = torch.stack(norms).norm()
        clip = ((self.max_grad_norm or float("inf")) / (self.grad_norm + 1e-6)).clamp(max=1.0)
        for group in self.param_groups:
            now = factors(group, clip)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
                self.update(flat(weight), flat(weight.grad), flat(state["mean"]), flat(state["square"]), now)


def factors(group: dict[str, Any], clip: torch.Tensor) -> torch.Tensor:
    """The factors of a group's next update, on the device of `clip`: clip, 1 - rate * weight_decay, rate, the moments' decays
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
    """Updates the float32 master and its moments in place, and rounds it into the weight; the gradient may be of either."""
    updated, new_mean, new_square = _updated(master, gradient.float(), mean, square, now)
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
