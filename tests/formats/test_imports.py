"""Imports: each format gives the examples it means, a mistake is named with its row, and a key covers what is read."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from minilima.config.compose import load_config
from minilima.config.schema import DataConfig, DatasetConfig
from minilima.errors import MinilimaError
from minilima.formats.files import read_jsonl, sha256_file, write_jsonl
from minilima.formats.imports import Imported, read_file
from minilima.formats.records import EvalPrompt, Example
from minilima.generate.dataset import sift
from minilima.generate.import_pool import import_pool, read_source
from minilima.pipeline import stages
from minilima.run.sources import resolve
from minilima.store.job import Job
from minilima.store.sources import FileSource

TWO_TURNS = ("Name a city.", "Paris.", "Where is it?", "In France.")


def dialogue(number: int = 1, system: str | None = None) -> Example:
    first = ((TWO_TURNS[0], TWO_TURNS[1]),)
    return Example(
        id=f"row{number}", instruction=TWO_TURNS[2], input="", output=TWO_TURNS[3], source="file", history=first, system=system
    )


def sharegpt(*texts: str, roles: tuple[str, ...] = ("human", "gpt")) -> list[dict[str, str]]:
    return [{"from": roles[index % 2], "value": text} for index, text in enumerate(texts)]


def written(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


def listed(folder: Path, entry: Any, *rows: Any, name: str = "mine") -> str:
    """A data set with its dataset_info.json, as a value of data.path."""
    written(folder / "rows.json", *rows)
    (folder / "dataset_info.json").write_text(json.dumps({name: entry, "other": {"file_name": "other.json"}}))
    return f"{folder}/dataset_info.json:{name}"


def source(data_path: str) -> FileSource:
    source_file = resolve(load_config(["data=file", f"data.path='{data_path}'"])).data
    assert source_file is not None
    return source_file


def pool_key(data_path: str) -> str:
    config = load_config(["data=file", f"data.path='{data_path}'"])
    return stages(config, resolve(config))["pool"].key


@pytest.mark.parametrize(
    ("row", "system"),
    [
        ({"instruction": TWO_TURNS[2], "input": "", "output": TWO_TURNS[3], "history": [list(TWO_TURNS[:2])]}, None),
        (
            {"instruction": TWO_TURNS[2], "output": TWO_TURNS[3], "history": [list(TWO_TURNS[:2])], "system": "Be brief."},
            "Be brief.",
        ),
        ({"conversations": list(TWO_TURNS), "source": "multi_turn"}, None),
        ({"conversations": sharegpt(*TWO_TURNS)}, None),
        ({"conversations": [{"from": "system", "value": "Be brief."}, *sharegpt(*TWO_TURNS)]}, "Be brief."),
        ({"conversations": sharegpt(*TWO_TURNS), "system": "Be brief."}, "Be brief."),
        (
            {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(TWO_TURNS)]},
            None,
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    *({"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(TWO_TURNS)),
                ]
            },
            "Be brief.",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("lines", [True, False])
def test_each_format_gives_the_same_conversation(tmp_path: Path, row: dict[str, Any], system: str | None, lines: bool) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(row) + "\n" if lines else json.dumps([row], indent=1))
    assert read_file(path) == Imported(examples=[dialogue(system=system)], rejected=[])


def test_an_alpaca_row_keeps_its_input_and_may_lack_what_is_optional(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Translate.", "input": "The cat.", "output": "Le chat."},
        {"instruction": "Say yes.", "output": "Yes.", "input": " ", "history": None, "system": None},
    ]
    made = read_file(written(tmp_path / "data.json", *rows)).examples
    assert [(item.id, item.instruction, item.input, item.output) for item in made] == [
        ("row1", "Translate.", "The cat.", "Le chat."),
        ("row2", "Say yes.", "", "Yes."),
    ]
    assert all(item.history == () and item.system is None and item.source == "file" for item in made)


def test_a_task_of_self_instruct_gives_an_example_for_each_of_its_instances(tmp_path: Path) -> None:
    instances = [{"input": "", "output": "Paris."}, {"input": "Spain", "output": "Madrid."}]
    task = {"id": "seed_task_0", "instruction": "Name a capital.", "instances": instances, "is_classification": False}
    examples = read_file(written(tmp_path / "seeds.json", task)).examples
    assert [(one.id, one.instruction, one.input, one.output) for one in examples] == [
        ("row1", "Name a capital.", "", "Paris."),
        ("row1.2", "Name a capital.", "Spain", "Madrid."),
    ]


def test_prompts_without_an_answer_are_reported_and_the_rest_is_kept(tmp_path: Path) -> None:
    rows = [
        {"conversations": ["Only asked."]},
        {"conversations": [*TWO_TURNS, "And then?"]},
        {"conversations": ["Hi.", "Hello."]},
    ]
    config = load_config(["data=file", f"data.path={written(tmp_path / 'lima.json', *rows)}"])
    job = Job(
        kind="pool",
        role="pool",
        key="k",
        work=tmp_path,
        inputs={},
        config=config,
        sources=resolve(config),
        cache=tmp_path / "c.sqlite",
    )
    outcome = import_pool(job)
    assert outcome.metrics == {"rows": 2, "rejected": 2, "reasons": {"unanswered": 2}}
    kept = [Example(**row) for row in read_jsonl(tmp_path / "instances.jsonl")]
    assert kept[0] == dialogue(2) and kept[1].output == "Hello."
    rejected = read_jsonl(tmp_path / "rejected.jsonl")
    assert [(row["id"], row["text"], row["reason"]) for row in rejected] == [
        ("row1", "Only asked.", "unanswered"),
        ("row2", "And then?", "unanswered"),
    ]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (5, "is not an object"),
        ({"text": "x"}, "is of no known format"),
        ({"instruction": "x", "instances": []}, "has no proper instances"),
        ({"instruction": "x", "instances": [{"input": "y"}]}, "has no proper output"),
        ({"instruction": "Do."}, "no proper output"),
        ({"instruction": " ", "output": "x"}, "no proper instruction"),
        ({"instruction": "Do.", "output": 7}, "no proper output"),
        ({"instruction": "Do.", "output": "x", "input": 7}, "no proper input"),
        ({"instruction": "Do.", "output": "half \ud83d"}, "half a character"),
        ({"instruction": "Do.", "output": "x", "history": "none"}, "no proper history"),
        ({"instruction": "Do.", "output": "x", "history": ["ab"]}, "no proper history"),
        ({"instruction": "Do.", "output": "x", "history": [["a", "b", "c"]]}, "uneven turn"),
        ({"instruction": "Do.", "output": "x", "history": [["a", ""]]}, "no proper history"),
        ({"conversations": []}, "no proper conversations"),
        ({"conversations": "a b"}, "no proper conversations"),
        ({"conversations": ["a", " ", "b", "c"]}, "no proper turn 2"),
        ({"conversations": ["a", 3]}, "no proper turn 2"),
        ({"conversations": sharegpt("a", "b", roles=("gpt", "human"))}, "the assistant speak in turn 1, where the user should"),
        ({"conversations": [{"from": "system", "value": "s"}, *sharegpt("a", "b", roles=("human", "human"))]}, "turn 3"),
        ({"conversations": [{"from": "system", "value": "s"}]}, "a system message only"),
        ({"conversations": [*sharegpt("a", "b"), {"from": "system", "value": "s"}]}, "has the system speak in turn 3"),
        ({"conversations": sharegpt("a", "b", roles=("human", "observation"))}, "The roles are: human, gpt, system"),
        ({"messages": [{"role": "user", "content": None}]}, "no proper turn 1"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "The roles are: user, assistant, system"),
    ],
)  # fmt: skip
def test_a_broken_row_is_named(tmp_path: Path, row: Any, named: str) -> None:
    path = written(tmp_path / "data.json", {"instruction": "Fine.", "output": "Yes."}, row)
    with pytest.raises(MinilimaError, match=named) as refusal:
        read_file(path)
    assert refusal.value.what.startswith(f"Row 2 of {path} ") and refusal.value.why and "begins" in refusal.value.fix


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "is empty"),
        (b"[]", "is empty"),
        (b'[{"conversations": ["Only asked."]}]', "None of its 1 prompts has an answer"),
        (b'[{"instruction": "caf\xe9", "output": "x"}]', "not a text in UTF-8"),
        (b'[{"instruction": ', "not JSON"),
        (b'{"instruction": "a", "output": "b"}\nno\n', "Line 2"),
    ],
)
def test_a_file_that_holds_no_examples_is_refused(tmp_path: Path, content: bytes, named: str) -> None:
    (tmp_path / "data.json").write_bytes(content)
    with pytest.raises(MinilimaError, match=named):
        read_file(tmp_path / "data.json")


ENTRY: dict[str, Any] = {"file_name": "rows.json"}
TAGS = {"role_tag": "who", "content_tag": "said", "user_tag": "a", "assistant_tag": "b", "system_tag": "c"}


@pytest.mark.parametrize(
    ("entry", "row", "system"),
    [
        (
            {**ENTRY, "columns": {"prompt": "q", "response": "r", "history": "before", "system": "s"}},
            {"q": TWO_TURNS[2], "r": TWO_TURNS[3], "before": [list(TWO_TURNS[:2])], "s": "Be brief.", "input": "not named"},
            "Be brief.",
        ),
        ({**ENTRY, "formatting": "sharegpt"}, {"conversations": sharegpt(*TWO_TURNS), "system": "not named"}, None),
        (
            {**ENTRY, "formatting": "sharegpt", "columns": {"messages": "talk"}, "tags": TAGS},
            {
                "talk": [
                    {"who": "c", "said": "Be brief."},
                    *({"who": "ab"[n % 2], "said": text} for n, text in enumerate(TWO_TURNS)),
                ]
            },
            "Be brief.",
        ),
        (
            {**ENTRY, "formatting": "openai", "columns": {"messages": "m"}, "tags": {**TAGS, "observation_tag": "tool"}},
            {"m": [{"who": "ab"[n % 2], "said": text} for n, text in enumerate(TWO_TURNS)]},
            None,
        ),
    ],
)
def test_an_entry_of_dataset_info_says_where_the_parts_are(
    tmp_path: Path, entry: dict[str, Any], row: dict[str, Any], system: str | None
) -> None:
    assert read_source(source(listed(tmp_path, entry, row))).examples == [dialogue(system=system)]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_files_of_windows_programs_are_read(tmp_path: Path, ending: str) -> None:
    row = json.dumps({"instruction": "Füge an.", "output": "Gut."}, ensure_ascii=False)
    for name, content in (("a.jsonl", row + ending + ending + row + ending), ("a.json", f"[{row},{ending}{row}]")):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert [example.instruction for example in read_file(tmp_path / name).examples] == ["Füge an.", "Füge an."]
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(MinilimaError, match=r"deep\.json is not JSON"):
        read_file(tmp_path / "deep.json")


def test_columns_that_an_entry_does_not_name_are_not_read(tmp_path: Path) -> None:
    row = {"instruction": "Do.", "input": "this", "output": "Done.", "history": [["a", "b"]], "system": "s"}
    plain = read_source(source(listed(tmp_path, ENTRY, row))).examples[0]
    assert (plain.input, plain.history, plain.system) == ("this", (), None), "LLaMA-Factory's defaults: no history, no system"
    columns = {"prompt": "instruction", "response": "output"}
    bare = read_source(source(listed(tmp_path, {**ENTRY, "columns": columns}, row))).examples[0]
    assert bare.input == "", "once there are columns, those not named are absent"


def test_a_sole_entry_needs_no_name_and_of_several_one_is_chosen(tmp_path: Path) -> None:
    value = listed(tmp_path, ENTRY, {"instruction": "Do.", "output": "Done."})
    listing = tmp_path / "dataset_info.json"
    with pytest.raises(MinilimaError, match="mine, other"):
        source(str(listing))
    with pytest.raises(MinilimaError, match=r"no entry 'yours'.*mine, other"):
        source(f"{listing}:yours")
    listing.write_text(json.dumps({"mine": ENTRY}))
    assert source(str(listing)) == source(value)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("rows.json", "is a str"),
        ({}, "no file_name"),
        ({"file_name": "gone.json"}, "no such file"),
        ({"file_name": "."}, "no such file"),
        ({"file_name": "../secret.json"}, "outside its folder"),
        ({"file_name": "/etc/passwd"}, "outside its folder"),
        ({"file_name": "link.json"}, "outside its folder"),
        ({**ENTRY, "hf_hub_url": "a/b"}, "uses hf_hub_url"),
        ({**ENTRY, "num_samples": 5}, "uses num_samples"),
        ({**ENTRY, "ranking": True}, "names no chosen, rejected"),
        ({**ENTRY, "split": "test"}, "uses split"),
        ({**ENTRY, "formatting": "csv"}, "formatting 'csv'"),
        ({**ENTRY, "columns": ["a"]}, "no proper columns"),
        ({**ENTRY, "columns": {"prompt": "q"}}, "names no response among its columns"),
        ({**ENTRY, "columns": {"prompt": "q", "response": "r", "tools": "t"}}, "has the columns tools"),
        ({**ENTRY, "formatting": "sharegpt", "tags": {"role_tag": "r"}}, "names no assistant_tag, content_tag, user_tag"),
    ],
)
def test_an_entry_that_cannot_be_used_says_why(tmp_path: Path, entry: Any, named: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    written(tmp_path / "secret.json", {"instruction": "Do.", "output": "Done."})
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    value = listed(folder, entry, {"instruction": "Do.", "output": "Done."})
    with pytest.raises(MinilimaError, match=named) as refusal:
        source(value)
    assert "'mine'" in refusal.value.what


@pytest.mark.parametrize("content", ["no json", "[]", "{}"])
def test_a_dataset_info_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_info.json").write_text(content)
    with pytest.raises(MinilimaError, match=r"dataset_info\.json (is not JSON|holds no entries)"):
        source(f"{tmp_path}/dataset_info.json:mine")
    with pytest.raises(MinilimaError, match="no file"):
        source(f"{tmp_path}/elsewhere/dataset_info.json:mine")


def test_the_key_of_an_import_covers_the_file_that_is_read_and_how(tmp_path: Path) -> None:
    row = {"instruction": "Do.", "output": "Done.", "input": "x"}
    value = listed(tmp_path, ENTRY, row)
    key = pool_key(value)
    assert source(value).path == (tmp_path / "rows.json").resolve()
    written(tmp_path / "other.json", row)
    assert pool_key(value) == key, "a file that is not read"
    assert pool_key(listed(tmp_path, ENTRY, row, name="renamed")) == key, "a name"
    assert pool_key(listed(tmp_path, {**ENTRY, "columns": {"prompt": "instruction", "response": "output"}}, row)) != key
    assert pool_key(listed(tmp_path, ENTRY, {**row, "output": "Changed."})) != key
    assert pool_key(listed(tmp_path, ENTRY, row)) == key


def test_a_file_that_changes_between_plan_and_import_is_noticed(tmp_path: Path) -> None:
    plain, entry = written(tmp_path / "a.json", {"instruction": "Do.", "output": "Done."}), listed(tmp_path, ENTRY, {})
    for source_file in (source(str(plain)), source(entry)):
        assert source_file.path is not None
        written(source_file.path, {"instruction": "Do.", "output": "Something else."})
        with pytest.raises(MinilimaError, match="has changed since"):
            read_source(source_file)


def test_a_worker_is_told_which_entry_to_read(tmp_path: Path) -> None:
    value = listed(tmp_path, {**ENTRY, "formatting": "sharegpt"}, {"conversations": sharegpt(*TWO_TURNS)})
    config = load_config(["data=file", f"data.path='{value}'"])
    job = Job(
        kind="pool", role="pool", key="k", work=tmp_path, inputs={}, config=config, sources=resolve(config), cache=tmp_path / "c"
    )
    received = Job.from_json(job.to_json()).sources.data
    assert received is not None and read_source(received).examples == [dialogue()]
    assert source(str(tmp_path / "rows.json")).sha256 == sha256_file(tmp_path / "rows.json")


def test_limas_own_file_is_imported_from_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    absent = resolve(load_config(["data=lima_train"]))
    assert absent.missing() == ["the file train.jsonl of the hub's data set GAIR/lima"]
    repository, commit = tmp_path / "datasets--GAIR--lima", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    write_jsonl(repository / "snapshots" / commit / "train.jsonl", [{"conversations": list(TWO_TURNS), "source": "authors"}])
    source_file = resolve(load_config(["data=lima_train"])).data
    assert source_file is not None and read_source(source_file).examples == [dialogue()]


def test_an_earlier_turn_that_resembles_an_evaluation_prompt_is_contamination_and_another_history_is_no_duplicate() -> None:
    pool = [dialogue(1), Example(**{**asdict(dialogue(2)), "history": (("Name a town.", "Lyon."),)}), dialogue(3)]
    prompts = [EvalPrompt(id="e1", instruction="Name a city.")]
    kept, rejected = sift(pool, prompts, DataConfig(max_similarity=0.9), DatasetConfig())
    assert [item.id for item in kept] == ["row2"]
    assert [(item.id, item.reason) for item in rejected] == [("row1", "contamination"), ("row3", "duplicate")]


def test_a_row_with_unusual_separators_is_read_back_as_it_was(tmp_path: Path) -> None:
    strange = Example(id="row1", instruction="a\u2028b\r\nc", input="x\x85y", output="d\x00e", source="file")
    write_jsonl(tmp_path / "data.jsonl", [strange])
    assert read_file(tmp_path / "data.jsonl").examples == [strange]
