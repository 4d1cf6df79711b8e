"""What is trained: the answer and its end of turn, in the words the model is asked with later, alone in its row."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from minilima.errors import MinilimaError
from minilima.llm.local import load_tokenizer
from minilima.records import Example
from minilima.train.data import IGNORED, check_trained_ends, tokenize_example
from minilima.train.packing import make_row, plan_rows


def example(output: str = "Paris.", given: str = "") -> Example:
    return Example(id="1", instruction="Name the capital of France.", input=given, output=output, source="seed")


def test_only_the_answer_and_its_end_are_trained(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    made = tokenize_example(example(), tokenizer, 512)
    trained = [token for token, label in zip(made.input_ids, made.labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(trained) == "Paris.<|im_end|>"
    assert made.input_ids[-1] == tokenizer.eos_token_id != tokenizer.pad_token_id


def test_the_prompt_is_what_the_model_is_asked_later(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    made = tokenize_example(example(given="Europe"), tokenizer, 512)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Name the capital of France.\n\nEurope"}], add_generation_prompt=True, return_dict=False
    )
    assert made.input_ids[: len(asked)] == asked


def test_the_prompt_is_trained_too_on_request(tiny_model: Path) -> None:
    made = tokenize_example(example(), load_tokenizer(str(tiny_model)), 512, train_on_prompt=True)
    assert made.labels == made.input_ids


def test_long_examples_are_cut_and_lose_their_end(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    long = tokenize_example(example("word " * 200), tokenizer, 60)
    short = tokenize_example(example(), tokenizer, 60)
    assert len(long.input_ids) == len(long.labels) == 60
    assert check_trained_ends([short, short, long], tokenizer.eos_token_id, 60) == 2
    with pytest.raises(MinilimaError, match=r"sft\.max_tokens"):
        check_trained_ends([short, long, long], tokenizer.eos_token_id, 60)


def test_a_template_that_changes_the_prompt_is_refused(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.chat_template = (
        "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    with pytest.raises(MinilimaError, match="not consistent"):
        tokenize_example(example(), tokenizer, 512)


def test_rows_hold_every_example_once_within_their_limit() -> None:
    lengths = [5, 90, 30, 30, 45, 200, 10]
    rows = plan_rows(lengths, 100)
    assert sorted(index for row in rows for index in row) == list(range(7))
    assert all(sum(lengths[index] for index in row) <= 100 or row == [5] for row in rows)
    assert len(rows) == 4


def rows_of(tiny_model: Path, *outputs: str) -> list[dict[str, list[int]]]:
    tokenizer = load_tokenizer(str(tiny_model))
    return [vars(tokenize_example(example(output), tokenizer, 512)) for output in outputs]


def logits(tiny_model: Path, examples: list[dict[str, list[int]]]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    row = make_row(examples)
    with torch.no_grad():
        output = model(input_ids=row.input_ids, position_ids=row.position_ids, attention_mask=None, use_cache=False)
    result: torch.Tensor = output.logits[0]
    return result


def test_an_example_does_not_see_its_neighbours_in_a_row(tiny_model: Path) -> None:
    one, two, other = rows_of(tiny_model, "Paris.", "It is Paris, on the Seine.", "Lyon? No, it is not!!!")
    alone = logits(tiny_model, [two])
    packed = logits(tiny_model, [one, two])[-len(two["input_ids"]) :]
    disturbed = logits(tiny_model, [other, two])[-len(two["input_ids"]) :]
    assert torch.allclose(packed, alone, atol=1e-5)
    assert torch.allclose(packed, disturbed, atol=1e-5)


def test_no_example_is_trained_to_follow_its_neighbour(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    examples = [vars(tokenize_example(example(), tokenizer, 512, train_on_prompt=True)) for _ in range(2)]
    row = make_row(examples)
    boundary = len(examples[0]["input_ids"]) - 1
    assert boundary not in row.predicting.tolist()
    assert row.input_ids[0, row.predicting + 1].tolist() == row.targets.tolist()
