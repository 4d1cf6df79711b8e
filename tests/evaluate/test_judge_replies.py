"""What judges write is read strictly: words and labels, never stray letters; two statements or a cut are none."""

import math

import pytest

from minilima.evaluate.judge_forms import arena_hard_weight
from minilima.evaluate.judge_replies import read_rating, read_verdict, read_yes_no
from minilima.models.chat import Reply


def reply(text: str = "", finish: str = "stop", logprobs: dict[str, float] | None = None) -> Reply:
    return Reply(text=text, finish=finish, prompt_tokens=1, completion_tokens=1, logprobs=logprobs)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A does more.\n\nMy final verdict is: [[A>>B]]", "A>>B"),
        ("**[[ b > a ]]**", "B>A"),
        ("[[A<<B]]", "B>>A"),
        ("At first I thought [[A>B]].\nIn the end:\n[[B>>A]]", "B>>A"),
        ("[[A]]", "A>B"),
        ("[[C]]", "A=B"),
        ('{"explanation": "B is wrong.", "verdict": "A>B"}', "A>B"),
        ('{"verdict": "tie"}', "A=B"),
        ("A>>B", "A>>B"),
        ("Assistant A is significantly better.", "A>>B"),
        ("Assistant B is slightly better than assistant A.", "B>A"),
        ("Both are equally good.", "A=B"),
        ("[[A>B]] or [[B>A]]", None),
        ("[[A>A]]", None),
        ("Assistant A is not better.", None),
        ("A better answer would name B.", None),
        ("", None),
    ],
)
def test_a_verdict_of_five_is_read_or_not_at_all(text: str, verdict: str | None) -> None:
    assert read_verdict(reply(text)) == verdict
    assert read_verdict(reply(text, "length")) is None


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Good, but short.\nRating: [[7]]", 7.0),
        ("[[8.5]]", 8.5),
        ("[[9/10]]", 9.0),
        ("[[three]]", 3.0),
        ("The rating is 6.", 6.0),
        ("I give it 7 out of 10.", 7.0),
        ("**8**", 8.0),
        ('{"explanation": "2 mistakes", "rating": 4}', 4.0),
        ("[[11]]", None),
        ("[[0]]", None),
        ("[[3]] or [[4]]", None),
        ("A score of 5-6.", None),
        ("It names 3 of 4 parts.", None),
        ("", None),
    ],
)
def test_a_rating_is_read_or_not_at_all(text: str, rating: float | None) -> None:
    assert read_rating(reply(text)) == rating
    assert read_rating(reply(text, "length")) is None


def test_yes_and_no_are_words_in_all_their_spellings() -> None:
    likely = {"Yes": math.log(0.5), " yes": math.log(0.25), "No": math.log(0.125), "Yesterday": math.log(0.1)}
    assert read_yes_no(reply(finish="length", logprobs=likely)) == pytest.approx(0.625)
    assert read_yes_no(reply(logprobs={"Maybe": 0.0})) is None
    assert read_yes_no(reply("Yes")) is None


@pytest.mark.parametrize(("label", "weight"), [("A>>B", 3.0), ("A>B", 1.0), ("A=B", 1.0), ("B>>A", 3.0)])
def test_a_strong_label_counts_three_times(label: str, weight: float) -> None:
    assert arena_hard_weight(reply(f"[[{label}]]")) == weight
