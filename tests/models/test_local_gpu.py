"""On a GPU: a recorded step, played again and again, writes what a plain one does."""

from pathlib import Path

import pytest
import torch

from minilima.config.choices import DeviceKind
from minilima.models import local
from minilima.models.chat import Reply, Request, Sampling, ask
from minilima.models.local import LocalModel
from minilima.models.sampling import choose

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_recorded_steps_write_what_plain_ones_do(tiny_model: Path, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "inference_dtype", lambda device: torch.float32)
    monkeypatch.setattr(local, "_FIRST_TOKENS", 20)
    sampling = Sampling(temperature=temperature, top_p=0.9, max_tokens=50, repetition_penalty=1.1)
    asked = [Request(messages=ask("word " * n + "?"), sampling=sampling) for n in range(1, 20)]

    def write(device: DeviceKind, batch: int) -> list[Reply]:
        model = LocalModel(str(tiny_model), "tiny", device=device, batch=batch)
        return model.reply_many(asked, lambda index, reply: None)

    plain = write(DeviceKind.cpu, 8)
    # Another order of summation decides otherwise where two tokens are as good as equal.
    for batch in (8, 32):
        same = sum(one == other for one, other in zip(plain, write(DeviceKind.cuda, batch), strict=True))
        assert same >= len(asked) - 2


@pytest.mark.parametrize("penalty", [None, 1.3])
@pytest.mark.parametrize("top_p", [None, 0.9, 0.3, 0.01])
@pytest.mark.parametrize("spread", [0.01, 3.0])
@pytest.mark.parametrize("vocabulary", [100, 49_152])
def test_the_kernel_draws_what_the_operations_do(
    penalty: float | None, top_p: float | None, spread: float, vocabulary: int
) -> None:
    """Flat and sharp distributions, vocabularies below a block and of many blocks."""
    torch.manual_seed(0)
    sampling = Sampling(temperature=0.7, top_p=top_p, repetition_penalty=penalty, max_tokens=1)
    scores = (torch.randn(64, vocabulary) * spread).bfloat16()
    written = torch.rand(64, vocabulary if penalty else 0) < 0.1
    drawn = torch.rand(64, 1)
    plain = choose(scores, sampling, written, drawn)
    fused = choose(scores.cuda(), sampling, written.cuda(), drawn.cuda())
    assert (plain != fused.cpu()).sum() <= 2, "another order of summation decides where a draw falls between two tokens"


def test_heads_of_a_group_attend_as_with_copies_of_their_key_head() -> None:
    from minilima.models.attention import grouped

    torch.manual_seed(0)
    query, key, value = torch.randn(5, 8, 1, 64), torch.randn(5, 2, 96, 64), torch.randn(5, 2, 96, 64)
    shown = torch.rand(5, 1, 1, 96) < 0.7
    keys, values = key.repeat_interleave(4, dim=1), value.repeat_interleave(4, dim=1)
    attended = torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=shown, scale=0.1)
    ours, _ = grouped(torch.nn.Module(), query.cuda(), key.cuda(), value.cuda(), shown.cuda(), scaling=0.1)
    assert torch.allclose(ours.cpu(), attended.transpose(1, 2), atol=1e-5)
