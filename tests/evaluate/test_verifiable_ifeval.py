"""Checks of kinds that IFEval has too say of the same answers what lm-eval's IFEval checkers say, strictly and loosely."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("lm_eval")

from minilima.evaluate.verifiable import Item, Score, score
from minilima.evaluate.verifiable_checks import CHECKS


class Kind(NamedTuple):
    """A check of ours and IFEval's instructions that ask for the same, with answers on which both agree, and on which not."""

    check: str
    arguments: dict[str, Any]
    theirs: list[tuple[str, dict[str, Any]]]
    right: list[str]
    wrong: list[str]
    only_ours: list[str] = []
    only_theirs: list[str] = []
    framed: bool = True
    """Whether both also agree on these answers between other lines."""


def exactly(kind: str, name: str, count: int, **fixed: Any) -> list[tuple[str, dict[str, Any]]]:
    """IFEval knows `at least` and `less than`; both together ask for one number."""
    return [
        (kind, {**fixed, name: number, "relation": relation})
        for number, relation in ((count, "at least"), (count + 1, "less than"))
    ]


WORDS, SENTENCES = "length_constraints:number_words", "length_constraints:number_sentences"
BULLETS, JSON = "detectable_format:number_bullet_lists", "detectable_format:json_format"
TABLE = [
    Kind(
        "contains", {"words": ["oven", "knife"]}, [("keywords:existence", {"keywords": ["oven", "knife"]})],
        right=["Oven, knife!", "A KNIFE\nand an oven"], wrong=["oven", "a fork", " "], only_theirs=["ovens and knife"],
    ),
    Kind(
        "contains", {"words": ["yes"], "times": 2}, exactly("keywords:frequency", "frequency", 2, keyword="yes"),
        right=["Yes, yes.", "yes\nno\nYES"], wrong=["yes", "yes yes yes", "no", ""], only_theirs=["yesterday yes"],
    ),
    Kind(
        "excludes", {"words": ["car", "bus"]}, [("keywords:forbidden_words", {"forbidden_words": ["car", "bus"]})],
        right=["A cart.", "By train", "a\nrailcar"], wrong=["A car", "Car!", "the BUS, then", "\n", "no-car day"],
    ),
    Kind(
        "without", {"characters": "s"},
        [("keywords:letter_frequency", {"letter": "s", "let_frequency": 1, "let_relation": "less than"})],
        right=["A cat", "Maße", "Ö\n?"], wrong=["The cats", "SO", ""],
    ),
    Kind("without", {"characters": ","}, [("punctuation:no_comma", {})], right=["No. None", "a;b"], wrong=["a, b", "1,000", " "]),
    Kind(
        "words", {"low": 3, "high": 3}, exactly(WORDS, "num_words", 3),
        right=["One two three", "one,\ntwo - three!", "1 2 drei", "über die Straße"], wrong=["one two", "a b c d", "", "- –"],
        only_ours=["a well-known tune", "it's now gone"], only_theirs=["well-known tune"],
    ),
    Kind("words", {"low": 3}, [(WORDS, {"num_words": 3, "relation": "at least"})], ["a b c d", "a b c"], ["a b", ""]),
    Kind("words", {"low": 1, "high": 2}, [(WORDS, {"num_words": 3, "relation": "less than"})], ["a", "a b."], ["a b c", " "]),
    Kind(
        "sentences", {"low": 2, "high": 2}, exactly(SENTENCES, "num_sentences", 2),
        right=[
            "It rains. It pours.", "One.\nTwo", 'She said "go." He went.', "“Go.” He went.", "Dr. A. Smith came. He left.",
            "Is it 3.5? No", "It is 5 p.m. now. Go home.", "Well... no. Yes.",
        ],
        wrong=["It rains.", "It rains", "a\nb", "One. Two. Three.", "Hi! Hi! Hi!", "Mr. Li met Mrs. Li.", ""],
        only_ours=["Well... No.", "It was Jan. Snow lay.", "**It rains. It pours.**"], only_theirs=["I like e.g. tea."],
    ),
    Kind("sentences", {"low": 2}, [(SENTENCES, {"num_sentences": 2, "relation": "at least"})], ["A! B! C!", "Go. No."], ["A b"]),
    Kind("sentences", {"high": 1}, [(SENTENCES, {"num_sentences": 2, "relation": "less than"})], ["Mr. Li?", "A b"], ["A! B"]),
    Kind(
        "paragraphs", {"low": 2, "high": 2},
        [("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "it"})],
        right=["Rain falls.\n\nIt stops.", "Rain\nand wind\n\nit stops"],
        wrong=["Rain\nfalls", "Rain.\n\nIt.\n\nIt.", "Rain", ""],
        only_ours=["Rain falls.\n \nIt stops."],
    ),
    Kind(
        "bullets", {"count": 2}, [(BULLETS, {"num_bullets": 2})],
        right=["- a\n- b", "Here:\n* a\n* b\nDone", "  - a\n  * b", "- *a*\n- **b**"],
        wrong=["- a", "- a\n- b\n- c", "1. a\n2. b", "a\nb", "**a**\n**b**", ""],
        only_ours=["- a\n---\n- b"], only_theirs=["-a\n-b", "- a\n*b* c"],
    ),
    Kind(
        "json_value", {"value": [2, 3]}, [(JSON, {})],
        right=[
            "[2,3]", " [2, 3]\n", "```json\n[2, 3]\n```", "```\n[2,3]\n```", "```JSON\n[2,3]```", "```json [2,3]```",
            "```json\n[2,3]\n",
        ],
        wrong=["Here: [2, 3]", "[2, 3", "2, 3", "```\n[2, 3\n```", "{'a': 1}", ""], only_theirs=["[3, 2]", "2"],
    ),
    Kind(
        "json_keys", {"keys": ["a"]}, [(JSON, {})],
        right=['{"a": 1}', '```json\n{"a": null}\n```'], wrong=["{a: 1}", '{"a": 1', ""], only_theirs=['{"b": 1}', '["a"]'],
    ),
    Kind(
        "upper", {}, [("change_case:english_capital", {})], right=["THIS IS THE WEATHER OF TODAY, AND IT IS FINE!"],
        wrong=["This is the weather of today, and it is fine!", "42", "東京", "THE LONG STRAßE IS IN THE TOWN", ""],
        only_ours=["DAS IST DAS WETTER VON HEUTE UND ES IST SEHR SCHÖN"],
    ),
    Kind(
        "lower", {}, [("change_case:english_lowercase", {})], right=["this is the weather of today, and it is fine!"],
        wrong=["This is the weather of today, and it is fine!", "42", "東京", ""],
        only_ours=["das ist das wetter von heute und es ist sehr schön"],
    ),
    Kind(
        "ends", {"text": "Start today."}, [("startend:end_checker", {"end_phrase": "Start today."})],
        right=["Save. Start today.", "START TODAY.\n", '"Save. Start today."'], wrong=["Start today", "Start today. Or not.", ""],
    ),
    Kind(
        "equals", {"texts": ["My answer is yes.", "My answer is no.", "My answer is maybe."]},
        [("detectable_format:constrained_response", {})],
        right=["My answer is yes.", " My answer is maybe.\n"], wrong=["Yes.", "My answer is perhaps.", ""],
        only_ours=["my answer is no."], only_theirs=["I think so. My answer is yes."], framed=False,
    ),
    *(
        Kind(
            "language", {"name": name}, [("language:response_language", {"language": code})], [text], wrong,
            only_theirs=["1234"], framed=False,
        )
        for name, code, text, wrong in [
            ("English", "en", "The house is big and the garden is full of old trees.", ["Das Haus ist groß und alt.", ""]),
            ("German", "de", "Das Haus ist nicht groß, und die Tür ist leider zu.", ["The house is big and old."]),
            ("French", "fr", "Je suis dans la maison et il pleut sur les fleurs.", ["Das Haus ist groß und alt."]),
            ("Spanish", "es", "El perro y los gatos son amigos en las casas.", ["Il gatto è nella casa della nonna."]),
            ("Italian", "it", "Il gatto è nella casa della nonna e dorme.", ["El gato está en la casa de los niños."]),
            ("Portuguese", "pt", "O gato não está em casa com os amigos.", ["The house is big and old."]),
        ]
    ),
]  # fmt: skip


def save_sentence_tables(folder: Path) -> None:
    """NLTK's tables punkt_tab with the abbreviations of the answers here, in a folder that $NLTK_DATA may name."""
    tables = folder / "tokenizers" / "punkt_tab" / "english"
    tables.mkdir(parents=True)
    (tables / "abbrev_types.txt").write_text("dr\nmr\nmrs\np.m\njan\n")
    for name in ("collocations.tab", "sent_starters.txt", "ortho_context.tab"):
        (tables / name).write_text("")


@pytest.fixture(scope="module")
def ifeval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Kind, str], Score]]:
    """IFEval's verdict on an answer."""
    import langdetect
    import nltk

    folder = tmp_path_factory.mktemp("nltk")
    save_sentence_tables(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "path", [str(folder)])
        patch.setattr(langdetect.DetectorFactory, "seed", 0)
        from lm_eval.tasks.ifeval import instructions_util, utils

        instructions_util._get_sentence_tokenizer.cache_clear()

        def verdict(kind: Kind, answer: str) -> Score:
            names, arguments = zip(*kind.theirs, strict=True)
            asked = utils.InputExample(key=0, instruction_id_list=list(names), prompt="", kwargs=list(arguments))
            strict = utils.test_instruction_following_strict(asked, answer)
            loose = utils.test_instruction_following_loose(asked, answer)
            return Score(strict=strict.follow_all_instructions, loose=loose.follow_all_instructions)

        yield verdict
        instructions_util._get_sentence_tokenizer.cache_clear()


def ours(kind: Kind, answer: str) -> Score:
    check = {"kind": kind.check, **kind.arguments}
    return score(Item(id="i", category="c", instruction="?", checks=(check,), output=""), answer)


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.check)
def test_both_say_the_same_of_right_and_wrong_answers(kind: Kind, ifeval: Callable[[Kind, str], Score]) -> None:
    for answers, mine, theirs in (
        (kind.right, True, True), (kind.wrong, False, False), (kind.only_ours, True, False), (kind.only_theirs, False, True),
    ):  # fmt: skip
        found = {answer: (ours(kind, answer).strict, ifeval(kind, answer).strict) for answer in answers}
        assert found == dict.fromkeys(answers, (mine, theirs))


@pytest.mark.parametrize("kind", [kind for kind in TABLE if kind.framed], ids=lambda kind: kind.check)
def test_both_forgive_the_same_first_and_last_lines_and_asterisks(kind: Kind, ifeval: Callable[[Kind, str], Score]) -> None:
    for answer in [*kind.right, *kind.wrong]:
        framed = [f"Sure!\n{answer}", f"{answer}\nIt helps", f"Sure\n{answer}\n\nIt helps", f"**Note** {answer}"]
        for shown in framed:
            mine, theirs = ours(kind, shown), ifeval(kind, shown)
            assert mine.strict == theirs.strict, shown
            # Where it takes two of their checks to ask for what one of ours does, each of the two may hold in another form.
            assert mine.loose == theirs.loose or (len(kind.theirs) > 1 and theirs.loose), shown


def test_several_checks_may_hold_in_a_form_each(ifeval: Callable[[Kind, str], Score]) -> None:
    checks = ({"kind": "words", "low": 3}, {"kind": "ends", "text": "today."})
    theirs: list[tuple[str, dict[str, Any]]] = [
        (WORDS, {"num_words": 3, "relation": "at least"}),
        ("startend:end_checker", {"end_phrase": "today."}),
    ]
    item = Item(id="i", category="c", instruction="?", checks=checks, output="")
    for answer in ("Go today.", "Go\ntoday.\nPlease.", "One two today.", "Bye", "today.\nNo"):
        assert score(item, answer) == ifeval(Kind("", {}, theirs, [], []), answer), answer
    assert score(item, "Go\ntoday.\nPlease.") == Score(strict=False, loose=True), (
        "three words as it is, the end without its last line"
    )


def test_a_difference_is_explained_where_the_check_is_defined() -> None:
    differing = {kind.check for kind in TABLE if kind.only_ours or kind.only_theirs}
    assert [name for name in sorted(differing) if "IFEval" not in (CHECKS[name].__doc__ or "")] == []
