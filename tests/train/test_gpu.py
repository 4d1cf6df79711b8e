"""What only a GPU can show: attention by boundaries, Triton's loss and compiled updates give what plain torch gives."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from minilima.models import attention
from minilima.models.loss import fuse_head, loss_and_gradient
from minilima.models.packing import Row, make_row
from minilima.train.dropout import add_residual_dropout
from minilima.train.optimizers import MasterAdamW
from minilima.train.recorded import RecordedSteps

pytestmark = pytest.mark.skipif(not attention.is_available(), reason="needs a GPU with variable-length attention")

LENGTHS = [300, 17, 130, 64]


def model(*, varlen: bool) -> Any:
    torch.manual_seed(0)
    shape = LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=500
    )
    made = AutoModelForCausalLM.from_config(shape, dtype=torch.float32).to("cuda", torch.bfloat16)
    if varlen:
        attention.use_varlen(made)
    return made


def examples() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    ids = [rng.integers(5, 500, size) for size in LENGTHS]
    return [{"input_ids": item, "labels": item.copy()} for item in ids]


def logits(made: Any, row: Row) -> torch.Tensor:
    fields = {name: value.to("cuda") if isinstance(value, torch.Tensor) else value for name, value in vars(row).items()}
    given = {"input_ids": fields["input_ids"], "position_ids": fields["position_ids"], "attention_mask": None, "use_cache": False}
    result: torch.Tensor = made(**given, **attention.boundaries(fields)).logits
    return result


def summed_loss(results: torch.Tensor, row: Row) -> torch.Tensor:
    predicted = results[0, row.predicting.to("cuda")].float()
    return torch.nn.functional.cross_entropy(predicted, row.targets.to("cuda"), reduction="sum")


def test_a_packed_row_has_the_loss_and_gradient_of_its_examples_alone() -> None:
    packed, alone = model(varlen=True), model(varlen=False)
    row = make_row(examples())
    together = summed_loss(logits(packed, row), row)
    torch.autograd.backward(together)
    total = 0.0
    for example in examples():
        single = make_row([example])
        loss = summed_loss(alone(input_ids=single.input_ids.to("cuda"), use_cache=False).logits, single)
        torch.autograd.backward(loss)
        total += float(loss.detach())
    assert float(together.detach()) == pytest.approx(total, rel=2e-3)
    for (name, one), other in zip(packed.named_parameters(), alone.parameters(), strict=True):
        assert torch.cosine_similarity(one.grad.float().flatten(), other.grad.float().flatten(), dim=0) > 0.999, name


def test_an_example_does_not_see_its_neighbours() -> None:
    made = model(varlen=True)
    first, second = examples(), examples()
    second[0]["input_ids"][:] = 7
    one, two = (logits(made, make_row(each))[0] for each in (first, second))
    assert not torch.equal(one[: LENGTHS[0]], two[: LENGTHS[0]])
    assert torch.equal(one[LENGTHS[0] :], two[LENGTHS[0] :])


@pytest.mark.parametrize("vocabulary", [500, 49_152, 128_256])
def test_the_loss_kernel_gives_what_torch_gives(vocabulary: int) -> None:
    from minilima.models import loss_triton

    torch.manual_seed(0)
    given, wanted = 3 * torch.randn(40, vocabulary, device="cuda").bfloat16(), torch.randint(0, vocabulary, (40,), device="cuda")
    loss, gradient = loss_and_gradient(given.clone(), wanted)
    fused, written = loss_triton.loss_and_gradient(given.clone(), wanted)
    assert float(fused) == pytest.approx(float(loss), rel=1e-5)
    assert torch.allclose(gradient, written, atol=1e-6, rtol=1e-2)


def test_one_compiled_pass_over_the_weights_steps_as_adamw_does() -> None:
    made = []
    for compiled in (False, True):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(300, 64, device="cuda"))
        settings = {"lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.1, "fused": True}
        ours = MasterAdamW([{"params": [weight]}], max_grad_norm=1.0, compiled=compiled, **settings)
        for _ in range(4):
            torch.autograd.backward(weight.square().sum())
            ours.step()
        assert torch.equal(weight, ours.pairs[0][1])
        made.append(ours.pairs[0][1].detach())
    assert torch.allclose(made[0], made[1], atol=1e-5)


def fused(made: Any) -> Callable[[dict[str, Any]], torch.Tensor]:
    """The summed loss of a row, as the trainer takes it."""
    fuse_head(made)
    head = made.get_output_embeddings()

    def loss_of(row: dict[str, Any]) -> torch.Tensor:
        head.predicting, head.targets = row["predicting"], row["targets"]
        given = {"input_ids": row["input_ids"], "position_ids": row["position_ids"], "attention_mask": None, "use_cache": False}
        result: torch.Tensor = made(**given, **attention.boundaries(row)).logits
        return result

    return loss_of


def on_gpu(row: Row) -> dict[str, Any]:
    return {name: value.to("cuda") if isinstance(value, torch.Tensor) else value for name, value in vars(row).items()}


def test_recorded_steps_have_the_losses_and_gradients_of_plain_ones() -> None:
    made = model(varlen=True)
    loss_of = fused(made)
    optimizer = MasterAdamW([{"params": list(made.parameters())}], max_grad_norm=1.0, lr=1e-3, fused=True)
    recorded = RecordedSteps(loss_of, optimizer.sums(), examples=12, longest=512)
    some = examples()
    rows = [on_gpu(make_row(chosen)) for chosen in (some, some[1:], some[:1], some * 2, some * 3)]
    for turn in range(2):  # recorded, and played again
        for row in rows:
            made.zero_grad()
            loss = loss_of(row) * 0.01
            torch.autograd.backward(loss)
            optimizer.gather()
            plain = {weight: master.grad.clone() for weight, master in optimizer.pairs if master.grad is not None}
            loss = loss.detach()  # a graph that lives on would bind the weights' gradients to its stream
            optimizer.begin()
            played = recorded.play(row, 0.01)
            assert played is not None and float(played) == pytest.approx(float(loss), rel=1e-3), turn
            for weight, master in optimizer.pairs:
                assert master.grad is not None
                error = float((master.grad - plain[weight]).norm() / plain[weight].norm())
                assert error < 0.02, (turn, error)
            torch.optim.Optimizer.zero_grad(optimizer)
    assert recorded.lengths == [1024, 2048]


def test_recorded_steps_drop_other_parts_each_time_and_are_reproducible() -> None:
    made = model(varlen=True)
    add_residual_dropout(made, 0.5)
    optimizer = MasterAdamW([{"params": list(made.parameters())}], max_grad_norm=1.0, lr=1e-3, fused=True)
    recorded = RecordedSteps(fused(made.train()), optimizer.sums(), examples=8, longest=512)
    row = on_gpu(make_row(examples()))
    optimizer.begin()

    def played() -> float:
        loss = recorded.play(row, 1.0)
        assert loss is not None
        return float(loss)

    assert len({played() for _ in range(3)}) == 3, "dropout is drawn anew each time"
    torch.cuda.manual_seed(1)
    again = played()
    torch.cuda.manual_seed(1)
    assert played() == again
    assert all(master.grad is not None and float(master.grad.norm()) > 0 for _, master in optimizer.pairs)
    optimizer.begin()
    assert all(master.grad is not None and float(master.grad.norm()) == 0 for _, master in optimizer.pairs)


def test_a_model_that_looks_at_its_data_is_not_recorded_and_its_step_is_as_before() -> None:
    made = model(varlen=True)
    loss_of = fused(made)

    def looking(row: dict[str, Any]) -> torch.Tensor:
        loss = loss_of(row)
        return loss * 2 if float(loss.detach()) < 0 else loss

    optimizer = MasterAdamW([{"params": list(made.parameters())}], max_grad_norm=1.0, lr=1e-3, fused=True)
    recorded = RecordedSteps(looking, optimizer.sums(), examples=8, longest=512)
    row = on_gpu(make_row(examples()))
    optimizer.begin()
    assert recorded.play(row, 1.0) is None and recorded.failed and not recorded.lengths
    loss = looking(row)
    torch.autograd.backward(loss)
    assert all(master.grad is not None and float(master.grad.norm()) > 0 for _, master in optimizer.pairs)
    optimizer.step()
    assert torch.isfinite(loss_of(row).detach())
