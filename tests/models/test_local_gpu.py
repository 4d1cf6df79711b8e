"""On a GPU: a recorded step, played again and again, writes what a plain one does."""

from pathlib import Path

import pytest
import torch

from minilima.config.choices import DeviceKind
from minilima.models import local
from minilima.models.chat import Reply, Request, Sampling, ask
from minilima.models.local import LocalModel

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
