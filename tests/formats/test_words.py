"""Words are counted and compared in the script of the text; ASCII text as rouge_score takes it apart."""

import random
import string

import pytest

from minilima.config.choices import Tokenizer
from minilima.evaluate.judge_reference import Closeness
from minilima.formats.words import count_words
from minilima.generate.filters import instance_fault
from minilima.generate.methods import no_input, parse_list
from minilima.rouge import likeness, tokenize

TEXTS = {
    "请写一首关于大海的诗。": 10, "海について詩を書いて。": 10, "바다에 관한 시를 써 줘.": 5, "اكتب قصيدة عن البحر.": 4,
    "समुद्र पर एक कविता लिखो।": 5, "Напиши стихи о море.": 4, "Deniz üzerine kısa bir şiir yaz.": 6,
}  # fmt: skip


def test_ascii_text_has_the_tokens_of_rouge_score() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choices(string.printable, k=rng.randint(0, 60)))
        assert tokenize(text) == tokenize(text, Tokenizer.rouge)
        assert count_words(text) == len(text.split())


@pytest.mark.parametrize(("text", "words"), TEXTS.items())
def test_words_of_each_script_are_counted_and_compared(text: str, words: int) -> None:
    assert count_words(text) == words
    assert len(tokenize(text)) == words
    assert likeness(text, text) == 1.0
    assert Closeness(0.0)(text, [text])[0].rouge == 1.0


def test_marks_belong_to_their_letter() -> None:
    assert tokenize("हिन्दी") == ["हिन्दी"]
    assert count_words("ที่") == 1


@pytest.mark.parametrize(
    "text", ["1、写诗\n2、译文", "（1）写诗\n（2）译文", "１．写诗\n２．译文", "1.写诗\n2.译文", "1、写诗。2、译文"]
)
def test_lists_are_numbered_as_the_script_does(text: str) -> None:
    assert [item.rstrip("。") for item in parse_list(text)] == ["写诗", "译文"]


@pytest.mark.parametrize("text", ["无", "（无）", "无输入。", "なし", "없음", "ไม่มี", "لا يوجد", "कोई नहीं", "Нет", "yok"])
def test_no_input_is_understood(text: str) -> None:
    assert no_input(text) == ""


def test_a_latin_word_in_common_is_no_echo() -> None:
    assert instance_fault(instruction="什么是 Python？", input_text="", output="Python 是一种编程语言。", truncated=False) is None
