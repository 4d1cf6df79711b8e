"""Engines: which one writes changes no key, and weights at a server are known by their own name."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from minilima.config.choices import Engine, GeneratorKind
from minilima.config.compose import load_config
from minilima.config.schema import ComputeConfig
from minilima.errors import MinilimaError
from minilima.models import engines
from minilima.models.cache import CachedModel
from minilima.models.chat import Request, Sampling, ask
from minilima.models.engines import check_engine, find_served
from tests.server import VALID_KEY, ModelServer

QUESTION = Request(messages=ask("Hello"), sampling=Sampling(temperature=0.0, max_tokens=5))


@pytest.fixture
def compute(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ComputeConfig]:
    monkeypatch.setenv("VLLM_API_KEY", VALID_KEY)
    yield ComputeConfig(served_at=[server.url])


def test_weights_at_a_server_answer_under_their_own_name(server: ModelServer, compute: ComputeConfig, tmp_path: Path) -> None:
    cache = tmp_path / "replies.sqlite"
    (tmp_path / "writer-large").mkdir()
    model = find_served(str(tmp_path / "writer-large"), "model-1a2b", compute, cache, "k")
    assert CachedModel(model, cache).reply_many([QUESTION])[0].text == "Output (a)"
    assert server.requests[0]["model"] == "writer-large"
    assert model.name == "model-1a2b"
    CachedModel(find_served("writer-small@" + "a" * 40, "model-1a2b", compute, cache, "k"), cache).reply_many([QUESTION])
    assert len(server.requests) == 1, "the same weights are not asked twice, wherever they are"


def test_weights_that_no_server_offers_are_named(compute: ComputeConfig, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(MinilimaError, match="offers mine") as error:
        find_served(str(tmp_path / "mine"), "model-1a2b", compute, tmp_path / "replies.sqlite", "k")
    assert "writer-large" in error.value.why and "vllm serve" in error.value.fix


def test_a_server_is_not_asked_for_what_it_cannot_do(compute: ComputeConfig, tmp_path: Path) -> None:
    model = find_served("writer-small", "model-1a2b", compute, tmp_path / "replies.sqlite", "k")
    penalised = Request(messages=ask("Hello"), sampling=Sampling(temperature=0.0, max_tokens=5, repetition_penalty=1.2))
    with pytest.raises(MinilimaError, match="repetition_penalty"):
        model.reply_many([penalised], lambda index, reply: None)


def test_vllm_writes_in_this_process_or_wherever_its_address_points() -> None:
    here = load_config(["generator=vllm"])
    assert (here.generator.kind, here.compute.engine) == (GeneratorKind.local, Engine.vllm)
    there = load_config(["generator=vllm", "endpoints.generator.base_url=http://127.0.0.1:9/v1"]).generator
    assert there.kind == GeneratorKind.openai


@pytest.mark.parametrize("override", ["generator=vllm", "compute.engine=vllm"])
def test_vllm_that_is_not_installed_is_missed_before_anything_runs(override: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(MinilimaError, match="vLLM is not installed"):
        check_engine(load_config([override]))
    check_engine(load_config([]))


def test_a_server_is_told_to_ask_for_no_reasoning_where_the_template_can(
    server: ModelServer, tmp_path: Path, compute: ComputeConfig
) -> None:
    folder = tmp_path / "writer-large"
    folder.mkdir()
    for written, told in (("{{ messages }}", [None, {"enable_thinking": True}]),
                          ("{{ enable_thinking }}", [{"enable_thinking": False}, {"enable_thinking": True}])):  # fmt: skip
        (folder / "chat_template.jinja").write_text(written)
        server.requests.clear()
        for way in (None, "keep"):
            model = find_served(str(folder), "model-1a2b", compute, tmp_path / "replies.sqlite", "k")
            model.reply_many([replace(QUESTION, thinking=way)], lambda index, reply: None)
        assert [body.get("chat_template_kwargs") for body in server.requests] == told
