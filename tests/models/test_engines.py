"""Engines: which one writes changes no key, and weights at a server are known by their own name."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from minilima.config.choices import Engine, GeneratorKind
from minilima.config.compose import load_config
from minilima.config.schema import ComputeConfig
from minilima.environment import ROOT
from minilima.errors import MinilimaError
from minilima.models import engines, local
from minilima.models.cache import CachedModel
from minilima.models.chat import Request, Sampling, ask
from minilima.models.engines import PACES, Pace, check_engine, explain_choice, faster, find_served, load_writer
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
    assert "writer-large" in error.value.why and f"minilima serve {tmp_path / 'mine'} --port" in error.value.fix
    with pytest.raises(MinilimaError) as error:
        find_served("me/mine@" + "a" * 40, "model-1a2b", compute, tmp_path / "replies.sqlite", "k")
    assert "vllm serve me/mine --revision aaaa" in error.value.fix


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


@pytest.mark.parametrize(
    ("tokens", "engine"), [(0, Engine.transformers), (19_000, Engine.transformers), (21_000, Engine.vllm), (10**7, Engine.vllm)]
)
def test_the_engine_that_ends_sooner_is_taken_its_start_included(tokens: int, engine: Engine) -> None:
    """200 tokens/s at once, or 1,000 after 80 seconds: equal at 20,000."""
    slow, late = Pace(start_up_seconds=0, tokens_per_second=200), Pace(start_up_seconds=80, tokens_per_second=1000)
    assert faster(tokens, {Engine.transformers: slow, Engine.vllm: late}) == engine


def test_the_speeds_that_decide_are_those_of_the_committed_results() -> None:
    ours, theirs = (
        json.loads((ROOT / "benchmarks" / "results" / f"generation_1b_{name}.json").read_text()) for name in ("5_17", "vllm")
    )
    measured = {
        Engine.transformers: (ours["minilima_sampled_varied"], ours["load_seconds"]),
        Engine.vllm: (theirs["vllm_sampled_varied"], theirs["vllm_start_up_seconds"]),
    }
    for engine, (tokens_per_second, start_up_seconds) in measured.items():
        assert PACES[engine].tokens_per_second == pytest.approx(tokens_per_second, rel=0.1)
        assert PACES[engine].start_up_seconds == pytest.approx(start_up_seconds, rel=0.1)
    assert "takes transformers for up to 103,040 tokens: 8 s, vllm 96 s" in explain_choice(103_040)
    assert "takes transformers for up to 20,000,000 tokens" in explain_choice(20_000_000)


@pytest.mark.parametrize(
    ("asked", "there", "tokens", "loaded"),
    [
        (Engine.auto, True, 100_000, "LocalModel"),
        (Engine.auto, True, None, "LocalModel"),
        (Engine.auto, True, 20_000_000, "VllmModel"),
        (Engine.auto, False, 20_000_000, "LocalModel"),
        (Engine.vllm, True, 10, "VllmModel"),
        (Engine.transformers, True, 20_000_000, "LocalModel"),
    ],
)
def test_auto_leaves_much_to_a_faster_vllm_where_it_is_installed_and_what_is_set_is_taken(
    asked: Engine, there: bool, tokens: int | None, loaded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines.PACES, Engine.vllm, Pace(start_up_seconds=70, tokens_per_second=30_000))
    monkeypatch.setattr(engines, "find_spec", lambda name: SimpleNamespace() if there else None)
    monkeypatch.setattr(local, "pick_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(local, "LocalModel", lambda *_, **__: "LocalModel")
    monkeypatch.setitem(sys.modules, "minilima.models.vllm", SimpleNamespace(VllmModel=lambda *_, **__: "VllmModel"))
    assert str(load_writer("folder", "name", ComputeConfig(engine=asked), tokens=tokens)) == loaded
