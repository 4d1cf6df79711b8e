"""Best of several answers: which one is kept, what is listed beside it, and what is paid."""

from pathlib import Path
from typing import Any

import pytest

from minilima.config.choices import Keep
from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.formats.files import DATA, read_jsonl
from minilima.formats.records import Progress
from minilima.formats.seeds import load_seeds
from minilima.generate.best_of import Task, choose
from minilima.generate.pool import build_pool
from minilima.models.chat import Reply
from minilima.run.sources import resolve
from minilima.run.stages.pool import POOL
from minilima.store.job import Job
from tests.server import VALID_KEY, ModelServer

TASK = Task(id="t", instruction="Say it.", input="", reference="the cat sat on the mat")


def reply(text: str, finish: str = "stop") -> Reply:
    return Reply(text=text, finish=finish, prompt_tokens=1, completion_tokens=1)


def no_rating(answers: Any) -> list[float | None]:
    raise AssertionError("nobody is asked")


@pytest.mark.parametrize(
    ("keep", "kept", "rejected"),
    [
        ("first", 0, None),
        ("longest", 1, "No."),
        ("majority", 0, "one of all the many long answers here"),
        ("reference", 2, "No."),
    ],
)
def test_each_way_to_keep_one(keep: str, kept: int, rejected: str | None) -> None:
    texts = ["No.", "one of all the many long answers here", "A cat sat on the mat", "no"]
    (found,) = choose(Keep(keep), [TASK], [[reply(text) for text in texts]], no_rating)
    assert found.kept == kept and found.row()["outputs"] == texts
    pair = found.pair()
    assert (pair and pair["rejected"]) == rejected and (pair is None or pair["chosen"] == texts[kept])


def test_ratings_decide_and_an_answer_that_was_cut_comes_last() -> None:
    ratings = {"good": 8.0, "better but cut": 9.0, "bad": None}
    answers = [reply("bad"), reply("better but cut", "length"), reply("good")]
    (found,) = choose(Keep.judge, [TASK], [answers], lambda asked: [ratings[text] for _, text in asked])
    assert found.reply.text == "good" and found.pair() == {
        "id": "t", "instruction": "Say it.", "input": "", "chosen": "good", "rejected": "better but cut",
    }  # fmt: skip
    (only,) = choose(Keep.judge, [TASK], [[reply("better but cut", "length")]], lambda asked: [9.0])
    assert only.kept == 0, "something has to be kept; the filters reject it"


def job(folder: Path, server: ModelServer, *overrides: str) -> Job:
    config = load_config(
        [
            "generator=openai",
            "generator.model=writer-small",
            f"endpoints.generator.base_url={server.url}",
            "data=answers",
            *overrides,
        ]
    )
    work = folder / "work"
    (work / "scratch").mkdir(parents=True, exist_ok=True)
    sources = resolve(config)
    return Job(kind="pool", role="pool", key="k", work=work, inputs={}, config=config, sources=sources, cache=folder / "c.sqlite")


def test_a_pool_keeps_the_best_of_three_and_lists_all(
    tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)
    numbers = iter(range(10**6))

    def answer(body: dict[str, Any]) -> str:
        said = str(body["messages"][-1]["content"])
        if "from 1 (useless) to 10" in said:
            return "9" if "answer 2 words" in said else "3"
        return " ".join(["answer", str(next(numbers) % 3), "words", "of", "some", "length"])

    server.answer = answer
    made = job(
        tmp_path, server, "data.answers_per_task=3", "data.keep=judge", "endpoints.generator.concurrency=1",
        "endpoints.generator.max_retries=0",
    )  # fmt: skip
    tasks = len(load_seeds(DATA / "minilima_175.jsonl"))
    guess = POOL.requests(made.config, made.sources)
    assert guess is not None and guess.requests == 6 * tasks, "three answers and three ratings of each"
    outcome = build_pool(made, lambda progress: _nobody(progress))
    assert outcome.usage.calls + outcome.usage.cached == 6 * tasks
    listed = read_jsonl(made.work / "candidates.jsonl")
    assert len(listed) == tasks and all(len(row["outputs"]) == len(row["scores"]) == 3 for row in listed)
    kept = {row["id"]: row["output"] for row in read_jsonl(made.work / "instances.jsonl")}
    for row in listed:
        assert row["scores"][row["kept"]] == max(row["scores"])
        assert kept.get(row["id"], row["outputs"][row["kept"]]) == row["outputs"][row["kept"]]
    for pair in read_jsonl(made.work / "preferences.jsonl"):
        assert "answer 2 words" in pair["chosen"] and "answer 2 words" not in pair["rejected"]


def _nobody(progress: Progress) -> None:
    """Nobody listens."""


def test_one_answer_has_the_key_it_always_had(server: ModelServer, tmp_path: Path) -> None:
    made = job(tmp_path, server)
    recipe = POOL.recipe(made.config, made.sources)
    assert recipe["answers_per_task"] is None and recipe["keep"] is None


def test_references_are_the_seed_tasks_own(server: ModelServer, tmp_path: Path) -> None:
    made = job(tmp_path, server, "data.keep=reference", "data.answers_per_task=2")
    POOL.check(made.config, made.sources)
    other = job(tmp_path, server, "data=self_instruct", "data.keep=reference", "data.answers_per_task=2")
    with pytest.raises(MinilimaError, match="has no reference answers"):
        POOL.check(other.config, other.sources)
