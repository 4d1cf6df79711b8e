"""AdamW with float32 masters: the same as AdamW on float32 weights, and what bfloat16 weights need."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from minilima.train.optimizers import MasterAdamW, StochasticAdamW

SETTINGS: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}


def layer(kind: torch.dtype = torch.float32) -> torch.nn.Linear:
    torch.manual_seed(0)
    # Rounded afterwards: torch draws other numbers for other types.
    return torch.nn.Linear(6, 4).to(kind)


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
    adamw = torch.optim.AdamW(plain.parameters(), **SETTINGS)
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


def gradient(model: torch.nn.Linear, rows: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(model(rows).float().square().sum(), model.weight)
    return found


def test_gradients_of_several_rows_are_added_up_in_float32_and_a_first_one_is_kept_as_it_came() -> None:
    model = layer(torch.bfloat16)
    ours = MasterAdamW([{"params": list(model.parameters())}], max_grad_norm=0.0, lr=0.1)
    rows = [given(0, row).bfloat16() for row in range(3)]
    alone = [gradient(model, each) for each in rows]
    for count in (1, 3):
        for each in rows[:count]:
            model(each).float().square().sum().backward()
        assert model.weight.grad is None, "the next row's is not added to it in bfloat16"
        ours.gather()
        added = ours.pairs[0][1].grad
        assert added is not None and torch.equal(added, torch.stack([each.float() for each in alone[:count]]).sum(dim=0))
        ours.zero_grad()
    model(rows[0]).float().square().sum().backward()
    ours.zero_grad()
    ours.gather()
    assert ours.pairs[0][1].grad is None, "what was dropped does not come back"


@pytest.mark.parametrize("count", [1, 2])
def test_one_pass_over_bfloat16_gradients_steps_as_over_float32_ones(count: int) -> None:
    made = []
    for compiled in (False, True):
        model = layer(torch.bfloat16)
        with torch.compiler.set_stance("force_eager"):
            ours = MasterAdamW([{"params": list(model.parameters())}], max_grad_norm=1.0, compiled=compiled, **SETTINGS)
            for step in range(3):
                for row in range(count):
                    model(given(step, row).bfloat16()).float().square().sum().backward()
                ours.step()
        made.append((ours.pairs[0][1].detach(), float(ours.grad_norm)))
    assert torch.allclose(made[0][0], made[1][0], atol=1e-6)
    assert made[0][1] == pytest.approx(made[1][1], rel=1e-5), "the norm is not rounded to bfloat16"


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
    os._exit(0)  # as the worker does: in torch's tear-down a finished process may abort


def given(step: int, row: int) -> torch.Tensor:
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(2 * step + row))


def test_two_processes_average_the_gradients_of_their_masters(tmp_path: Path) -> None:
    spawn(_one_of_two, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    model = layer()
    adamw = torch.optim.AdamW(model.parameters(), **SETTINGS)
    for step in range(3):
        (sum(model(given(step, rank)).square().sum() for rank in (0, 1)) / 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(first["weight"], second["weight"])
    assert torch.allclose(first["weight"], model.weight, atol=1e-6)


def test_one_pass_over_the_weights_steps_as_adamw_does() -> None:
    plain, mastered = layer(), layer()
    adamw = torch.optim.AdamW(plain.parameters(), **SETTINGS)
    run(plain, adamw, lambda: torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0), range(6))
    with torch.compiler.set_stance("force_eager"):
        ours = MasterAdamW([{"params": list(mastered.parameters())}], max_grad_norm=1.0, compiled=True, **SETTINGS)
        run(mastered, ours, lambda: None, range(6))
    assert torch.allclose(plain.weight, mastered.weight, atol=1e-6)
    assert float(ours.grad_norm) > 1.0, "there was something to clip"
    assert ours.state_dict()["state"].keys() == adamw.state_dict()["state"].keys(), "checkpoints fit both"


def stochastic(model: torch.nn.Linear, **settings: Any) -> StochasticAdamW:
    return StochasticAdamW(
        [{"params": list(model.parameters()), "weight_decay": 0.1}],
        eps=1e-8,
        compiled=False,
        **{"max_grad_norm": 1.0, **settings},
    )


def test_stochastic_rounding_keeps_small_updates_on_average() -> None:
    """Where a step of 1e-5 changes no weight of 0.1 and more by rounding to the nearest, 400 steps add up."""
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
    torch.nn.init.constant_(model.weight, 0.5)
    ours = StochasticAdamW([{"params": [model.weight]}], max_grad_norm=0.0, lr=1e-5, betas=(0.9, 0.999), eps=1e-8, compiled=False)
    for _ in range(400):
        model.weight.grad = torch.ones_like(model.weight)
        ours.step()
    assert float(model.weight.detach().float().mean()) == pytest.approx(0.5 - 400 * 1e-5, abs=4e-4)
    assert len(set(model.weight.flatten().tolist())) > 1
    assert float(ours.state[model.weight]["square"].float().mean()) == pytest.approx(1 - 0.999**400, rel=0.05)


def test_stochastic_rounding_follows_adamw() -> None:
    exact, rounded = layer(), layer(torch.bfloat16)
    adamw = torch.optim.AdamW(exact.parameters(), **SETTINGS)
    run(exact, adamw, lambda: torch.nn.utils.clip_grad_norm_(exact.parameters(), 1.0), range(6))
    run(rounded, stochastic(rounded, lr=0.01, betas=(0.9, 0.95)), lambda: None, range(6))
    assert torch.allclose(exact.weight, rounded.weight.float(), atol=0.02)


def test_a_resumed_run_with_stochastic_rounding_goes_on_from_its_moments() -> None:
    whole, first, second = layer(torch.bfloat16), layer(torch.bfloat16), layer(torch.bfloat16)
    ours = [stochastic(model, lr=0.01, betas=(0.9, 0.95)) for model in (whole, first, second)]
    torch.manual_seed(1)
    run(whole, ours[0], lambda: None, range(8))
    torch.manual_seed(1)
    run(first, ours[1], lambda: None, range(4))
    second.load_state_dict(first.state_dict())
    ours[2].load_state_dict(ours[1].state_dict())
    run(second, ours[2], lambda: None, range(4, 8))
    assert torch.equal(whole.weight, second.weight)
