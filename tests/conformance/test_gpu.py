"""What only a GPU can show of the families: packed rows train as examples alone, recorded steps answer as a CPU does."""

from pathlib import Path

import pytest
import torch

from minilima.config.choices import DeviceKind
from minilima.models import attention, local
from minilima.models.chat import Request, Sampling, ask
from minilima.models.local import LocalModel
from minilima.models.weights import load_model
from minilima.train.sft import build_model
from tests.conformance.families import FAMILIES, Family, build
from tests.conformance.test_families import NAMES, job_of

pytestmark = pytest.mark.skipif(not attention.is_available(), reason="needs a GPU with variable-length attention")


@pytest.fixture(params=FAMILIES, ids=NAMES)
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = request.param
    return found


def test_packed_examples_have_the_loss_of_each_alone(family: Family, tmp_path: Path) -> None:
    folder = build(family, tmp_path / "model")
    losses = []
    for name, rows in (("packed", ()), ("alone", ("compute.micro_batch_tokens=1",))):
        job = job_of(folder, tmp_path / name, "compute=gpu", "compute.precision=auto", "sft.epochs=1", *rows)
        losses.append(build_model(job, lambda progress: None).metrics["first_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_greedy_answers_are_those_of_a_cpu(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "inference_dtype", lambda device: torch.float32)
    folder = build(family, tmp_path / "model")
    asked = [Request(messages=ask("word " * n + "?"), sampling=Sampling(temperature=0.0, max_tokens=12)) for n in (1, 9, 4)]
    replies = [
        LocalModel(str(folder), "tiny", device=device, batch=4).reply_many(asked, lambda index, reply: None)
        for device in (DeviceKind.cuda, DeviceKind.cpu)
    ]
    assert [reply.completion_tokens for reply in replies[0]] == [reply.completion_tokens for reply in replies[1]]
    assert replies[0] == replies[1]


def test_the_kernel_is_used_only_where_it_gives_the_models_own_attention(tmp_path: Path) -> None:
    fitting = {}
    for name in ("SmolLM2", "Gemma 2", "Mistral", "GPT-2", "BLOOM"):
        family = next(item for item in FAMILIES if item.name.startswith(name))
        model = load_model(str(build(family, tmp_path / name)), torch.float32, torch.device("cpu"))
        fitting[name] = attention.fits(model, 8192)
    assert fitting == {"SmolLM2": True, "Gemma 2": False, "Mistral": False, "GPT-2": True, "BLOOM": False}
