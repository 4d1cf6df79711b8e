"""What is trained: the answer and its end of turn, in the words the model is asked with later, alone in its row."""

import json
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from minilima.errors import MinilimaError
from minilima.formats.records import Example
from minilima.models import template
from minilima.models.packing import IGNORED, make_row, plan_rows
from minilima.models.tokenizer import load_tokenizer
from minilima.train.tokenize import check_trained_ends, tokenize_example


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


def test_what_ends_a_turn_is_collected_once_and_again_with_another_special_token(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    kept = template._ends(tokenizer)
    assert template._ends(tokenizer) is kept
    assert kept.search("Paris.<|done|>") is None
    tokenizer.add_special_tokens({"eos_token": "<|done|>"})
    found = template._ends(tokenizer).search("Paris.<|done|>")
    assert found is not None
    assert found[0] == "<|done|>"


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


def dialogue(last: str = "About two million.") -> Example:
    history = (("Name a city.", "Paris."), ("Where is it?", "In France.<|im_end|> On the Seine."))
    fields = {"id": "1", "instruction": "How many live there?", "input": "", "output": last, "source": "file"}
    return Example(**fields, history=history, system="Be brief.")  # type: ignore[arg-type]


def trained_texts(example: Example, tokenizer: Any, max_tokens: int = 512) -> list[str]:
    """The runs of tokens that have loss, as texts."""
    made = tokenize_example(example, tokenizer, max_tokens)
    assert len(made.input_ids) == len(made.labels) <= max_tokens
    pairs = list(zip(made.input_ids, made.labels, strict=True))
    assert all(label in (token, IGNORED) for token, label in pairs)
    runs = groupby(pairs, key=lambda pair: pair[1] != IGNORED)
    return [tokenizer.decode([token for token, _ in run]) for trained, run in runs if trained]


def test_every_answer_of_a_conversation_is_trained_with_its_end_and_nothing_else(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    answers = ["Paris.<|im_end|>", "In France.<|im_end|> On the Seine.<|im_end|>", "About two million.<|im_end|>"]
    assert trained_texts(dialogue(), tokenizer) == answers
    text = tokenizer.decode(tokenize_example(dialogue(), tokenizer, 512).input_ids)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nName a city.<|im_end|>")


def test_a_conversation_read_back_is_trained_alike(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    again = Example(**json.loads(json.dumps(asdict(dialogue()))))
    assert again == dialogue()
    assert tokenize_example(again, tokenizer, 512) == tokenize_example(dialogue(), tokenizer, 512)


def test_a_long_conversation_is_cut_at_the_limit(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    whole = tokenize_example(dialogue("word " * 50), tokenizer, 512)
    first_end = whole.labels.index(tokenizer.eos_token_id) + 1
    for length in (first_end - 2, first_end, first_end + 3, len(whole.labels) - 1):
        cut = tokenize_example(dialogue("word " * 50), tokenizer, length)
        assert (cut.input_ids, cut.labels) == (whole.input_ids[:length], whole.labels[:length])


def test_a_template_that_keeps_reasoning_in_the_last_answer_only_still_trains_every_answer(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if loop.last and m['role'] == 'assistant' %}<think></think>"
        "{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    texts = trained_texts(dialogue(), tokenizer)
    assert (texts[0], texts[2]) == ("Paris.<|im_end|>", "<think></think>About two million.<|im_end|>")


@pytest.mark.parametrize(
    ("template", "named"),
    [
        (
            "{{ messages | length > 3 }}{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}>{% endif %}",
            "not consistent",
        ),
        (
            "{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>{% else %}{{ eos_token }}{% endif %}",
            "does not end a turn",
        ),
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
    ],
)
def test_a_template_unfit_for_conversations_is_refused(tiny_model: Path, template: str, named: str) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.chat_template = template
    plain = Example(**{**asdict(dialogue()), "history": ((("Name a city.", "Paris."),) * 2)})
    with pytest.raises(MinilimaError, match=named):
        tokenize_example(plain, tokenizer, 512)


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


def gradient_of(tiny_model: Path, *batches: tuple[dict[str, Any], torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Of the summed loss over (what the model is given, where it predicts, what it should) by the first block's weights."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for given, predicting, targets in batches:
        logits = model(**given, use_cache=False).logits.flatten(0, 1)[predicting]
        loss: Any = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        loss.backward()
    found: torch.Tensor = model.get_decoder().layers[0].mlp.up_proj.weight.grad
    return found


def test_packed_examples_have_the_gradient_of_padded_ones(tiny_model: Path) -> None:
    examples = rows_of(tiny_model, "Paris.", "It is Paris, on the Seine.", "Lyon? No, it is not!!!")
    row = make_row(examples)
    packed = {"input_ids": row.input_ids, "position_ids": row.position_ids, "attention_mask": None}
    width = max(len(example["input_ids"]) for example in examples)
    ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    labels = torch.full((3, width), IGNORED)
    for place, example in enumerate(examples):
        length = len(example["input_ids"])
        ids[place, :length], mask[place, :length] = torch.tensor(example["input_ids"]), 1
        labels[place, :length] = torch.tensor(example["labels"])
    trained = torch.nonzero(labels.flatten() != IGNORED).flatten()
    padded = ({"input_ids": ids, "attention_mask": mask}, trained - 1, labels.flatten()[trained])
    one = gradient_of(tiny_model, (packed, row.predicting, row.targets))
    assert torch.allclose(one, gradient_of(tiny_model, padded), atol=1e-5)
    assert one.abs().max() > 0.01


def test_no_example_is_trained_to_follow_its_neighbour(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    examples = [vars(tokenize_example(example(), tokenizer, 512, train_on_prompt=True)) for _ in range(2)]
    row = make_row(examples)
    boundary = len(examples[0]["input_ids"]) - 1
    assert boundary not in row.predicting.tolist()
    assert row.input_ids[0, row.predicting + 1].tolist() == row.targets.tolist()
