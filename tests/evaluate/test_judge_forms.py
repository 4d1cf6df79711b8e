"""The forms of a judge: a prompt file and its row belong together, and a form is only used by judges that can answer in it."""

import pytest

from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.evaluate.judge_forms import FORMS, JudgeForm, check_form, form_named, form_shown
from minilima.models.chat import Reply
from minilima.prompts import FOLDER


def reply(text: str = "", logprobs: dict[str, float] | None = None) -> Reply:
    return Reply(text=text, finish="stop", prompt_tokens=1, completion_tokens=1, logprobs=logprobs)


def test_every_prompt_of_a_judge_has_one_row_and_every_row_its_prompt() -> None:
    assert sorted(form.name for form in FORMS) == sorted(file.stem for file in (FOLDER / "judge").glob("*.j2"))
    assert all((FOLDER / f"{form.template}.j2").is_file() for form in FORMS)


WINNERS = {
    "weigh": (reply(logprobs={"m": 0.0}), reply(logprobs={"M": 0.0})),
    "arena_hard": (reply("[[A>B]]"), reply("[[B>A]]")),
    "mt_bench_pair": (reply("[[A]]"), reply("[[B]]")),
}


@pytest.mark.parametrize("form", [form for form in FORMS if not form.alone], ids=lambda form: form.name)
def test_every_form_reads_both_winners_and_knows_a_reply_that_states_none(form: JudgeForm) -> None:
    first, second = WINNERS.get(form.name, (reply("Output (a)"), reply("Output (b)")))
    assert (form.read(first), form.read(second), form.read(reply("Neither."))) == (1.0, 2.0, None)


@pytest.mark.parametrize("form", [form for form in FORMS if form.alone], ids=lambda form: form.name)
def test_every_form_that_scores_reads_both_ends_of_its_scale(form: JudgeForm) -> None:
    assert form.scale is not None
    ends = (reply(logprobs={"No": 0.0}), reply(logprobs={"Yes": 0.0}))
    low, high = ends if form.needs_logprobs else (reply("[[1]]"), reply("[[10]]"))
    assert (form.read(low), form.read(high), form.read(reply("Neither."))) == (*form.scale, None)


def test_a_prompt_without_a_row_is_refused_and_the_rows_are_listed() -> None:
    with pytest.raises(MinilimaError, match=r"choose.*explain.*weigh"):
        form_named("grade")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["judge=local", "judge.prompt=weigh"], "needs a judge at an endpoint"),
        (["judge=chatgpt", "judge.prompt=weigh"], "do not fit together"),
        (["judge=chatgpt", "judge.top_logprobs=5"], "reads the text of the reply"),
        (["judge=yes_no", "judge.top_logprobs=null"], "judge.top_logprobs=20"),
        (["judge=cot", "judge.rubric=mine.txt"], "judge=rubric"),
    ],
)
def test_a_form_is_refused_to_a_judge_that_cannot_answer_in_it(overrides: list[str], named: str) -> None:
    with pytest.raises(MinilimaError, match=named):
        check_form(load_config(overrides).judge)


@pytest.mark.parametrize(
    ("judge", "shown"),
    [
        ("chatgpt", "choose"),
        ("cot", "explain"),
        ("gpt4_turbo_weighted", "weigh"),
        ("local", None),
        ("reference", None),
        ("arena_hard", "arena_hard"),
        ("mt_bench", "mt_bench"),
        ("rubric", "rubric"),
        ("yes_no", "yes_no"),
    ],
)
def test_every_packaged_judge_has_a_form_that_fits_it(judge: str, shown: str | None) -> None:
    settings = load_config([f"judge={judge}"]).judge
    check_form(settings)
    assert form_shown(settings) == shown
