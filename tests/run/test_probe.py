"""The small request before a run: what would stop every request stops the run before anything is built, and is asked once."""

import json
import re
from pathlib import Path

import pytest

from minilima.__main__ import main
from minilima.config.compose import load_config
from minilima.config.groups import CONF
from minilima.errors import MinilimaError
from minilima.models.budget import price_of, shutdown_note
from minilima.pipeline import run, stages
from minilima.run.endpoints import endpoints_of
from minilima.run.sources import resolve
from tests.cli.test_commands import minilima
from tests.generate.test_pool import writer
from tests.models.test_whole_runs import SMALL, work_here
from tests.personalities import refuses, settings
from tests.server import VALID_KEY, ModelServer


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", VALID_KEY)
    work_here(monkeypatch)


def arguments(server: ModelServer, tmp_path: Path, *overrides: str) -> list[str]:
    return [*settings(server.url), *SMALL, f"paths.outputs={tmp_path}", "until=pool", *overrides]


@pytest.mark.parametrize(
    ("override", "key", "what"),
    [
        (
            "generator.model=no-such",
            VALID_KEY,
            "'no-such'. It says: no such model. It offers: writer-large, writer-small",
        ),
        ("generator.model=writer-small", "wrong", "refuses the key in $TEST_KEY (401)"),
        ("endpoints.generator.base_url={root}", VALID_KEY, "Try {root}/v1 as the address."),
        ("endpoints.generator.base_url={root}/v2", VALID_KEY, "answers 404"),
        ("endpoints.generator.base_url=http://127.0.0.1:9/v1", VALID_KEY, "did not answer, after 1 retry"),
    ],
)
def test_what_every_request_would_meet_stops_the_run_before_anything_is_built(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, key: str, what: str
) -> None:
    monkeypatch.setenv("TEST_KEY", key)
    root = server.url.removesuffix("/v1")
    with pytest.raises(MinilimaError) as caught:
        run(load_config(arguments(server, tmp_path, override.format(root=root))))
    assert what.format(root=root) in str(caught.value) and "endpoints.generator.probe=false" in str(caught.value)
    assert not list((tmp_path / "store").glob("pool-*")) and server.received == 0


OPTIONS = [(group, file.stem) for group in ("generator", "judge") for file in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=str)
def test_every_option_composes_names_its_key_and_has_a_price_or_says_it_has_none(
    group: str, option: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides = [f"{group}={option}", "eval_set.size=2", f"paths.outputs={tmp_path}"]
    config = load_config(overrides)
    endpoints = endpoints_of(config, resolve(config))
    assert main(["plan", *overrides]) == 0
    shown = " ".join(capfd.readouterr().out.split())
    text = (CONF / group / f"{option}.yaml").read_text(encoding="utf-8")
    if group not in endpoints:
        assert option == "vllm" or "api_key_env" not in text
        return
    endpoint, model = endpoints[group]
    assert endpoint.api_key_env in text and model
    priced = price_of(model, endpoint) is not None
    assert ("USD by the prices of 2026" in shown) == priced and ("The price is not known" in shown) != priced
    ends = re.findall(r"shut down on (\S+?)[.;]", shutdown_note(model, endpoint) or "")
    assert all(day in text for day in ends), "an option says when its model ends"


@pytest.mark.parametrize("given", ["{url}/chat/completions", "{url}/", "{url}?api-version=1"])
def test_an_address_that_was_copied_whole_works(server: ModelServer, tmp_path: Path, given: str) -> None:
    server.answer = writer
    run(load_config(arguments(server, tmp_path, f"endpoints.generator.base_url='{given.format(url=server.url)}'")))
    assert len(server.probes) == 1 and server.received == len(server.requests) > 0


def test_a_probe_is_sent_once_and_every_process_knows_what_it_found(server: ModelServer, tmp_path: Path) -> None:
    server.tokens = (10, 2)
    server.answer, server.refuse = writer, refuses("top_p", 400, "top_p is not supported.")
    command = ["run", *arguments(server, tmp_path)]
    first = minilima(*command)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "top_p left out" in " ".join(first.stdout.split())
    assert [set(body) & {"top_p", "temperature"} for body in server.probes] == [{"top_p", "temperature"}, {"temperature"}]
    assert server.received == len(server.requests), "the stage's process was refused nothing"
    (manifest,) = (tmp_path / "store").glob("pool-*/manifest.json")
    assert json.loads(manifest.read_text())["usage"]["faults"] == {"top_p left out": 1}

    asked = server.received
    run(load_config(arguments(server, tmp_path, "data.instructions=4")))
    assert len(server.probes) == 2 and server.received >= asked
    run(load_config(arguments(server, tmp_path)))
    assert len(server.probes) == 2, "nothing is to be built"


def test_an_endpoint_that_is_not_asked_any_more_is_not_probed(server: ModelServer, tmp_path: Path) -> None:
    server.answer = writer
    run(load_config(arguments(server, tmp_path)))
    assert [body["model"] for body in server.probes] == ["writer-small"], "the run ends before the judge"
    run(load_config(arguments(server, tmp_path / "other", "endpoints.generator.probe=false")))
    assert len(server.probes) == 1


def test_a_server_that_is_busy_does_not_stop_a_run(server: ModelServer, tmp_path: Path) -> None:
    busy = iter([(503, {"error": {"message": "loading the model"}})] * 2)
    server.answer, server.refuse = writer, lambda body: next(busy, None)
    run(load_config(arguments(server, tmp_path)))
    assert len(server.probes) == 2 and server.received == len(server.requests) > 0


def test_a_judge_that_reads_log_probabilities_is_refused_where_there_are_none(server: ModelServer, tmp_path: Path) -> None:
    server.answer = writer
    weighted = ["judge=gpt4_turbo_weighted", "judge.model=writer-large", "until=report"]
    with pytest.raises(MinilimaError, match="gives no log-probabilities"):
        run(load_config(arguments(server, tmp_path, *weighted)))
    assert server.received == 0


def test_a_probe_counts_under_the_cap(server: ModelServer, tmp_path: Path) -> None:
    server.answer = writer
    with pytest.raises(MinilimaError, match="stopped by budget"):
        run(load_config(arguments(server, tmp_path, "endpoints.generator.budget.requests=1")))
    assert len(server.probes) + server.received == 1


def test_a_temperature_of_null_is_sent_by_no_step_and_what_is_added_by_each(server: ModelServer, tmp_path: Path) -> None:
    server.answer = writer
    null = ("generator.temperature=null", "generator.top_p=null", "generator.reasoning_effort=low")
    run(load_config(arguments(server, tmp_path, *null, "generator.extra_body={thinking: {type: disabled}}")))
    sent = [*server.probes, *server.requests]
    assert len(sent) > 3 and not [body for body in sent if {"temperature", "top_p"} & set(body)]
    assert all(body["reasoning_effort"] == "low" and body["thinking"] == {"type": "disabled"} for body in sent)


CHANGES = (
    "generator.reasoning_effort=low",
    "generator.extra_body={top_k: 20}",
    "generator.extra_body.top_k=20",
    "+generator.extra_body.thinking.type=disabled",
    "generator.temperature=null",
)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_asked_of_a_model_enters_the_key(change: str) -> None:
    def key(*more: str) -> str:
        config = load_config(["generator=openai", "judge=reference", *more])
        (pool,) = (node for node in stages(config, resolve(config)).nodes if node is not None and node.role == "pool")
        return pool.stage.key

    assert key() != key(change)
