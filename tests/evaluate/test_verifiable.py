"""Prompts that a program checks: each check accepts right answers and refuses wrong ones, and the set keeps its promises."""

from collections import Counter
from typing import Any

import pytest

from minilima.evaluate.verifiable import Item, load_items, score
from minilima.evaluate.verifiable_checks import CHECKS
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import DATA
from minilima.formats.seeds import load_seeds
from minilima.rouge import RougeIndex

ITEMS = load_items()

CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("equals", {"texts": ["odd"]}, ["odd", " Odd.", '"ODD"'], ["odd number", "even", ""]),
    ("equals", {"texts": ["It is odd."]}, ["It is odd.", "It is odd"], ["It is odd. Or not."]),
    ("number", {"value": 1250}, ["1250", "1,250", " 1250.0 "], ["It is 1250", "1251", "", "12.50", "--1250"]),
    ("number", {"value": -3}, ["-3", "-3."], ["3", "minus three"]),
    ("last_number", {"value": 10.5}, ["They cost 10.50 euros.", "7 pens: 10.5"], ["10.5 for 7", "none", ""]),
    ("contains", {"words": ["oven", "knife"]}, ["Oven, knife!"], ["ovens and knife", "oven"]),
    ("contains", {"words": ["yes"], "times": 2}, ["Yes, yes."], ["yes", "yes yes yes", "yesterday yes"]),
    ("contains", {"words": ["c++"]}, ["I like C++."], ["I like C."]),
    ("excludes", {"words": ["car"]}, ["A cart.", "bus"], ["a car", "Car!", " "]),
    ("without", {"characters": "e"}, ["A cat sits"], ["The cat", "EEK", ""]),
    ("without", {"characters": "s"}, ["Die Maße"], ["Masse"]),
    ("words", {"low": 2, "high": 3}, ["one two", "one\ntwo three", "well-known - it's"], ["one", "one –", "a b c d", ""]),
    ("sentences", {"low": 1, "high": 1}, ["It rains.", "It rains", "Is 3.5 more than 3?"], ["One. Two.", "One. Two", ""]),
    ("sentences", {"low": 2, "high": 2}, ["One. Two!", 'She said "go." He went.', "Say “go.” He went."], ["One.", "A. B. C."]),
    ("sentences", {"low": 2, "high": 2}, ["Dr. A. Smith came. He left.", "It is 5 p.m. now. Go."], ["Mr. Li."]),
    ("sentences", {"low": 1, "high": 1}, ["Well... yes.", "I like tea, e.g. green tea."], ["Well... Yes.", "What?! no."]),
    ("lines", {"low": 2, "high": 2}, ["a\nb", "a\n\nb\n"], ["a", "a\nb\nc"]),
    ("paragraphs", {"low": 2, "high": 2}, ["a\n\nb", "a\nb\n \nc"], ["a\nb", "a\n\nb\n\nc"]),
    ("bullets", {"count": 2}, ["- a\n- b", "Here:\n* a\n* b"], ["- a", "-a\n-b", "- a\n- b\n- c", "1. a\n2. b"]),
    ("numbered", {"count": 2}, ["1. a\n2. b", "Steps\n1) a\n2) b"], ["1. a\n3. b", "1. a", "1. a\n2. b\n3. c", "2. b\n1. a"]),
    ("json_value", {"value": [2, 3]}, ["```JSON [2,3]```", "```\n[2,3]\n"], ["```json\n[2]\n```", "JSON [2,3]"]),
    ("json_value", {"value": [2, 3]}, ["[2,3]", "```json\n[2, 3]\n```"], ["[3, 2]", "Here: [2, 3]", "[2, 3", "[" * 9999, ""]),
    ("json_keys", {"keys": ["a", "b"]}, ['{"b": 1, "a": null}'], ['{"a": 1}', '{"a": 1, "b": 2, "c": 3}', '["a", "b"]', "a b"]),
    ("upper", {}, ["JUPITER!", "ÄH 2"], ["Jupiter", "STRAßE", "東京", "42", ""]),
    ("lower", {}, ["tokyo."], ["Tokyo", "42", ""]),
    ("capitalised", {}, ["The Way Home", '"Lost Dog"'], ["The way Home", ""]),
    ("begins", {"text": "Fact:"}, ["Fact: yes", " Fact: yes"], ["A Fact: yes", "fact: yes"]),
    ("ends", {"text": "?"}, ["Why?", "Why? \n", '"Why?"'], ["Why?!", ""]),
    ("ends", {"text": "Yours, Kim"}, ["Bye\nyours, kim"], ["Yours, Kim."]),
    ("ends", {"text": '"'}, ['"Hi"'], ["Hi"]),
    ("sequence", {"items": ["fig", "pear"]}, ["fig, pear", "Fig\nPear."], ["pear, fig", "fig", "fig pear", "fig, pear, plum"]),
    ("acrostic", {"word": "SUN"}, ["Sea\nuphill\n\nNo"], ["Sea\nUp", "Sea\nUp\nNo\nGo"]),
    ("pattern", {"expression": r"\d\d:\d\d"}, ["17:00", " 17:00\n"], ["17:00 h", "5 pm"]),
    ("script", {"names": ["GREEK"]}, ["Καλημέρα!", "Ναι, ευχαριστώ πολύ ok"], ["Kalimera", "Добрый день", "123"]),
    ("script", {"names": ["HIRAGANA", "KATAKANA", "CJK"]}, ["ありがとう", "東京"], ["arigatou", "감사"]),
    ("language", {"name": "German"}, ["Das Haus ist nicht groß und die Tür zu."], ["The house is big.", "La casa", "Haus"]),
    ("language", {"name": "French"}, ["Je suis dans la maison et il pleut sur les fleurs."], ["Das ist ein Haus.", "bonjour"]),
    ("language", {"name": "Spanish"}, ["El perro y los gatos son amigos en las casas."], ["Il gatto è nella casa.", "hola"]),
    ("language", {"name": "Italian"}, ["Il gatto è nella casa della nonna."], ["El gato está en la casa.", "ciao"]),
    ("language", {"name": "Portuguese"}, ["O gato não está em casa com os amigos."], ["El gato no está en casa.", "oi"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "arguments", "right", "wrong"), CASES, ids=[f"{row[0]}-{n}" for n, row in enumerate(CASES)])
def test_a_check_says_yes_to_right_answers_and_no_to_wrong_ones(
    kind: str, arguments: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    assert [answer for answer in right if not CHECKS[kind](answer, **arguments)] == []
    assert [answer for answer in wrong if CHECKS[kind](answer, **arguments)] == []


def test_every_check_has_cases_and_is_used_by_the_set() -> None:
    assert {case[0] for case in CASES} == set(CHECKS) == {check["kind"] for item in ITEMS for check in item.checks}


def test_loose_forgives_a_greeting_a_farewell_and_bold_type_but_no_wrong_answer() -> None:
    item = Item(id="i", category="c", instruction="?", checks=({"kind": "equals", "texts": ["green"]},), output="green")
    for answer in ("Sure!\ngreen", "green\nGood luck!", "Sure!\n**green**\nBye"):
        assert (score(item, answer).strict, score(item, answer).loose) == (False, True), answer
    assert score(item, "green").strict and score(item, "green").loose
    assert not score(item, "Sure, green").loose and not score(item, "blue").loose and not score(item, " ").loose


def test_the_set_has_160_prompts_balanced_from_the_start_with_a_right_answer_each() -> None:
    assert len(ITEMS) == 160 and len({item.id for item in ITEMS}) == 160
    for start in range(0, 160, 16):
        assert set(Counter(item.category for item in ITEMS[start : start + 16]).values()) == {1}
    assert [item.id for item in ITEMS if not score(item, item.output).strict] == []


def test_no_right_answer_is_right_for_everything_and_no_empty_or_evasive_answer_passes() -> None:
    evasive = ("", " \n", "I am sorry, but as an AI I cannot help with that request. Please ask me about it in another way.")
    passed = Counter(answer for item in ITEMS for answer in evasive if score(item, answer).loose)
    assert passed[""] == passed[" \n"] == 0
    assert passed[evasive[2]] <= 8, "only prompts that forbid something or ask for little more than words can be met by chance"


def test_no_prompt_occurs_in_or_resembles_the_seeds_the_other_sets_or_another_prompt() -> None:
    others = [task.instruction for task in load_seeds(DATA / "minilima_175.jsonl")]
    for name in ("minilima_100", "minilima_dev_50"):
        others += [prompt.instruction for prompt in load_eval_set(DATA / f"{name}.jsonl", None)]
    index = RougeIndex()
    for number, text in enumerate(others):
        index.add(str(number), text)
    near = [(item.id, found.rouge) for item in ITEMS if (found := index.nearest(item.instruction)) and found.rouge > 0.7]
    assert near == []
    assert len({item.instruction for item in ITEMS}) == len(ITEMS)
