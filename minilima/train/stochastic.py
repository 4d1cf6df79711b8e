"""AdamW for bfloat16 weights without float32 masters: 8 bytes a weight in all, where masters take 16.

Updates too small for bfloat16 are not lost but taken now and then, by rounding at random (Gupta et al. 2015). Both moments
are rounded so too: to the nearest, the second would stand still at beta2 = 0.999, whose steps bfloat16 cannot hold.
torchao's bf16_stochastic_round rounds only the weights so, and is not used for that.
"""

from collections.abc import Iterable
from typing import Any

import torch

from minilima.train.updates import factors, flat, stochastic_adamw


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
