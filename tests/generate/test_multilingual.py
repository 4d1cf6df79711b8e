"""From seeds to verdicts in German, with the packaged sets, in Chinese and Japanese: stages alone, and whole runs that train."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from minilima.config.compose import load_config
from minilima.evaluate.judge import build_verdicts
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import DATA, read_jsonl, sha256_text, write_jsonl
from minilima.formats.records import Answer
from minilima.generate.dataset import build_dataset
from minilima.generate.languages import script_of
from minilima.generate.pool import build_pool
from minilima.pipeline import run
from tests.generate.test_pool import job, on_progress
from tests.models.test_whole_runs import SMALL, work_here
from tests.personalities import settings
from tests.server import VALID_KEY, ModelServer

GERMAN_SEEDS, GERMAN_PROMPTS = "seeds=minilima_de_50", "eval_set=minilima_de_40"
VERBS = ("Erkläre", "Vergleiche", "Nenne", "Übersetze", "Erfinde", "Kürze")
THINGS = ("Ulme", "Fähre", "Mühle", "Öltank", "Schäfer", "Brücke", "Käse", "Straße", "Übung", "Jäger")
CHINESE_THINGS = ("海洋", "石榴", "书桌", "台风", "火车", "茶叶", "毛笔", "月亮", "桥梁", "麦田")
CHINESE = [
    ("写一首关于春天的短诗。", "", "春风吹绿了河岸，", False),
    ("把句子翻译成英文。", "我喜欢读书。", "I like reading.", False),
    ("判断这条评论的情感，只回答正面或负面。", "这家店的面条太好吃了。", "正面", True),
    ("列出三种常见的水果。", "", "苹果、香蕉、橙子", False),
]  # fmt: skip
CHINESE_PROMPTS = [
    ("解释一下为什么天空是蓝色的。", "因为空气分子更容易散射蓝光。"),
    ("请列出长江流经的四座城市。", "重庆、武汉、南京、上海。"),
]
JAPANESE = [
    ("春についての短い詩を書いてください。", "", "春風が川辺を緑に染める。", False),
    ("次の文を英語に訳してください。", "私は本を読むのが好きです。", "I like reading books.", False),
    ("この感想は肯定的ですか、否定的ですか。", "この店の麺はとても美味しい。", "肯定的", True),
    ("一般的な果物を三つ挙げてください。", "", "りんご、バナナ、みかん", False),
]  # fmt: skip
JAPANESE_PROMPTS = [
    ("なぜ空は青いのか説明してください。", "空気の分子が青い光をより強く散乱するからです。"),
    ("利根川が流れる県を四つ挙げてください。", "群馬県、埼玉県、茨城県、千葉県です。"),
]
JAPANESE_THINGS = ("海", "ざくろ", "机", "台風", "列車", "お茶", "筆", "月", "橋", "麦畑")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)


def german(body: dict[str, Any]) -> str:
    """A model that answers in German: tasks, one of them an evaluation prompt, and one that it has no answer to."""
    prompt, number = _prompt(body)
    if "as a numbered list" in prompt:
        thing, other = THINGS[number % 10], THINGS[number // 10 % 10]
        return (
            f"1. {VERBS[number % 6]} {thing}{number} über {other}{number + 1} für Gäste{number + 2}.\n"
            "2. Ein Rechteck ist 12 cm lang und hat einen Umfang von 40 cm. Berechne bitte seinen Flächeninhalt.\n"
            f"3. {thing}{number} und {other}{number} stehen im Garten{number}."
        )
    if "Answer Yes or No" in prompt:
        return "Ja, das ist eine Klassifikation." if number % 3 == 0 else "Nein."
    if "Which labels can the answer be" in prompt:
        return "kurz, mittel oder lang"
    if "Does this task come with" in prompt:
        return "Keine Eingabe nötig." if number % 4 else f"Ein Text über {THINGS[number % 10]} ({number})."
    return (
        "Es tut mir leid, aber dazu kann ich nichts sagen, das geht nicht." if number % 3 == 0 else f"Ergebnis {number}: schön."
    )


def chinese(body: dict[str, Any]) -> str:
    prompt, number = _prompt(body)
    if "as a numbered list" in prompt:
        thing, other = CHINESE_THINGS[number % 10], CHINESE_THINGS[number // 10 % 10]
        return (
            f"1、请说明{thing}{number}与{other}{number + 1}。\n2、请解释一下为什么天空是蓝色的。\n"
            f"3、{thing}{number}在{other}{number}旁边。"
        )
    if "Answer Yes or No" in prompt:
        return "是的。" if number % 3 == 0 else "不是。"
    if "Which labels can the answer be" in prompt:
        return "1、短\n2、长"
    if "Does this task come with" in prompt:
        return "无需输入" if number % 2 else f"关于{CHINESE_THINGS[number % 10]}的短文，编号{number}。"
    return "对不起，我无法回答这个问题。" if number % 5 == 0 else f"结果是{number}，很好。"


def japanese(body: dict[str, Any]) -> str:
    prompt, number = _prompt(body)
    if "as a numbered list" in prompt:
        thing, other = JAPANESE_THINGS[number % 10], JAPANESE_THINGS[number // 10 % 10]
        return (
            f"１．{thing}{number}と{other}{number + 1}の違いを説明してください。\n２．なぜ空は青いのか説明してください。\n"
            f"３．{thing}{number}は{other}{number}の隣にある。"
        )
    if "Answer Yes or No" in prompt:
        return "はい。" if number % 3 == 0 else "いいえ。"
    if "Which labels can the answer be" in prompt:
        return "１．短い\n２．長い"
    if "Does this task come with" in prompt:
        return "入力なし" if number % 2 else f"{JAPANESE_THINGS[number % 10]}についての短い文章、番号{number}。"
    return "申し訳ありませんが、お答えできません。" if number % 5 == 0 else f"結果は{number}です。"


def _prompt(body: dict[str, Any]) -> tuple[str, int]:
    return body["messages"][-1]["content"], int(sha256_text(json.dumps(body["messages"]))[:6], 16)


def written_sets(
    folder: Path, seeds: Sequence[tuple[str, str, str, bool]], prompts: Sequence[tuple[str, str]]
) -> tuple[str, ...]:
    rows = [
        {"id": f"s{at}", "instruction": text, "instances": [{"input": given, "output": output}], "is_classification": label}
        for at, (text, given, output, label) in enumerate(seeds)
    ]
    write_jsonl(folder / "seeds.jsonl", rows)
    write_jsonl(folder / "prompts.jsonl", [{"instruction": text, "output": output} for text, output in prompts])
    return (
        "seeds=file", f"seeds.path={folder / 'seeds.jsonl'}", "eval_set=file", f"eval_set.path={folder / 'prompts.jsonl'}",
        "data.demonstrations=4",
    )  # fmt: skip


@pytest.fixture
def chinese_sets(tmp_path: Path) -> tuple[str, ...]:
    return written_sets(tmp_path, CHINESE, CHINESE_PROMPTS)


def built(folder: Path, server: ModelServer, answer: Callable[[dict[str, Any]], str], *settings: str) -> dict[str, Any]:
    """The pool and the data set in another language; what was rejected, by reason."""
    server.answer = answer
    folder.mkdir(exist_ok=True)
    pool = build_pool(job(folder, server, "data.must_ask=true", *settings), on_progress).metrics
    (folder / "work").rename(folder / "pool")
    made = job(folder, server, *settings, role="dataset", inputs={"pool": folder / "pool"})
    return {
        "pool": pool,
        "dataset": build_dataset(made, on_progress).metrics,
        "rows": read_jsonl(folder / "work" / "dataset.jsonl"),
    }


def judged(folder: Path, server: ModelServer, prompts: Path, *settings: str) -> dict[str, Any]:
    """The verdicts on the reference answers themselves against answers about something else."""
    for role in ("answers", "reference"):
        (folder / role).mkdir(parents=True)
    right = [Answer(id=each.id, instruction=each.instruction, output=str(each.output), generator="a", tokens=1, truncated=False)
             for each in load_eval_set(prompts, None)]  # fmt: skip
    wrong = [{**vars(answer), "output": right[at - 1].output} for at, answer in enumerate(right)]
    write_jsonl(folder / "answers" / "answers.jsonl", right)
    write_jsonl(folder / "reference" / "answers.jsonl", wrong)
    inputs = {role: folder / role for role in ("answers", "reference")}
    settings = ("judge=reference", "judge.embedding_weight=0", *settings)
    return build_verdicts(job(folder, server, *settings, role="verdicts", inputs=inputs), on_progress).metrics


def test_german_from_seeds_to_verdicts(tmp_path: Path, server: ModelServer) -> None:
    made = built(tmp_path / "made", server, german, GERMAN_SEEDS, GERMAN_PROMPTS)
    assert made["pool"]["instructions"] == 12 and made["pool"]["not_classified"] == 0
    assert made["pool"]["reasons"]["asks_nothing"] >= 10 and made["pool"]["reasons"]["refusal"] >= 1
    assert set(made["pool"]["labels"]) <= {"kurz", "mittel", "lang"}
    assert made["dataset"]["reasons"]["contamination"] >= 1 and made["dataset"]["seed"] == 50
    assert made["dataset"]["languages"]["German"] >= 40 and made["dataset"]["refusals"] == 0
    machine = [row for row in made["rows"] if row["source"] == "machine"]
    assert machine and all(row["instruction"].split()[0] in VERBS for row in machine)
    assert {bool(row["input"]) for row in machine} == {True, False}, "`Keine Eingabe nötig` is no input"
    verdicts = judged(tmp_path / "judged", server, DATA / "minilima_de_40.jsonl", GERMAN_PROMPTS)
    assert (verdicts["wins"], verdicts["losses"], verdicts["ties"]) == (40, 0, 0)


def test_chinese_from_seeds_to_verdicts(tmp_path: Path, server: ModelServer, chinese_sets: tuple[str, ...]) -> None:
    made = built(tmp_path / "made", server, chinese, *chinese_sets)
    assert made["pool"]["instructions"] == 12 and made["pool"]["not_classified"] == 0
    assert made["pool"]["reasons"]["asks_nothing"] >= 10 and made["pool"]["reasons"]["refusal"] >= 1
    assert set(made["pool"]["labels"]) <= {"短", "长"}
    assert made["dataset"]["reasons"]["contamination"] >= 1, "`请解释一下…` resembles the evaluation prompt"
    machine = [row for row in made["rows"] if row["source"] == "machine"]
    assert machine and all(row["instruction"].startswith("请说明") for row in machine)
    assert {bool(row["input"]) for row in machine} == {True, False}
    verdicts = judged(tmp_path / "judged", server, tmp_path / "prompts.jsonl", *chinese_sets)
    assert (verdicts["wins"], verdicts["losses"], verdicts["ties"]) == (2, 0, 0)


@pytest.mark.parametrize(
    "language",
    ["German", pytest.param("Chinese", marks=pytest.mark.slow), pytest.param("Japanese", marks=pytest.mark.slow)],
)
def test_a_whole_run_in_another_language_trains_answers_and_judges(
    language: str, tmp_path: Path, tiny_model: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", VALID_KEY)
    work_here(monkeypatch)
    server.answer = {"German": german, "Chinese": chinese, "Japanese": japanese}[language]
    sets: tuple[str, ...] = (GERMAN_SEEDS, GERMAN_PROMPTS)
    if language != "German":
        of_it = (CHINESE, CHINESE_PROMPTS) if language == "Chinese" else (JAPANESE, JAPANESE_PROMPTS)
        sets = written_sets(tmp_path, *of_it)
    overrides = [
        *settings(server.url), *SMALL, *sets, "judge=reference", "judge.embedding_weight=0", "data.must_ask=true",
        "dataset.include_seeds=false", f"model.path={tiny_model}", f"paths.outputs={tmp_path / 'out'}",
    ]  # fmt: skip
    summary = run(load_config(overrides))
    made = {stage.role: stage.metrics for stage in summary.stages}
    assert made["pool"]["instructions"] >= 4 and made["pool"]["reasons"]["asks_nothing"] >= 1
    assert made["model"]["steps"] >= 1 and made["verdicts"]["prompts"] == 2
    (dataset,) = (tmp_path / "out" / "store").glob("dataset-*")
    rows = read_jsonl(dataset / "dataset.jsonl")
    assert rows and {script_of(row["instruction"]) for row in rows} <= {"Latin", "CJK", "Hiragana", "Katakana"}
    page = (Path(summary.folder) / "report.html").read_text(encoding="utf-8")
    assert rows[0]["instruction"] in page
