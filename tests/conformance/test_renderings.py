"""Conversations that templates treat in ways of their own: right, or refused by the row that is meant."""

from pathlib import Path
from typing import Any

import pytest
import torch

from minilima.config.choices import DeviceKind, Thinking
from minilima.errors import MinilimaError
from minilima.models import local
from minilima.models.chat import Request, Sampling, ask
from minilima.models.local import LocalModel
from minilima.models.packing import IGNORED
from minilima.models.template import prompt_text, render, turn_end
from minilima.models.tokenizer import completed, without_thinking
from minilima.train.tokenize import tokenize_example
from tests.conformance.families import CHATML, LLAMA3, PHI3, QWEN3, R1, R1_BODY, build, named, tokenizer_of
from tests.conformance.test_families import DIALOGUE, trained

REASONED = "<think>\nTwo and two.\n</think>\n\nFour."


def tokenizer(name: str, template: str | None = None) -> Any:
    made = tokenizer_of(named(name))
    made.chat_template = template or made.chat_template
    return completed(made, name)


def conversation(answer: str, **before: str) -> list[dict[str, str]]:
    turns = [{"role": role, "content": content} for role, content in before.items()]
    return [*turns, {"role": "user", "content": "How much?"}, {"role": "assistant", "content": answer}]


def learned(reader: Any, answer: str, thinking: Thinking | None = None) -> str:
    """What of a conversation has loss."""
    rendered = render(reader, conversation(answer), thinking, "row 7")
    start, end = rendered.answers[-1]
    return str(reader.decode(rendered.ids[start:end]))


@pytest.mark.parametrize(
    ("thinking", "text"),
    [
        (Thinking.off, "Four.<|im_end|>"),
        (Thinking.on, "Four.<|im_end|>"),
        (Thinking.keep, "<think>\nTwo and two.\n</think>\n\nFour.<|im_end|>"),
    ],
)
def test_reasoning_is_learned_only_where_it_is_kept(thinking: Thinking, text: str) -> None:
    assert learned(tokenizer("Qwen3"), REASONED, thinking) == text


def test_reasoning_that_nobody_spoke_of_is_refused_by_row() -> None:
    for name in ("Qwen3", "SmolLM2"):
        with pytest.raises(MinilimaError, match=r"row 7.*model\.thinking=off"):
            learned(tokenizer(name), REASONED)
    with pytest.raises(MinilimaError, match="middle of its reasoning"):
        learned(tokenizer("Qwen3"), "<think>\nTwo and", Thinking.off)


CLOSED, OPEN = "<think>\n\n</think>\n\n", "<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("thinking", "end"), [(None, CLOSED), (Thinking.off, CLOSED), (Thinking.on, OPEN), (Thinking.keep, OPEN)]
)
def test_a_template_is_asked_for_reasoning_or_for_none(thinking: Thinking | None, end: str) -> None:
    reader = tokenizer("Qwen3")
    assert prompt_text(reader, conversation("")[:1], thinking).endswith(end)


def test_an_answer_without_reasoning_does_not_teach_an_empty_block() -> None:
    for thinking in (None, Thinking.off, Thinking.on):
        assert learned(tokenizer("Qwen3"), "Four.", thinking) == "Four.<|im_end|>"


def test_a_template_that_deletes_reasoning_is_refused_where_it_is_kept() -> None:
    reader = tokenizer("DeepSeek")
    assert reader.chat_template == R1
    with pytest.raises(MinilimaError, match=r"does not render an answer as it is \(row 7\)"):
        learned(reader, REASONED, Thinking.keep)
    assert learned(reader, REASONED, Thinking.off) == "Four." + reader.eos_token


def test_a_template_that_opens_reasoning_itself_is_refused_where_none_is_learned() -> None:
    reader = tokenizer("DeepSeek", R1_BODY + "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}")
    with pytest.raises(MinilimaError, match="not consistent"):
        learned(reader, "Four.")


def test_a_saved_template_asks_for_no_reasoning_where_none_was_learned() -> None:
    reader = tokenizer("Qwen3")
    reader.chat_template = without_thinking(reader.chat_template)
    asked = [{"role": "user", "content": "How much?"}]
    text = reader.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    assert text.endswith("<think>\n\n</think>\n\n")
    thinking = reader.apply_chat_template(asked, add_generation_prompt=True, tokenize=False, enable_thinking=True)
    assert thinking.endswith("<|im_start|>assistant\n")
    assert without_thinking(CHATML) == CHATML


@pytest.mark.parametrize("answer", ["\nFour.", "\n\nFour.", "  Four.", "    code\n    more", " \n Four.\n\n", "Four.\n"])
@pytest.mark.parametrize("name", ["Qwen2.5", "SmolLM2", "Llama 2", "Phi-3", "Mistral", "GPT-2"])
def test_whitespace_around_an_answer_is_right_or_refused_by_row(name: str, answer: str) -> None:
    reader = tokenizer(name)
    prompt = reader(prompt_text(reader, conversation("")[:1]), add_special_tokens=False)["input_ids"]
    try:
        rendered = render(reader, conversation(answer), row="row 7")
    except MinilimaError as error:
        assert "row 7" in str(error)
        return
    start, end = rendered.answers[0]
    assert rendered.ids[:start] == prompt, "the model is asked with the same tokens"
    assert reader.decode(rendered.ids[start:end]).removesuffix(named(name).ends).strip() == answer.strip()


def test_phi3_teaches_the_end_of_answers_and_never_a_users_turn() -> None:
    for name in ("Phi-3", "Phi-3 with eos"):
        reader = tokenizer(name)
        made = tokenize_example(DIALOGUE, reader, 512)
        assert trained(made, reader) == ["Paris.<|end|>", "In France, on the Seine.<|end|>", "About two million.<|end|>"]
        assert turn_end(reader) == reader.convert_tokens_to_ids("<|end|>")


def test_a_system_turn_is_rendered_or_refused_by_row() -> None:
    assert "Be brief." in prompt_text(tokenizer("Llama 3.2"), conversation("", system="Be brief.")[:-1])
    with pytest.raises(MinilimaError, match=r"row 7.*System role not supported"):
        render(tokenizer("Gemma 2"), conversation("Four.", system="Be brief."), row="row 7")
    silent = PHI3.replace("{{'<|system|>\n' + message['content'] + '<|end|>\n'}}", "")
    with pytest.raises(MinilimaError, match=r"leaves out what the system says \(row 7\)"):
        render(tokenizer("Phi-3", silent), conversation("Four.", system="Be brief."), row="row 7")
    assert learned_with_empty_system() == "Four.<|im_end|>"


def learned_with_empty_system() -> str:
    reader = tokenizer("Qwen2.5")
    rendered = render(reader, conversation("Four.", system=""))
    start, end = rendered.answers[-1]
    return str(reader.decode(rendered.ids[start:end]))


def test_a_date_in_a_template_stands_still() -> None:
    reader = tokenizer("Llama 3.2")
    assert "Today Date: 26 Jul 2024" in prompt_text(reader, conversation("")[:1])
    indirect = LLAMA3.replace("strftime_now('%d %b %Y')", "strftime_now('%d ' + '%b %Y')")
    assert "Today Date: 26 Jul 2024" in prompt_text(tokenizer("Llama 3.2", indirect), conversation("")[:1])
    with pytest.raises(MinilimaError, match="draws lots"):
        tokenizer("Llama 3.2", "{{ ['a', 'b'] | random }}" + LLAMA3)


def test_a_template_that_changes_what_an_answer_says_is_refused() -> None:
    loud = CHATML.replace("message['content'] +", "message['content'] | upper +")
    with pytest.raises(MinilimaError, match="leaves out what the user says"):
        render(tokenizer("SmolLM2", loud), conversation("Four."), row="row 7")
    cut = CHATML.replace("message['content'] +", "message['content'][:9] +")
    with pytest.raises(MinilimaError, match=r"does not render an answer as it is \(row 7\)"):
        render(tokenizer("SmolLM2", cut), conversation("Four and a half."), row="row 7")


def test_a_model_without_a_template_begins_as_its_tokenizer_does() -> None:
    assert prompt_text(tokenizer("Gemma base"), conversation("")[:1]).startswith("<bos><|user|>")
    assert prompt_text(tokenizer("GPT-2"), conversation("")[:1]).startswith("<|user|>")


def test_a_tokenizer_without_an_end_is_refused() -> None:
    made = tokenizer_of(named("GPT-2"))
    made.eos_token = None
    with pytest.raises(MinilimaError, match="neither a chat template nor an eos_token"):
        completed(made, "tiny")


def test_written_reasoning_is_kept_apart_and_an_unclosed_block_counts_as_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "inference_dtype", lambda device: torch.float32)
    model = LocalModel(str(build(named("Qwen3"), tmp_path)), "tiny", device=DeviceKind.cpu, batch=1)
    script = model.tokenizer(f"{REASONED}<|im_end|>", add_special_tokens=False)["input_ids"]

    def write(most: int, thinking: str) -> Any:
        request = Request(messages=ask("How much?"), sampling=Sampling(temperature=0.0, max_tokens=most), thinking=thinking)
        draft = model._draft(0, request, None)
        draft.take(script)
        return draft.reply()

    whole = write(200, "on")
    assert (whole.text, whole.reasoning, whole.finish) == ("Four.", "Two and two.", "stop")
    cut = write(4, "on")
    assert (cut.text, cut.finish) == ("", "length") and cut.reasoning is not None
    kept = write(200, "keep")
    assert kept.text == REASONED and kept.reasoning is None
    one, other = (
        Request(messages=ask("a"), sampling=Sampling(temperature=0.0, max_tokens=4), thinking=way) for way in (None, "on")
    )
    assert one.key("m") != other.key("m")


def test_every_qwen3_answer_of_a_conversation_is_learned() -> None:
    assert QWEN3 in str(tokenizer("Qwen3").chat_template)
    made = tokenize_example(DIALOGUE, tokenizer("Qwen3"), 512)
    assert sum(label != IGNORED for label in made.labels) > 12
