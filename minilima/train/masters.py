"""AdamW for bfloat16 weights that keeps float32 masters, and averages their gradients over processes.

bfloat16 has 8 bits of precision: at a learning rate of 1e-5 most updates would round to nothing. The masters take them;
the model sees the masters rounded. Autocast over float32 weights is as exact and a fifth slower (measured).
Processes average the float32 gradients once a step; summed in bfloat16, as by DDP, they would lose what the masters keep.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import distributed
from torch.distributed.distributed_c10d import _coalescing_manager

from minilima.train.updates import adamw, factors, flat


class MasterAdamW(torch.optim.AdamW):
    """Gradients are moved into the masters' as soon as they are there and added up in float32, over all rows of a step.

    A step ends with the gradients dropped: the Trainer zeroes the model's, and knows nothing of the masters'.

    Args:
        groups: AdamW's parameter groups over the model's own parameters.
        max_grad_norm: clips the whole gradient before a step; 0 = not at all. The Trainer cannot: it sees no gradients.
        compiled: whether clipping, update and rounding are one compiled pass over the weights, for weights large enough that
            a launch each does not matter; else AdamW's own, which passes over them three times.
        settings: AdamW's other arguments.
    """

    def __init__(self, groups: list[dict[str, Any]], *, max_grad_norm: float, compiled: bool = False, **settings: Any) -> None:
        self.pairs: list[tuple[torch.nn.Parameter, torch.nn.Parameter]] = []
        self.max_grad_norm = max_grad_norm
        self.update = torch.compile(adamw, dynamic=True) if compiled else None
        self.grad_norm = torch.zeros(())
        """Norm of the whole gradient of the last step, before clipping."""
        ours = []
        for group in groups:
            masters = [self._master(parameter) for parameter in group["params"] if parameter.requires_grad]
            ours.append({**group, "params": masters})
        super().__init__(ours, **settings)

    def _master(self, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        master = torch.nn.Parameter(parameter.detach().float().clone())
        self.pairs.append((parameter, master))

        def move(finished: torch.Tensor) -> None:
            assert finished.grad is not None
            if master.grad is None:
                master.grad = finished.grad.float()
            else:
                master.grad += finished.grad
            finished.grad = None

        parameter.register_post_accumulate_grad_hook(move)  # type: ignore[no-untyped-call]
        return master

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Averages over processes, clips, steps on the masters, and rounds them into the model."""
        masters = [master for _, master in self.pairs]
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            _average([master.grad for master in masters if master.grad is not None])
        most = self.max_grad_norm or float("inf")
        result = None
        if self.update is None:
            self.grad_norm = torch.nn.utils.clip_grad_norm_(masters, most)
            result = super().step(closure)
            self._round()
        else:
            self.grad_norm = torch.nn.utils.get_total_norm([master.grad for master in masters if master.grad is not None])
            self._step_in_one_pass((most / (self.grad_norm + 1e-6)).clamp(max=1.0))
        self.zero_grad()
        return result

    def _step_in_one_pass(self, clip: torch.Tensor) -> None:
        assert self.update is not None
        rounded = {master: parameter for parameter, master in self.pairs}
        for group in self.param_groups:
            masters: list[torch.Tensor] = []
            gradients: list[torch.Tensor] = []
            means: list[torch.Tensor] = []
            squares: list[torch.Tensor] = []
            steps: list[torch.Tensor] = []
            self._init_group(group, masters, gradients, means, squares, [], steps)  # type: ignore[no-untyped-call]
            torch._foreach_add_(steps, 1)
            now = factors(group, clip)
            for master, gradient, mean, square in zip(masters, gradients, means, squares, strict=True):
                weight = rounded[master]  # type: ignore[index]
                self.update(flat(weight), flat(master), flat(gradient), flat(mean), flat(square), now)

    def _round(self) -> None:
        torch._foreach_copy_([parameter.data for parameter, _ in self.pairs], [master.data for _, master in self.pairs])

    def state_dict(self) -> dict[str, Any]:
        """AdamW's, with the masters: without them a resumed run would go on from rounded weights."""
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
