"""Local models: a reply depends on its request only, never on its neighbours or on what was answered before."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from minilima.config.choices import DeviceKind, Precision
from minilima.config.schema import ComputeConfig
from minilima.errors import MinilimaError
from minilima.models import local
from minilima.models.cache import CachedModel
from minilima.models.chat import Reply, Request, Sampling, ask, continue_text
from minilima.models.engines import load_writer
from minilima.models.local import LocalModel
from minilima.models.tokenizer import load_tokenizer


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32, in which the rounding of another batch does not change a token."""
    monkeypatch.setattr(local, "inference_dtype", lambda device: torch.float32)


def ignore(index: int, reply: Reply) -> None:
    """Nobody listens."""


def load(folder: Path, batch: int) -> LocalModel:
    return LocalModel(str(folder), "tiny", device=DeviceKind.cpu, batch=batch)


def requests(temperature: float, **sampling: Any) -> list[Request]:
    chosen = Sampling(**{"temperature": temperature, "top_p": 0.9, "max_tokens": 12, "repetition_penalty": 1.1, **sampling})
    return [Request(messages=ask("word " * n + "?"), sampling=chosen) for n in (1, 9, 3, 14, 2)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_replies_do_not_depend_on_the_batch(tiny_model: Path, temperature: float) -> None:
    assert load(tiny_model, 8).reply_many(requests(temperature), ignore) == load(tiny_model, 1).reply_many(
        requests(temperature), ignore
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_replies_do_not_depend_on_the_pieces_they_are_written_in(
    tiny_model: Path, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(tiny_model, 3).reply_many(requests(temperature, max_tokens=40), ignore)
    monkeypatch.setattr(local, "_FIRST_TOKENS", 5)
    assert load(tiny_model, 3).reply_many(requests(temperature, max_tokens=40), ignore) == whole


def test_a_batch_reads_little_padding_and_once_what_its_prompts_begin_with(tiny_model: Path) -> None:
    model = load(tiny_model, 8)
    read: list[int] = []
    model.model.register_forward_pre_hook(lambda _, __, given: read.append(given["input_ids"].numel()), with_kwargs=True)
    sampling = Sampling(temperature=0.0, max_tokens=1)
    asked = [Request(messages=ask("How is it? " + "Well " * n), sampling=sampling) for n in (1, 120, 2, 50)]
    lengths = [reply.prompt_tokens for reply in model.reply_many(asked, ignore)]
    shared, rest = read[0], sum(read[1:])
    assert shared >= 8
    assert sum(lengths) - len(lengths) * shared <= rest < 0.5 * len(lengths) * max(lengths)


def test_greedy_replies_are_those_of_generate_with_its_growing_cache(tiny_model: Path) -> None:
    model = load(tiny_model, 8)
    asked = requests(0.0, max_tokens=30)
    for request, reply in zip(asked, model.reply_many(asked, ignore), strict=True):
        prompt = torch.tensor([model._prompt_ids(request.messages)])
        penalty = RepetitionPenaltyLogitsProcessor(1.1, prompt_ignore_length=prompt.shape[1])
        written = model.model.generate(prompt, max_new_tokens=30, do_sample=False, logits_processor=[penalty])
        assert reply.text == model.tokenizer.decode(written[0, prompt.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tensors_that_stay_where_they_are_give_the_same_replies(
    tiny_model: Path, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form that a GPU records, used again for one batch after the other; here its steps are taken one by one."""
    monkeypatch.setattr(local, "_FIRST_TOKENS", 20)
    asked = requests(temperature, max_tokens=50)
    fixed = load(tiny_model, 2)
    fixed.fixed = True
    assert fixed.reply_many(asked, ignore) == load(tiny_model, 2).reply_many(asked, ignore)


def test_a_reply_ends_with_the_turn_and_is_passed_on_before_longer_ones(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_FIRST_TOKENS", 4)
    sampling = Sampling(temperature=1.0, max_tokens=200)
    asked = [Request(messages=ask("Say something"), sampling=sampling, sample=n) for n in range(12)]
    arrived: list[int] = []
    replies = load(tiny_model, 6).reply_many(asked, lambda index, reply: arrived.append(reply.completion_tokens))
    assert {reply.finish for reply in replies} == {"stop", "length"}
    assert all(reply.completion_tokens == 200 for reply in replies if reply.finish == "length")
    assert min(arrived[:3]) < 200
    assert arrived[-1] == 200


def test_a_kill_loses_only_what_was_unfinished(tiny_model: Path) -> None:
    kept: dict[int, Reply] = {}

    def stop_after_two(index: int, reply: Reply) -> None:
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept[index] = reply

    model, asked = load(tiny_model, 2), requests(1.0)
    with pytest.raises(KeyboardInterrupt):
        model.reply_many(asked, stop_after_two)
    rest = [index for index in range(len(asked)) if index not in kept]
    again = dict(zip(rest, model.reply_many([asked[index] for index in rest], ignore), strict=True))
    assert [{**kept, **again}[index] for index in range(5)] == load(tiny_model, 8).reply_many(asked, ignore)


def test_a_group_is_finished_before_the_next_is_begun(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_FIRST_TOKENS", 4)
    # Longest prompts first, and those have the longest replies.
    lengths = [Sampling(temperature=1.0, max_tokens=20 - 2 * n) for n in range(9)]
    asked = [Request(messages=ask("word " * (9 - n)), sampling=sampling, sample=n) for n, sampling in enumerate(lengths)]

    def arrivals(group: int | None) -> list[int]:
        order: list[int] = []
        model = LocalModel(str(tiny_model), "tiny", device=DeviceKind.cpu, batch=3, group=group)
        assert model.reply_many(asked, lambda index, reply: order.append(index)) == together
        return order

    together = load(tiny_model, 9).reply_many(asked, ignore)
    order = arrivals(4)
    assert [sorted(order[start : start + 4]) for start in (0, 4, 8)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert 8 in arrivals(None)[:4], "as one group, short replies come before long ones"


def test_a_text_to_stop_at_ends_a_reply_and_is_not_part_of_it(tiny_model: Path) -> None:
    model = load(tiny_model, 4)
    free = model.reply_many([Request(messages=continue_text("Name"), sampling=Sampling(temperature=0.0, max_tokens=30))], ignore)[
        0
    ]
    stop = free.text[8:10]
    sampling = Sampling(temperature=0.0, max_tokens=30, stop=(stop,))
    reply = model.reply_many([Request(messages=continue_text("Name"), sampling=sampling)], ignore)[0]
    assert reply.text == free.text[: free.text.find(stop)]
    assert reply.finish == "stop"
    assert reply.completion_tokens < free.completion_tokens


def test_where_memory_does_not_suffice_the_batches_get_smaller(tiny_model: Path) -> None:
    model = load(tiny_model, 8)
    refused: list[int] = []

    def full(module: torch.nn.Module, arguments: Any, given: dict[str, Any]) -> None:
        if len(given["input_ids"]) > 2:
            refused.append(len(given["input_ids"]))
            raise torch.OutOfMemoryError

    model.model.register_forward_pre_hook(full, with_kwargs=True)
    replies = model.reply_many(requests(1.0), ignore)
    assert refused == [5]
    assert replies == load(tiny_model, 8).reply_many(requests(1.0), ignore)


def test_a_model_without_room_for_one_reply_is_explained(tiny_model: Path) -> None:
    model = load(tiny_model, 8)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    model.model.register_forward_pre_hook(full)
    with pytest.raises(MinilimaError, match="memory"):
        model.reply_many(requests(1.0), ignore)


def test_samples_differ_and_repeat(tiny_model: Path) -> None:
    model = load(tiny_model, 8)
    sampling = Sampling(temperature=1.0, max_tokens=12)
    asked = [Request(messages=ask("Say something"), sampling=sampling, sample=n) for n in range(4)]
    replies = model.reply_many(asked, ignore)
    assert len({reply.text for reply in replies}) == 4
    assert model.reply_many(asked, ignore) == replies


def test_a_reply_can_be_made_to_begin_in_a_certain_way(tiny_model: Path) -> None:
    request = Request(messages=ask("List"), sampling=Sampling(temperature=0.0, max_tokens=5), prefill="1.")
    assert load(tiny_model, 1).reply_many([request], ignore)[0].text.startswith("1.")


def test_a_prompt_longer_than_the_context_is_explained(tiny_model: Path) -> None:
    request = Request(messages=ask("word " * 600), sampling=Sampling(temperature=0.0, max_tokens=5))
    with pytest.raises(MinilimaError, match="does not fit"):
        load(tiny_model, 1).reply_many([request], ignore)


def test_the_loss_of_an_answer_is_its_negative_log_likelihood(tiny_model: Path) -> None:
    model = load(tiny_model, 1)
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


def test_the_likeliest_first_tokens_are_those_of_the_whole_prompt_read_at_once(tiny_model: Path) -> None:
    model = load(tiny_model, 8)
    chosen = Sampling(temperature=0.0, max_tokens=1, top_logprobs=5)
    asked = [Request(messages=continue_text(f"Tasks and kinds. Task: {word}"), sampling=chosen) for word in ("sort", "sing", "s")]
    mixed = [*asked[:2], Request(messages=ask("Hello"), sampling=Sampling(temperature=0.0, max_tokens=4)), asked[2]]
    replies = model.reply_many(mixed, ignore)
    assert replies[2].logprobs is None and replies[2].completion_tokens > 1
    for request, reply in zip(asked, (replies[0], replies[1], replies[3]), strict=True):
        scores = model.model(torch.tensor([model._prompt_ids(request.messages)])).logits[0, -1].log_softmax(-1)
        assert reply.logprobs is not None and len(reply.logprobs) == 5 and reply.text == next(iter(reply.logprobs))
        assert list(reply.logprobs.values()) == pytest.approx(scores.topk(5).values.tolist(), abs=1e-3)
        assert model.reply_many([request], ignore) == [reply], "whatever else is asked"


def asked_in_bfloat16(count: int) -> list[Request]:
    words = ["Name", "List and explain", "Why is the sky", "Write a long story about", "Say"]
    limits = [20 + 7 * (n % 4) for n in range(count)]
    return [
        Request(
            messages=ask(f"{words[n % 5]} {'very ' * (n % 7)}{n}"), sampling=Sampling(temperature=0.9, max_tokens=limits[n]),
            sample=n,
        )
        for n in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("until", [1, 4, 9, 14])
def test_replies_after_a_kill_are_those_of_a_run_without_one_also_where_neighbours_matter(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: int
) -> None:
    monkeypatch.setattr(local, "inference_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(local, "_FIRST_TOKENS", 8)
    asked = asked_in_bfloat16(18)

    def model() -> LocalModel:
        return LocalModel(str(tiny_model), "tiny", device=DeviceKind.cpu, batch=6, group=9)

    whole = CachedModel(model(), tmp_path / "whole.sqlite").reply_many(asked)
    lonely = model()
    alone = [lonely.reply_many([request], ignore)[0].text for request in asked]
    assert alone != [reply.text for reply in whole], "else this test would show nothing"
    seen = []

    def stop(index: int, reply: Reply) -> None:
        seen.append(index)
        if len(seen) == until:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CachedModel(model(), tmp_path / "killed.sqlite").reply_many(asked, stop)
    resumed = CachedModel(model(), tmp_path / "killed.sqlite")
    assert resumed.reply_many(asked) == whole
    assert (resumed.usage.cached, resumed.usage.calls) == (until, len(asked) - until), "and none is written again"


def test_in_float32_a_reply_does_not_depend_on_those_beside_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "inference_dtype", lambda device: torch.bfloat16)
    asked = asked_in_bfloat16(18)
    compute = ComputeConfig(device=DeviceKind.cpu, generation_batch=6, precision=Precision.float32)
    model = load_writer(str(tiny_model), "tiny", compute)
    assert isinstance(model, LocalModel)
    assert model.arithmetic["dtype"] == "float32"
    whole = model.reply_many(asked, ignore)
    assert [model.reply_many([request], ignore)[0].text for request in asked] == [reply.text for reply in whole]


def test_equal_requests_have_one_reply_as_they_have_after_a_kill(tiny_model: Path, tmp_path: Path) -> None:
    asked = [*requests(1.0), *requests(1.0)]
    first = CachedModel(load(tiny_model, 3), tmp_path / "c.sqlite").reply_many(asked)
    assert first[:5] == first[5:] == CachedModel(load(tiny_model, 3), tmp_path / "c.sqlite").reply_many(asked)[:5]
