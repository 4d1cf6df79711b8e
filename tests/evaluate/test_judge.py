"""Judges: replies are read strictly, positions cancel out, verdicts come from the loopback server and from texts."""

import json
import math
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.evaluate.judge import build_verdicts, is_switched
from minilima.evaluate.judge_forms import FORMS, check_form, form_named, parse_choice, weigh
from minilima.evaluate.judged import read_judged
from minilima.evaluate.results import compute_results
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import read_jsonl, sha256_text, write_jsonl
from minilima.formats.records import Answer
from minilima.models.chat import OnReply, Reply, Request
from minilima.models.local import LocalModel
from minilima.models.packaged import is_fetched
from minilima.run.sources import resolve
from minilima.store.job import Job
from tests.server import FAULTS, VALID_KEY, ModelServer

needs_embedding = pytest.mark.skipif(not is_fetched("all_minilm_l6_v2"), reason="run `python -m minilima fetch` first")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("Output (a)", "a"),
        ("output (B).", "b"),
        ("Output (a) is wordy.\n\nOutput (b)", "b"),
        ("**Output (a)**", "a"),
        ("Both Output (a) and Output (b) are fine.", None),
        ("I cannot decide.", None),
        ("", None),
        ("I prefer the first output because it is right.", "a"),
        ("Neither output answers the question, so it is a tie.", None),
        ("The second answer is better.", "b"),
        ("Output (a) is better than Output (b).", "a"),
        ("Output (a) is better because it does not ramble.", "a"),
        ("Output (a) is not better.", None),
        ("Output (a) is wrong.", None),
        ("It is the best output a person could want.", None),
        ("Outputs are equal; I would choose output a.", None),
        ("My choice: Output (b)", "b"),
        ("Output b is better", "b"),
    ],
)
def test_a_choice_is_read_or_not_at_all(text: str, choice: str | None) -> None:
    assert parse_choice(text) == choice


def job(tmp_path: Path, pairs: list[tuple[str, str]], *overrides: str) -> Job:
    """Verdicts on (base, tuned) answers to questions whose reference answer is `the cat sat on the mat`."""
    prompts = [{"id": str(n), "instruction": f"Question {n}?", "output": "the cat sat on the mat"} for n in range(len(pairs))]
    write_jsonl(tmp_path / "eval.jsonl", prompts)
    config = load_config([f"eval_set.path={tmp_path / 'eval.jsonl'}", *overrides])
    inputs = {}
    for role, place in (("reference", 0), ("answers", 1)):
        inputs[role] = tmp_path / role
        rows = [
            Answer(id=str(n), instruction=f"Question {n}?", output=pair[place], generator=role, tokens=3, truncated=False)
            for n, pair in enumerate(pairs)
        ]
        write_jsonl(inputs[role] / "answers.jsonl", rows)
    work = tmp_path / "work"
    (work / "scratch").mkdir(parents=True)
    return Job(
        kind="verdicts",
        role="verdicts",
        key="k",
        work=work,
        inputs=inputs,
        config=config,
        sources=resolve(config),
        cache=tmp_path / "c.sqlite",
    )


def preferences(job: Job) -> list[float | None]:
    build_verdicts(job, lambda progress: None)
    return [row.get("preference") for row in read_jsonl(job.work / "verdicts.jsonl")]


def judge_server(tmp_path: Path, server: ModelServer, pairs: list[tuple[str, str]], *more: str) -> list[float | None]:
    overrides = ("judge=chatgpt", "judge.model=writer-large", f"endpoints.judge.base_url={server.url}", *more)
    return preferences(job(tmp_path, pairs, *overrides))


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)


def shown(body: dict[str, Any]) -> tuple[str, str]:
    found = re.search(r"# Output \(a\)\n(.*?)\n\n# Output \(b\)\n(.*?)\n", body["messages"][-1]["content"], re.DOTALL)
    assert found
    return found.group(1), found.group(2)


@pytest.mark.usefixtures("key")
def test_a_judge_that_always_takes_the_first_gives_only_ties(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: "Output (a)"
    assert judge_server(tmp_path, server, [("x", "y"), ("p", "q")]) == [1.5, 1.5]
    assert len(server.requests) == 4


@pytest.mark.usefixtures("key")
def test_a_judge_that_looks_at_the_answers_decides(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: "Output (a)" if len(shown(body)[0]) > len(shown(body)[1]) else "Output (b)"
    assert judge_server(tmp_path, server, [("short", "much longer"), ("much longer", "short")]) == [2.0, 1.0]


@pytest.mark.usefixtures("key")
def test_an_unreadable_reply_is_counted_and_judges_nothing(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: "Hm." if "Question 1" in body["messages"][-1]["content"] else "Output (b)"
    assert judge_server(tmp_path, server, [("x", "y"), ("x", "y")]) == [1.5, None]


def side(body: dict[str, Any], tuned: str) -> str:
    """A or B: which assistant of Arena-Hard's prompt gave the answer `tuned`."""
    first = body["messages"][-1]["content"].partition("# Answer of assistant A\n")[2].partition("\n\n# Answer of")[0]
    return "A" if first == tuned else "B"


@pytest.mark.usefixtures("key")
def test_arena_hard_counts_strong_labels_three_times_over_prompts(tmp_path: Path, server: ModelServer) -> None:
    """Prompt 0: strongly for the tuned answer in both orders. Prompt 1: strongly for it, then slightly against it."""

    def answer(body: dict[str, Any]) -> str:
        mine = side(body, "tuned")
        other = "B" if mine == "A" else "A"
        if "Question 1?" in body["messages"][-1]["content"]:
            return f"[[{mine}>>{other}]]" if mine == "A" else f"[[{other}>{mine}]]"
        return f"[[{mine}>>{other}]]"

    server.answer = answer
    more = ("judge=arena_hard", "judge.model=writer-large", f"endpoints.judge.base_url={server.url}")
    made = job(tmp_path, [("base", "tuned")] * 2, *more)
    assert preferences(made) == [2.0, 1.75]
    rows = read_jsonl(made.work / "verdicts.jsonl")
    assert [(row["weight"], row["orders"]) for row in rows] == [(6.0, [2.0, 2.0]), (4.0, [1.0, 2.0])]
    for role in ("answers", "reference"):
        write_jsonl(made.inputs[role] / "reference_loss.jsonl", [])
    folders = {"verdicts": made.work, "answers": made.inputs["answers"], "base_answers": made.inputs["reference"]}
    judged = read_judged(folders)
    assert judged is not None
    results = compute_results(judged, min_coverage=0.9)
    # show_result.py of arena-hard-auto: (1 1 1, 1 1 1; 1 1 1, 0) over ten battles.
    assert results.win_rate is not None and results.paired is not None
    assert results.win_rate.win_rate.value == pytest.approx(90)
    assert results.paired.difference.value == pytest.approx(40)
    assert (results.win_rate.win_rate.low, results.win_rate.win_rate.high) == (75, 100)  # of two prompts, not of ten battles


def scored(tmp_path: Path, server: ModelServer, pairs: list[tuple[str, str]], *more: str) -> list[dict[str, Any]]:
    made = job(tmp_path, pairs, "judge.model=writer-large", f"endpoints.judge.base_url={server.url}", *more)
    build_verdicts(made, lambda progress: None)
    return read_jsonl(made.work / "verdicts.jsonl")


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("judge", ["rubric", "mt_bench"])
def test_each_answer_alone_is_scored_and_the_higher_score_wins(tmp_path: Path, server: ModelServer, judge: str) -> None:
    server.answer = lambda body: "Fine.\n[[9]]" if "zebra" in body["messages"][-1]["content"] else "Poor.\n[[2]]"
    rows = scored(tmp_path, server, [("horse", "a zebra"), ("same", "same"), ("a zebra", "horse")], f"judge={judge}")
    assert [row["preference"] for row in rows] == [2.0, 1.5, 1.0]
    assert [row["scores"] for row in rows] == [[2, 9], [2, 2], [9, 2]]
    assert len(server.requests) == 5  # equal answers are asked about once
    assert all("response_format" in body for body in server.requests)
    assert all("orders" not in row or not row["orders"] for row in rows)


@pytest.mark.usefixtures("key")
def test_a_rating_that_cannot_be_read_is_no_verdict(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: "Hm." if "worse" in body["messages"][-1]["content"] else "[[8]]"
    rows = scored(tmp_path, server, [("fine", "also fine"), ("worse", "better")], "judge=mt_bench")
    assert [row.get("preference") for row in rows] == [1.5, None]
    assert "could not be read: Hm." in rows[1]["explanation"]


@pytest.mark.usefixtures("key")
def test_a_rubric_and_the_criteria_of_a_prompt_are_shown(tmp_path: Path, server: ModelServer) -> None:
    (tmp_path / "mine.txt").write_text("10: it rhymes.")
    server.answer = lambda body: "[[5]]"
    made = job(tmp_path, [("x", "y")], "judge=rubric", "judge.model=writer-large", f"endpoints.judge.base_url={server.url}")
    (tmp_path / "eval.jsonl").write_text(json.dumps({"id": "0", "instruction": "Question 0?", "criteria": ["Names the mat."]}))
    config = load_config([
        "judge=rubric", "judge.model=writer-large", f"endpoints.judge.base_url={server.url}",
        f"judge.rubric={tmp_path / 'mine.txt'}", f"eval_set.path={tmp_path / 'eval.jsonl'}",
    ])  # fmt: skip
    build_verdicts(replace(made, config=config, sources=resolve(config)), lambda progress: None)
    asked = [body["messages"][-1]["content"] for body in server.requests]
    assert all("10: it rhymes." in text and "- Names the mat." in text for text in asked)


@pytest.mark.usefixtures("key")
def test_yes_no_is_the_difference_of_two_calls_at_an_endpoint(tmp_path: Path, server: ModelServer) -> None:
    server.logprobs = lambda body: {"Yes": math.log(0.75 if "right" in body["messages"][-1]["content"] else 0.25)}
    more = ("judge=yes_no", "judge.kind=openai")
    rows = scored(tmp_path, server, [("right", "wrong"), ("wrong", "right")], *more)
    assert [row["preference"] for row in rows] == [1.0, 2.0]
    assert rows[1]["scores"] == pytest.approx([0.25, 0.75])
    assert len(server.requests) == 4


def test_yes_no_of_a_local_model_reads_its_likeliest_first_tokens(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens: list[dict[str, float]] = []

    def read(reply: Reply) -> float | None:
        tokens.append(reply.logprobs or {})
        return float(max(tokens[-1].values()))  # a random model says neither yes nor no

    forms = tuple(replace(form, read=read) if form.name == "yes_no" else form for form in FORMS)
    monkeypatch.setattr("minilima.evaluate.judge_forms.FORMS", forms)
    made = job(tmp_path, [("a", "b"), ("b", "a")], "judge=yes_no", f"judge.model={tiny_model}", f"model.path={tiny_model}")
    build_verdicts(made, lambda progress: None)
    assert len(tokens) == 4 and all(10 < len(likely) <= 20 for likely in tokens)
    assert all(-20 < score < 0 for row in read_jsonl(made.work / "verdicts.jsonl") for score in row["scores"])


def letters(first_token: dict[str, float]) -> Callable[[dict[str, Any]], dict[str, float]]:
    """The same log-probabilities whatever is asked."""
    return lambda body: first_token


def weighted(tmp_path: Path, server: ModelServer, *more: str) -> list[dict[str, Any]]:
    """Verdicts of the weighing judge on two pairs."""
    settings = ("judge=gpt4_turbo_weighted", "judge.model=writer-large", f"endpoints.judge.base_url={server.url}", *more)
    made = job(tmp_path, [("x", "y"), ("p", "q")], *settings)
    build_verdicts(made, lambda progress: None)
    return read_jsonl(made.work / "verdicts.jsonl")


@pytest.mark.usefixtures("key")
def test_a_weighing_judge_is_asked_for_one_letter_in_both_orders_and_its_odds_are_averaged(
    tmp_path: Path, server: ModelServer
) -> None:
    server.logprobs = lambda body: {"M": math.log(0.6), "m": math.log(0.2), "Both": math.log(0.1)}
    first, second = weighted(tmp_path, server)
    assert first["orders"] == pytest.approx([1.75, 1.25]) and first["preference"] == pytest.approx(1.5)
    assert second["preference"] == pytest.approx(1.5)
    asked = server.requests[0]
    assert (len(server.requests), asked["max_completion_tokens"], asked["logprobs"], asked["top_logprobs"]) == (4, 1, True, 5)


@pytest.mark.usefixtures("key")
def test_a_weighing_judge_asks_once_in_alpaca_evals_order(tmp_path: Path, server: ModelServer) -> None:
    server.logprobs = letters({"m": math.log(0.9), "M": math.log(0.1)})
    rows = weighted(tmp_path, server, "judge.orders=random")
    expected = [1.9 if is_switched(f"Question {number}?") else 1.1 for number in range(2)]
    assert [row["preference"] for row in rows] == pytest.approx(expected)
    assert len(server.requests) == 2


def test_the_order_is_the_one_that_alpaca_eval_draws() -> None:
    import pandas
    from alpaca_eval.processors import RandomSwitchTwoColumnsProcessor

    columns = ["output_1", "output_2"]
    processor = RandomSwitchTwoColumnsProcessor(
        two_columns_to_switch=columns, random_seed_columns=["instruction"], _switch_column="is_switched_outputs", seed=0
    )
    rows = [{"instruction": f"Question {number}? Ü", "output_1": "a", "output_2": "b"} for number in range(200)]
    drawn = processor.preprocess(pandas.DataFrame(rows))
    assert [is_switched(row["instruction"]) for row in rows] == list(drawn["is_switched_outputs"])
    assert set(drawn["is_switched_outputs"]) == {False, True}


@pytest.mark.parametrize("tokens", [{"m": -0.1, "M": -2.5}, {"M": 0.0, "m": -9999.0}, {"m": -3.0, "The": -0.1}, {"The": 0.0}])
def test_letters_are_weighed_as_alpaca_eval_weighs_them(tokens: dict[str, float]) -> None:
    from alpaca_eval.completion_parsers import logprob_parser

    tops = [{"token": token, "logprob": value} for token, value in tokens.items()]
    reply = {"logprobs": {"content": [{"top_logprobs": tops}]}}
    (theirs,) = logprob_parser(reply, numerator_token="m", denominator_tokens=["m", "M"], is_binarize=False)
    ours = weigh(tokens)
    assert math.isnan(theirs) if ours is None else ours == pytest.approx(theirs, abs=1e-15)


@pytest.mark.usefixtures("key")
def test_a_model_without_log_probabilities_is_refused_after_one_request(tmp_path: Path, server: ModelServer) -> None:
    with pytest.raises(MinilimaError, match="no log-probabilities"):
        weighted(tmp_path, server)
    assert len(server.requests) == 1


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(("status", "named"), [(401, "refuses the key"), (404, "answers 404"), (400, "log-probabilities")])
def test_what_is_refused_is_refused_once(tmp_path: Path, server: ModelServer, status: int, named: str) -> None:
    server.faults = [status] * 4
    with pytest.raises(MinilimaError, match=named):
        weighted(tmp_path, server)
    assert server.received == 1


@pytest.mark.usefixtures("key")
def test_equal_answers_are_a_tie_and_cost_nothing(tmp_path: Path, server: ModelServer) -> None:
    assert judge_server(tmp_path, server, [("x", "x"), ("p", "p")]) == [1.5, 1.5]
    assert server.requests == []


@pytest.mark.usefixtures("key")
def test_a_judged_pair_is_not_asked_again(tmp_path: Path, server: ModelServer) -> None:
    first = job(tmp_path, [("x", "y")], "judge=cot", "judge.model=writer-large", f"endpoints.judge.base_url={server.url}")
    build_verdicts(first, lambda progress: None)
    outcome = build_verdicts(first, lambda progress: None)
    assert (len(server.requests), outcome.usage.calls, outcome.usage.cached) == (2, 0, 2)


def by_content(body: dict[str, Any]) -> str:
    """A judge's reply that tells its request, and chooses by the answers alone, whatever their order."""
    first, second = shown(body)
    name = sha256_text(body["messages"][-1]["content"])
    return f"I was asked {name}.\nOutput ({'a' if sha256_text(first) < sha256_text(second) else 'b'})"


@pytest.mark.usefixtures("key")
def test_every_kind_of_fault_is_survived_and_counted(tmp_path: Path, server: ModelServer) -> None:
    pairs = [(f"base {n}", f"tuned {n}") for n in range(60)]
    server.answer = lambda body: "Hm." if "Question 7?" in body["messages"][-1]["content"] else by_content(body)
    server.fault_share, server.hang_seconds = 0.3, 1.0
    limits = {"timeout_seconds": 0.5, "max_retries": 8, "concurrency": 32}
    settings = ["judge=cot", "judge.model=writer-large", f"endpoints.judge.base_url={server.url}"]
    made = job(tmp_path, pairs, *settings, *(f"endpoints.judge.{name}={value}" for name, value in limits.items()))
    outcome = build_verdicts(made, lambda progress: None)
    assert set(server.injected) == set(FAULTS), "each of them occurred"
    rows = read_jsonl(made.work / "verdicts.jsonl")
    read = {row["id"]: row["preference"] for row in rows if row.get("preference") is not None}
    # A reply that is cut is unread, too, and not asked for again: it would be cut again.
    cut = server.injected["truncated"]
    assert "7" not in read and 59 - cut <= len(read) < 60
    assert (outcome.metrics["judged"], outcome.metrics["prompts"]) == (len(read), 60)
    right = {str(n): 2.0 if sha256_text(tuned) < sha256_text(base) else 1.0 for n, (base, tuned) in enumerate(pairs)}
    assert all(preference == right[name] for name, preference in read.items())
    told = {
        "busy": ("429", "429-after"), "server_error": ("500",), "connection": ("drop",), "timeout": ("hang",),
        "empty": ("empty",), "filtered": ("filtered",), "malformed": ("malformed",),
    }  # fmt: skip
    counted = {fault: sum(server.injected[kind] for kind in kinds) for fault, kinds in told.items()}
    unusable = outcome.usage.faults["unusable"]
    assert outcome.usage.faults == {**counted, "unusable": unusable}
    # Both orders of the seventh, each asked three times, unless it was cut.
    assert 6 - cut <= unusable <= 6
    answers, reference = with_losses(made.inputs["answers"]), with_losses(made.inputs["reference"])
    judged = read_judged({"verdicts": made.work, "answers": answers, "base_answers": reference})
    assert judged is not None
    coverage = compute_results(judged, min_coverage=0.99)
    assert coverage.win_rate is None and f"{len(read)} of 60 prompts judged" in coverage.coverage.refusal()


def with_losses(folder: Path) -> Path:
    """The answers of a model, without reference answers beside them."""
    write_jsonl(folder / "reference_loss.jsonl", [])
    return folder


@pytest.mark.usefixtures("key")
def test_a_kill_loses_no_judged_pair_and_changes_no_verdict(tmp_path: Path, server: ModelServer) -> None:
    pairs = [(f"base {n}", f"tuned {n}") for n in range(40)]
    settings = [
        "judge=cot",
        "judge.model=writer-large",
        f"endpoints.judge.base_url={server.url}",
        "endpoints.judge.concurrency=4",
    ]
    server.answer = by_content
    whole = job(tmp_path / "whole", pairs, *settings)
    build_verdicts(whole, lambda progress: None)
    needed = Counter(body["messages"][-1]["content"] for body in server.requests)
    assert set(needed.values()) == {1} and len(needed) == 80
    server.requests.clear()
    killed = job(tmp_path / "killed", pairs, *settings)
    (tmp_path / "job.json").write_text(killed.to_json())
    for moment in (1, 40, 79, None):
        kept = kept_replies(killed.cache)
        seen = len(server.requests)
        server.hold_after = None if moment is None else server.received + moment - len(kept)
        process = subprocess.Popen(
            [sys.executable, "-m", "minilima.run.worker", str(tmp_path / "job.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        while process.poll() is None and (moment is None or len(kept_replies(killed.cache)) < moment):
            time.sleep(0.02)
        process.kill()
        assert process.wait() == (0 if moment is None else -signal.SIGKILL)
        server.hold_after = None
        asked = {sha256_text(body["messages"][-1]["content"]) for body in server.requests[seen:]}
        assert not asked & kept, "a judged pair was asked about again"
    assert len(kept_replies(killed.cache)) == 80
    assert (killed.work / "verdicts.jsonl").read_bytes() == (whole.work / "verdicts.jsonl").read_bytes()


def kept_replies(cache: Path) -> set[str]:
    """What the kept replies of `by_content` were asked."""
    if not cache.is_file():
        return set()
    with closing(sqlite3.connect(cache)) as database:
        try:
            rows = database.execute("SELECT reply FROM replies").fetchall()
        except sqlite3.OperationalError:  # its tables are not made yet
            return set()
    return {json.loads(text)["text"].split()[3].rstrip(".") for (text,) in rows}


def test_the_answer_closer_to_the_reference_wins_by_words(tmp_path: Path) -> None:
    pairs = [("dogs bark", "a cat sat on a mat"), ("the cat sat on the mat", "dogs bark"), ("same", "same")]
    assert preferences(job(tmp_path, pairs, "judge.embedding_weight=0")) == [2.0, 1.0, 1.5]


@needs_embedding
def test_the_answer_closer_to_the_reference_wins_by_meaning(tmp_path: Path) -> None:
    pairs = [("Share prices fell sharply.", "A kitten was sitting upon that rug."), ("A kitten was sitting.", "Stocks fell.")]
    assert preferences(job(tmp_path, pairs, "judge.embedding_weight=1")) == [2.0, 1.0]


def test_a_set_without_reference_answers_is_refused_by_the_reference_judge(tmp_path: Path) -> None:
    made = job(tmp_path, [("x", "y")], "judge.embedding_weight=0")
    write_jsonl(tmp_path / "eval.jsonl", [{"id": "0", "instruction": "Question 0?"}])
    with pytest.raises(MinilimaError, match="no reference answer"):
        build_verdicts(made, lambda progress: None)


def test_a_local_judge_asks_in_both_orders(tmp_path: Path, tiny_model: Path) -> None:
    made = job(tmp_path, [("x", "y"), ("y", "x")], "judge=local", f"judge.model={tiny_model}")
    one, two = preferences(made)
    rows = read_jsonl(made.work / "verdicts.jsonl")
    assert all(len(row["orders"]) == 2 for row in rows)
    assert one is not None and two is not None


def test_a_local_judge_that_explains_is_read_by_its_words(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(model: LocalModel, requests: Sequence[Request], kept: Mapping[int, Reply], on_reply: OnReply) -> list[Reply]:
        """A local model that finds the longer answer better, and says nothing of the second question."""
        for index, request in enumerate(requests):
            first, second = shown({"messages": [{"content": request.messages[-1].content}]})
            choice = "a" if len(first) > len(second) else "b"
            written.append("Hm." if "Question 1?" in request.messages[-1].content else f"One is longer.\nOutput ({choice})")
            on_reply(index, reply := Reply(text=written[-1], finish="stop", prompt_tokens=1, completion_tokens=1))
            replies.append(reply)
        return replies

    replies: list[Reply] = []
    monkeypatch.setattr(LocalModel, "reply_beside", write)
    made = job(tmp_path, [("x", "longer"), ("x", "y")], "judge=local", f"judge.model={tiny_model}", "judge.prompt=explain")
    assert preferences(made) == [2.0, None]
    assert len(written) == 4, "greedy, it would write the same again"
    assert "One is longer." in read_jsonl(made.work / "verdicts.jsonl")[0]["explanation"]
    with pytest.raises(MinilimaError, match="needs a judge at an endpoint"):
        check_form(load_config(["judge=local", "judge.prompt=weigh"]).judge)


def test_a_local_judge_is_blind_to_who_wrote_an_answer(tmp_path: Path, tiny_model: Path) -> None:
    verdicts = {}
    for name, pair in (("straight", ("yes", "no")), ("crossed", ("no", "yes"))):
        made = job(tmp_path / name, [pair], "judge=local", f"judge.model={tiny_model}")
        verdicts[name] = preferences(made)[0]
    assert verdicts["straight"] is not None and verdicts["crossed"] is not None
    assert verdicts["straight"] + verdicts["crossed"] == 3.0


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "is empty"),
        ("[]", "is empty"),
        ('{"output": "x"}\n', "Prompt 1"),
        ('{"instruction": "a"}\n{"instruction": "a"}\n', "Prompt 2"),
        ('[{"instruction": "a"},', "not JSON"),
    ],
)
def test_a_bad_evaluation_set_is_named(tmp_path: Path, content: str, named: str) -> None:
    path = tmp_path / "set.json"
    path.write_text(content)
    with pytest.raises(MinilimaError, match=named):
        load_eval_set(path, None)


@pytest.mark.usefixtures("key")
def test_a_cut_reply_is_no_verdict_and_is_not_asked_for_again(tmp_path: Path, server: ModelServer) -> None:
    for finish, preference in (("length", None), ("stop", 1.0)):
        reply = Reply(text="Output (a)", finish=finish, prompt_tokens=1, completion_tokens=1)
        assert form_named("choose").read(reply) == preference
    written = iter(["Output (a)", "<think>Output (a) is", "<think>Output (b) is"])
    server.answer = lambda body: next(written)
    pairs = [("a", "b"), ("x", "y"), ("p", "q")]
    assert judge_server(tmp_path, server, pairs, "judge.orders=random")[1:] == [None, None]
    assert server.received == 3


@pytest.mark.usefixtures("key")
def test_a_judges_reasoning_is_no_verdict(tmp_path: Path, server: ModelServer) -> None:
    server.answer = lambda body: "<think>Output (a) is shorter.</think>Output (b)"
    assert judge_server(tmp_path, server, [("x", "y")], "judge.orders=random", "judge.max_tokens=64") in ([2.0], [1.0])
    server.answer = lambda body: "<think>Output (a) is shorter, so it is Output (a)"
    with pytest.raises(MinilimaError, match=r"cut at judge\.max_tokens"):
        judge_server(tmp_path / "unclosed", server, [("x", "z")], "judge.orders=random")


def test_a_judge_whose_first_reply_is_cut_stops_there_and_names_the_setting(tmp_path: Path, server: ModelServer) -> None:
    server.faults = ["truncated"] * 99
    settings = ["judge=cot", "judge.model=writer-large", f"endpoints.judge.base_url={server.url}"]
    with pytest.raises(MinilimaError, match=r"judge\.max_tokens"):
        build_verdicts(job(tmp_path, [(f"base {n}", f"tuned {n}") for n in range(5)], *settings), lambda progress: None)
    assert server.received == 1
