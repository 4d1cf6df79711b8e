"""The guess of what a stage will ask of an endpoint."""

from pathlib import Path

from minilima.config.compose import load_config
from minilima.formats.files import write_jsonl
from minilima.pipeline import stages
from minilima.run.requests import Requests
from minilima.run.sources import resolve

SETTINGS = ["+experiment=lima_1k", "eval_set=minilima_100", "model=smollm2_135m"]


def guess(role: str, *overrides: str) -> Requests | None:
    config = load_config([*SETTINGS, *overrides])
    sources = resolve(config)
    return stages(config, sources).by_role()[role].spec.requests(config, sources)


def test_a_pool_takes_three_requests_a_task_and_those_for_the_lists() -> None:
    found = guess("pool", "data.instructions=300", "data.instructions_per_request=10")
    assert found is not None and found.requests == 3 * 300 + 48, "three whole rounds of 16"
    assert found.usd is not None and found.as_of is not None and found.as_of.startswith("2026")
    twice = guess("pool", "data.instructions=600", "data.instructions_per_request=10")
    assert twice is not None and twice.usd is not None and 1.9 < twice.usd / found.usd < 2.1


def test_a_judge_is_asked_about_each_prompt_in_both_orders() -> None:
    both, one = guess("verdicts"), guess("verdicts", "judge.orders=random")
    assert both is not None and one is not None and (both.requests, one.requests) == (200, 100)


def test_a_judge_of_alpaca_eval_is_asked_once() -> None:
    found = guess("verdicts", "judge=alpaca_eval")
    assert found is not None and found.requests == 100 and found.usd is not None


def test_a_price_that_is_not_known_is_not_guessed() -> None:
    found = guess("pool", "endpoints.generator.base_url=http://127.0.0.1:1/v1")
    assert found is not None and found.usd is None and found.as_of is None


def test_a_cap_bounds_the_guess() -> None:
    found = guess("pool", "endpoints.generator.budget.usd=0.01")
    assert found is not None and found.usd == 0.01


def test_what_asks_no_endpoint_has_no_estimate() -> None:
    assert guess("model") is None
    assert guess("pool", "generator=local") is None


def test_tasks_of_a_file_are_counted_and_ratings_too(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "tasks.jsonl", [{"instruction": f"Task {number}", "output": "Done."} for number in range(7)])
    path = f"data.path={tmp_path}/tasks.jsonl"
    answers, rated = ("data=answers", path, "dataset.select=random"), ("data=file", path, "dataset.select=quality")
    found = guess("pool", *answers)
    assert found is not None and (found.requests, found.completion_tokens) == (7, round(7 * 260 * 1.35))
    assert guess("dataset", *answers) is None and guess("pool", *rated) is None
    found = guess("dataset", *rated)
    assert found is not None and found.requests == 7 and found.usd is not None


def test_a_request_of_magpies_is_one_reply_and_its_answer_another() -> None:
    found = guess("pool", "data=magpie", "data.instructions=90", "data.requests_per_round=30", "data.magpie_prefix=user")
    assert found is not None and found.requests == 120 + 90
