"""Parsing and filtering what models write; the defects of the original are cases here."""

import json

import pytest

from minilima.config.schema import DataConfig, GeneratorConfig
from minilima.formats.files import DATA
from minilima.formats.seeds import load_seeds
from minilima.generate.classification import best_limit, parse_labels, says_yes
from minilima.generate.filters import instance_fault, instruction_fault, is_repetitive
from minilima.generate.imperatives import asks, points_to_an_input
from minilima.generate.languages import languages
from minilima.generate.methods import Candidate, no_input, parse_examples, parse_list, turn_method
from minilima.generate.prompting import Prompter
from minilima.models.chat import Reply


def test_a_numbered_list_is_taken_apart() -> None:
    assert parse_list("1. One thing\n2) Another\n   thing\n3. **Third**") == ["One thing", "Another thing", "Third"]


def test_capital_letters_stay_as_they_are() -> None:
    assert parse_list("1. explain what NASA and the USA did in Python") == ["explain what NASA and the USA did in Python"]


def test_numbers_inside_a_text_do_not_cut_it() -> None:
    assert parse_list("1. Is $16.50 a fair price for v16.1?\n2. Next one") == [
        "Is $16.50 a fair price for v16.1?",
        "Next one",
    ]


def test_only_the_cut_item_is_dropped() -> None:
    assert parse_list("1. One thing\n2. Another thing\n3. Cut in the mid", cut=True) == ["One thing", "Another thing"]


def test_double_numbers_and_items_on_one_line_count_once_each() -> None:
    assert parse_list("1. 1. First. 2. Second.") == ["First.", "Second."]


def test_a_reply_without_a_list_yields_nothing() -> None:
    assert parse_list("I would rather not.") == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        ("Do it", "too_short"),
        ("word " * 151, "too_long"),
        ("- do this for me now", "starts_with_punctuation"),
        ("Draw a map of France please", "blocked_word:map"),
        ("go round and round the tree again " * 6, "repeats_itself"),
        ("compose music for a film", "blocked_beginning"),
        ("Describe the roadmap of the project", None),
        ("Écris un poème sur la mer", None),
        ("请写一首 关于 大海 的诗", None),
        ("Write a program that sorts numbers", None),
    ],
)
def test_instructions_are_rejected_for_a_reason(text: str, fault: str | None) -> None:
    assert instruction_fault(text, DataConfig(blocked_words=["map"], blocked_beginnings=["Compose music"])) == fault


@pytest.mark.parametrize(
    ("given", "output", "truncated", "fault"),
    [
        ("", "Fine.", False, None),
        ("", "Fine.", True, "truncated"),
        ("", "  ", False, "empty_output"),
        ("same", "same", False, "output_repeats_input"),
        ("", "The answer is as follows:", False, "unfinished"),
        ("", "I'm sorry, but I cannot do that.", False, "refusal"),
        ("", "Unfortunately, I don't have access to the internet.", False, "refusal"),
        ("", "As a large language model, I have no opinion.", False, "refusal"),
        ("", "Sorry is a word of six letters in some languages.", False, None),
        ("", "I can see three ways to do that.", False, None),
        ("", "Unfortunately, the train had left.", False, None),
        ("", "a leaf and a leaf and " * 8, False, "repeats_itself"),
        ("", "Add the salt.\nStir it well.\nAdd the salt.\nStir it well.", False, "repeats_itself"),
        ("", "Do it.", False, "output_repeats_input"),
        ("", "1. 1. Boil water.\n2. Add tea.", False, "broken_list"),
        ("", "1. Boil water.\n3. Add tea.\n3. Wait.", False, "broken_list"),
        ("", "1. Boil water.\n2. Wait.\n\nThen:\n1. Pour.\n2. Drink.", False, None),
    ],
)
def test_instances_are_rejected_for_a_reason(given: str, output: str, truncated: bool, fault: str | None) -> None:
    assert instance_fault(instruction="Do it", input_text=given, output=output, truncated=truncated) == fault


def test_a_user_turn_holds_an_instruction_and_its_input() -> None:
    prompter = Prompter(generator=GeneratorConfig(), data=DataConfig())
    reply = Reply(
        text="Translate into French.\n\nThe cat sleeps.\n\nIt is old.", finish="stop", prompt_tokens=1, completion_tokens=9
    )
    shown, opened = turn_method(prompter, lambda turns: "", 3), turn_method(prompter, lambda turns: "", 0)
    text, given = "Translate into French.", "The cat sleeps.\n\nIt is old."
    assert shown.parse(reply) == [Candidate(instruction=text, input=given, complete=True)]
    assert [candidate.instruction for candidate in opened.parse(reply)] == [reply.text], (
        "without an example a turn has no such form"
    )


@pytest.mark.parametrize(
    ("text", "asking"),
    [
        ("The largest planet is Mercury.", False),
        ("An empty jar, lid already removed", False),
        ("My notes are too long. Cut them by half, please, and give a title.", True),
        ("Translate into German.", True),
        ("Is this a fallacy?", True),
        ("In a village of 1,000, how many people can read", True),
        ("Rome is going to write a law.", False),
        ('She asks, "Who is wearing the mask?" Neither.', False),
    ],
)
def test_a_statement_asks_for_nothing(text: str, asking: bool) -> None:
    assert asks(text) == asking


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("Is the claim supported by the passage?", True),
        ("Translate into German.", True),
        ("Which of these is a fallacy?", True),
        ("What is the pH of 10.5 M NaOH?", False),
        ("Create a function that sorts a list.", False),
    ],
)
def test_an_instruction_may_point_to_an_input(text: str, points: bool) -> None:
    assert points_to_an_input(text) == points


def test_the_seeds_ask_for_something() -> None:
    missed = [task.id for task in load_seeds(DATA / "minilima_175.jsonl") if not asks(task.instruction)]
    assert len(missed) < 5, "openings like `Limerick, please` are rare"


def test_short_or_varied_texts_are_not_repetitive() -> None:
    assert not is_repetitive("yes yes yes yes")
    assert not is_repetitive("The quick brown fox jumps over the lazy dog and runs back home before the rain starts again.")


@pytest.mark.parametrize("text", ["None", "none.", "N/A", "No input needed", "(None)"])
def test_an_input_that_says_there_is_none_is_empty(text: str) -> None:
    assert no_input(text) == ""
    assert no_input(" None of the shops was open. ") == "None of the shops was open."


def test_a_json_list_is_read_as_well() -> None:
    assert parse_list('{"tasks": ["Explain rain", "Name a\\nriver"]}') == ["Explain rain", "Name a river"]
    assert parse_list('{"other": 1}') == []
    assert parse_list('```json\n{"tasks": ["1. Explain rain", "2) Name 3. Then stop", 4]}\n```') == [
        "Explain rain",
        "Name 3. Then stop",
    ], "numbers that a model writes all the same are none of the task"


def test_whole_examples_are_read_and_a_cut_one_is_dropped() -> None:
    text = """1. Instruction: Translate into French.
1. Input: The cat sleeps.
1. Output: Le chat dort.

2. Instruction: Name two rivers
2. Input: none
2. Output: The Rhine
and the Po.

3. Instruction: Cut off
3. Input: none
3. Output: It goes"""
    whole = [
        Candidate(instruction="Translate into French.", input="The cat sleeps.", output="Le chat dort."),
        Candidate(instruction="Name two rivers", input="", output="The Rhine\nand the Po."),
    ]
    assert parse_examples(text, cut=True) == whole
    assert len(parse_examples(text)) == 3
    assert parse_examples("nothing of the kind") == []
    rows = [{"instruction": "1. Name two rivers", "input": "none", "output": " Rhine, Po "}, {"instruction": "No output"}, "text"]
    assert parse_examples(json.dumps({"tasks": rows})) == [Candidate(instruction="Name two rivers", input="", output="Rhine, Po")]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("positive\nnegative\nneutral", ["positive", "negative", "neutral"]),
        ("1. Yes\n2. No", ["Yes", "No"]),
        ("The labels are:\n1. Yes\n2. No", ["Yes", "No"]),
        ("**Labels:**\n\n- Yes\n- No", ["Yes", "No"]),
        ("The answer to this question is:", []),
        ("undefined", []),
        ("- spam\n- not spam\n- spam", ["spam", "not spam"]),
        ("true or false.", ["true", "false"]),
        ("The answer depends on the sentence that is given to me here.", []),
        ('{"labels": ["positive", "very, very negative", "positive"]}', ["positive", "very, very negative"]),
        ('{"labels": []}', []),
        ("", []),
    ],
)
def test_label_lists_are_read(text: str, labels: list[str]) -> None:
    assert parse_labels(text) == labels


def test_only_a_yes_or_a_no_decides() -> None:
    assert [says_yes(text) for text in ("Yes.", "**no**", "Nothing to say", "Yesterday")] == [True, False, None, None]


def test_the_limit_is_where_most_known_cases_are_told_apart() -> None:
    assert best_limit([(3.0, True), (1.0, True), (2.0, False), (-1.0, False), (-2.0, False)]) == 2.5, "the highest of equals"
    assert best_limit([(-7.0, False), (-3.0, True), (-9.0, False)]) == -5.0, "wherever the model's bias puts it"
    assert best_limit([(1.0, False)]) == float("inf") and best_limit([]) == float("inf")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Write a poem about the sea and send it to me.", "English"),
        ("Skriv et digt om havet, og send det til mig.", "Danish"),
        ("Fasse den Text in einem Satz zusammen, der nicht zu lang ist und für alle taugt.", "German"),
        ("请写一首关于大海的诗", "CJK"),
        ("Напиши стихотворение", "Cyrillic"),
        ("x = foo(bar)", "unknown"),
        ("1 + 1", "None"),
    ],
)
def test_the_language_of_a_text_is_guessed(text: str, language: str) -> None:
    assert languages([text]) == {language: 1}
