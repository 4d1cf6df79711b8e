"""Local models: a reply depends on its request only, never on its neighbours or on what was answered before."""

import math
from pathlib import Path

import pytest
import torch

from minilima.config import Device
from minilima.errors import MinilimaError
from minilima.llm.chat import Reply, Request, Sampling, ask
from minilima.llm.local import LocalModel, load_tokenizer


def ignore(index: int, reply: Reply) -> None:
    """Nobody listens."""


def requests(temperature: float) -> list[Request]:
    sampling = Sampling(temperature=temperature, top_p=0.9, max_tokens=12, repetition_penalty=1.1)
    return [Request(messages=ask("word " * n + "?"), sampling=sampling) for n in (1, 9, 3, 14, 2)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_replies_do_not_depend_on_the_batch(tiny_model: Path, temperature: float) -> None:
    together = LocalModel(str(tiny_model), "tiny", device=Device.cpu, batch=8).reply_many(requests(temperature), ignore)
    alone = LocalModel(str(tiny_model), "tiny", device=Device.cpu, batch=1).reply_many(requests(temperature), ignore)
    assert together == alone


def test_samples_differ_and_repeat(tiny_model: Path) -> None:
    model = LocalModel(str(tiny_model), "tiny", device=Device.cpu, batch=8)
    sampling = Sampling(temperature=1.0, max_tokens=12)
    asked = [Request(messages=ask("Say something"), sampling=sampling, sample=n) for n in range(4)]
    replies = model.reply_many(asked, ignore)
    assert len({reply.text for reply in replies}) == 4
    assert model.reply_many(asked, ignore) == replies


def test_sampling_follows_the_probabilities(tiny_model: Path) -> None:
    from minilima.llm.local import _SeededSampling

    scores = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).repeat(4000, 1)
    drawn = _SeededSampling([str(n) for n in range(4000)])(torch.zeros(4000, 1, dtype=torch.long), scores).argmax(dim=-1)
    shares = torch.bincount(drawn, minlength=3) / 4000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.03)


def test_a_reply_can_be_made_to_begin_in_a_certain_way(tiny_model: Path) -> None:
    request = Request(messages=ask("List"), sampling=Sampling(temperature=0.0, max_tokens=5), prefill="1.")
    assert LocalModel(str(tiny_model), "tiny", device=Device.cpu, batch=1).reply_many([request], ignore)[0].text.startswith("1.")


def test_a_prompt_longer_than_the_context_is_explained(tiny_model: Path) -> None:
    request = Request(messages=ask("word " * 600), sampling=Sampling(temperature=0.0, max_tokens=5))
    with pytest.raises(MinilimaError, match="does not fit"):
        LocalModel(str(tiny_model), "tiny", device=Device.cpu, batch=1).reply_many([request], ignore)


def test_the_loss_of_an_answer_is_its_negative_log_likelihood(tiny_model: Path) -> None:
    model = LocalModel(str(tiny_model), "tiny", device=Device.cpu, batch=1)
    loss = next(model.reference_losses([("a", "Question", "an answer")]))
    prompt = model._prompt_ids(ask("Question"))
    target = [*model.tokenizer.encode("an answer", add_special_tokens=False), model.tokenizer.eos_token_id]
    logits = model.model(torch.tensor([prompt + target])).logits[0].float().log_softmax(-1)
    expected = -sum(float(logits[len(prompt) + place - 1, token]) for place, token in enumerate(target))
    assert loss.tokens == len(target)
    assert math.isclose(loss.nats, expected, rel_tol=1e-5)


def test_padding_is_never_the_end_of_a_turn(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.unk_token = "<|endoftext|>"
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert again.pad_token_id != again.eos_token_id
