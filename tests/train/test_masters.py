"""AdamW with float32 masters: the same as AdamW on float32 weights, and what bfloat16 weights need."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch.multiprocessing.spawn import spawn

from minilima.train.masters import MasterAdamW

SETTINGS = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}


def layer(kind: torch.dtype = torch.float32) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(6, 4, dtype=kind)


def run(model: torch.nn.Linear, optimizer: torch.optim.Optimizer, clip: Callable[[], object], steps: range) -> None:
    """Steps of two rows each; gradients are zeroed on the model only, as transformers' Trainer does."""
    for step in steps:
        for row in (0, 1):
            rows = given(step, row).to(model.weight.dtype)
            (5 * model(rows).float().square().sum()).backward()
        clip()
        optimizer.step()
        model.zero_grad()


def test_masters_of_float32_weights_step_as_adamw_does() -> None:
    plain, mastered = layer(), layer()
    adamw = torch.optim.AdamW(plain.parameters(), **SETTINGS)  # type: ignore[arg-type]
    run(plain, adamw, lambda: torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0), range(6))
    ours = MasterAdamW([{"params": list(mastered.parameters())}], max_grad_norm=1.0, **SETTINGS)
    run(mastered, ours, lambda: None, range(6))
    assert torch.equal(plain.weight, mastered.weight) and torch.equal(plain.bias, mastered.bias)
    assert float(ours.grad_norm) > 1.0, "there was something to clip"


def test_updates_too_small_for_bfloat16_add_up_in_the_masters() -> None:
    model = layer(torch.bfloat16)
    before = model.weight.detach().clone()
    ours = MasterAdamW([{"params": list(model.parameters())}], max_grad_norm=0.0, lr=1e-5, weight_decay=0.0)
    run(model, ours, lambda: None, range(1))
    assert torch.equal(model.weight[before.abs() > 0.1], before[before.abs() > 0.1]), "one step is lost to rounding"
    run(model, ours, lambda: None, range(1, 200))
    assert not torch.equal(model.weight[before.abs() > 0.1], before[before.abs() > 0.1])


def test_a_resumed_run_goes_on_from_the_masters() -> None:
    whole, first, second = layer(torch.bfloat16), layer(torch.bfloat16), layer(torch.bfloat16)
    optimizers = [
        MasterAdamW([{"params": list(model.parameters())}], max_grad_norm=1.0, **SETTINGS) for model in (whole, first, second)
    ]
    run(whole, optimizers[0], lambda: None, range(8))
    run(first, optimizers[1], lambda: None, range(4))
    optimizers[2].load_state_dict(optimizers[1].state_dict())
    run(second, optimizers[2], lambda: None, range(4, 8))
    assert torch.equal(whole.weight, second.weight)


def _one_of_two(rank: int, store: str, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = layer()
    ours = MasterAdamW([{"params": list(model.parameters())}], max_grad_norm=1.0, **SETTINGS)
    for step in range(3):
        model(given(step, rank)).square().sum().backward()
        ours.step()
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def given(step: int, row: int) -> torch.Tensor:
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(2 * step + row))


def test_two_processes_average_the_gradients_of_their_masters(tmp_path: Path) -> None:
    spawn(_one_of_two, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    model = layer()
    adamw = torch.optim.AdamW(model.parameters(), **SETTINGS)  # type: ignore[arg-type]
    for step in range(3):
        (sum(model(given(step, rank)).square().sum() for rank in (0, 1)) / 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(first["weight"], second["weight"])
    assert torch.allclose(first["weight"], model.weight, atol=1e-6)
