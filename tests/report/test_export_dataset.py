"""Exports: what other tools read back is what was written, the card holds hostile text, and nothing is half there."""

import base64
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import datasets
import huggingface_hub
import pytest
import yaml  # type: ignore[import-untyped]

from minilima.__main__ import main
from minilima.cli.export import data_of
from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.formats.files import read_jsonl, write_jsonl
from minilima.formats.imports import Reading, read_file
from minilima.formats.llamafactory import locate
from minilima.formats.records import Example, user_text
from minilima.pipeline import stages
from minilima.report import export_dataset
from minilima.report.dataset_card import CardFacts, Origin, card_text, code, fenced
from minilima.report.export_dataset import Exported
from minilima.report.hub import check_repository, open_repository, push
from minilima.run.sources import resolve
from minilima.store.entries import Store
from minilima.store.job import Outcome
from tests.cli.test_commands import minilima, refused
from tests.models.test_whole_runs import work_here

HOSTILE = (
    "</code> ```` \n---\nlicense: mit\n# <script>alert(1)</script> {{ 7 * 7 }} {% raw %} | * [x](http://e.vil) \u202e\x1b[31m `"
)

ROWS: list[dict[str, Any]] = [
    {"id": "s1", "instruction": "Name a city.", "input": "", "output": "Paris.", "source": "seed", "is_classification": False},
    {
        "id": "m1", "instruction": "Translate.", "input": "Le chat.\n\n", "output": "The cat. \u2028 猫", "source": "machine",
        "prompt": "Task: Translate.\nLe chat.", "round": 1, "parents": ["s1", "s2"], "request": "a1b2", "score": 4.5,
        "scores": {"difficulty": 0.5, "quality": 4.5},
    },
    {"id": "m2", "instruction": HOSTILE, "input": HOSTILE, "output": HOSTILE, "source": "machine", "nearest_rouge": 0.25},
]  # fmt: skip
DIALOGUE = {
    **ROWS[0], "id": "d1", "source": "file", "history": [["Hi.", "Hello."], [HOSTILE, HOSTILE]], "system": "Be brief.",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _bars() -> Iterator[None]:
    yield
    assert not datasets.are_progress_bars_disabled(), "an export leaves the library's settings as they were"


def store_with(tmp_path: Path, *rows: dict[str, Any], overrides: tuple[str, ...] = ()) -> list[str]:
    """A store that holds the pool and this data set; returns the overrides that name them."""
    names = [f"paths.outputs={tmp_path / 'outputs'}", *overrides]
    config = load_config(names)
    graph, store = stages(config, resolve(config)), Store(tmp_path / "outputs" / "store")

    def pool(work: Path) -> Outcome:
        return Outcome(metrics={"tasks": 9, "reasons": {"near_duplicate": 1234, f"blocked_word:{HOSTILE}": 2}})

    def dataset(work: Path) -> Outcome:
        write_jsonl(work / "dataset.jsonl", [Example(**row) for row in rows])
        return Outcome(metrics={"examples": len(rows), "reasons": {"contamination": 7, "duplicate": 3}})

    store.get_or_build(graph["pool"], pool)
    store.get_or_build(graph["dataset"], dataset)
    return names


def exported(tmp_path: Path, *rows: dict[str, Any], overrides: tuple[str, ...] = ()) -> Exported:
    return data_of(load_config(store_with(tmp_path, *rows, overrides=overrides)), tmp_path / "out" / "set", "build it")


def test_pairs_of_answers_are_exported_for_trl_and_llama_factory(tmp_path: Path) -> None:
    config = load_config([f"paths.outputs={tmp_path / 'outputs'}", "name=mine"])
    graph, store = stages(config, resolve(config)), Store(tmp_path / "outputs" / "store")
    pair = {"id": "m1", "instruction": "Translate.", "input": "Le chat.", "chosen": "The cat.", "rejected": "A cat?"}

    def pool(work: Path) -> Outcome:
        write_jsonl(work / "preferences.jsonl", [pair, {**pair, "id": "resembles a prompt"}])
        return Outcome(metrics={"reasons": {}})

    def dataset(work: Path) -> Outcome:
        write_jsonl(work / "dataset.jsonl", [Example(**ROWS[0])])
        write_jsonl(work / "order.jsonl", [{"id": "s1"}, {"id": "m1"}])
        return Outcome(metrics={"examples": 1, "reasons": {}})

    store.get_or_build(graph["pool"], pool)
    store.get_or_build(graph["dataset"], dataset)
    folder = data_of(config, tmp_path / "set", "build it").folder
    assert read_jsonl(folder / "preferences.jsonl") == [
        {
            "prompt": [{"role": "user", "content": "Translate.\n\nLe chat."}],
            "chosen": [{"role": "assistant", "content": "The cat."}],
            "rejected": [{"role": "assistant", "content": "A cat?"}],
        }
    ], "a task that could not be chosen is not among them"
    path, _, layout = locate(folder / "dataset_info.json", "mine_preferences")
    (read,) = read_file(path, layout, Reading(chosen=True)).examples
    assert content(read)[2:] == ("Translate.", "Le chat.", "The cat."), "and it can be imported here"


def content(example: Example) -> tuple[Any, ...]:
    return (example.system, example.history, example.instruction, example.input, example.output)


@pytest.mark.parametrize("rows", [[*ROWS, DIALOGUE], ROWS[:1]], ids=["conversations", "one plain row"])
def test_datasets_reads_back_what_was_written(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    folder = exported(tmp_path, *rows).folder
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    written = [Example(**row) for row in rows]
    assert [Example(**row) for row in loaded["train"]] == written
    from_disk = datasets.load_from_disk(str(folder / "hf_dataset"))
    assert from_disk.features == loaded["train"].features
    assert [Example(**row) for row in from_disk] == written
    assert set(from_disk.column_names) == {field.name for field in fields(Example)}, "no field of an example is lost"
    messages = datasets.load_dataset(
        "json", data_files=str(folder / "messages.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [row["messages"] for row in messages] == [example.messages() for example in written]


@pytest.mark.parametrize("rows", [[*ROWS, DIALOGUE], ROWS], ids=["conversations", "plain"])
def test_our_importer_reads_the_same_examples_through_dataset_info(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    folder = exported(tmp_path, *rows).folder
    listing = folder / "dataset_info.json"
    path, _, layout = locate(listing, "run")
    written = [Example(**row) for row in rows]
    again = read_file(path, layout)
    assert [content(example) for example in again.examples] == [content(example) for example in written]
    path, _, layout = locate(listing, "run_messages")
    assert [example.messages() for example in read_file(path, layout).examples] == [example.messages() for example in written]
    assert [example.messages() for example in read_file(folder / "messages.jsonl").examples] == [
        example.messages() for example in written
    ], "the file alone is recognised too"


def as_llamafactory_reads(folder: Path, name: str) -> list[list[tuple[str, str]]]:
    """(role, text) of each row's turns, by the rules of LLaMA-Factory's parser.py and converter.py."""
    entry = json.loads((folder / "dataset_info.json").read_text())[name]
    path, columns, tags = folder / entry["file_name"], entry["columns"], entry.get("tags")
    table = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder.parent / "cache"))
    if entry.get("formatting", "alpaca") == "sharegpt":
        roles = {tags["user_tag"]: "user", tags["assistant_tag"]: "assistant", tags["system_tag"]: "system"}
        return [
            [(roles[turn[tags["role_tag"]]], turn[tags["content_tag"]]) for turn in row[columns["messages"]]] for row in table
        ]
    made = []
    for row in table:
        system = row[columns["system"]] if columns.get("system") else ""
        turns = [("system", system)] if system else []
        for user, answer in row[columns["history"]] if columns.get("history") else []:
            turns += [("user", user), ("assistant", answer)]
        query = [row[columns[name]] for name in ("prompt", "query") if columns.get(name) and row[columns[name]]]
        made.append([*turns, ("user", "\n".join(query)), ("assistant", row[columns["response"]])])
    return made


@pytest.mark.parametrize("rows", [[*ROWS, DIALOGUE], ROWS], ids=["conversations", "plain"])
def test_llamafactorys_rules_find_every_turn(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    folder = exported(tmp_path, *rows).folder
    written = [Example(**row) for row in rows]
    turns = [[(turn["role"], turn["content"]) for turn in example.messages()] for example in written]
    assert as_llamafactory_reads(folder, "run_messages") == turns
    for example, expected in zip(written, turns, strict=True):
        asked = user_text(example.instruction, example.input)
        expected[-2] = ("user", f"{example.instruction}\n{example.input}" if example.input else asked)
    assert as_llamafactory_reads(folder, "run") == turns, "alpaca rows: one newline between instruction and input"


def test_history_is_a_column_only_where_there_are_conversations(tmp_path: Path) -> None:
    assert all(
        set(row) == {"instruction", "input", "output"} for row in export_dataset.alpaca_rows([Example(**row) for row in ROWS])
    )
    rows = export_dataset.alpaca_rows([Example(**row) for row in [*ROWS, DIALOGUE]])
    assert [len(row["history"]) for row in rows] == [0, 0, 0, 2] and [row["system"] for row in rows] == ["", "", "", "Be brief."]


def header_and_body(card: str) -> tuple[dict[str, Any], str]:
    _, header, body = re.split(r"^---\n", card, maxsplit=2, flags=re.MULTILINE)
    values = yaml.safe_load(header)
    assert isinstance(values, dict)
    return values, body


def without_code(markdown: str) -> str:
    """What a reader of Markdown would not take as code: blocks first, then spans, as CommonMark orders them."""
    kept, fence = [], ""
    for line in markdown.split("\n"):
        mark = re.match(r"`{3,}", line)
        if fence:
            fence = "" if re.fullmatch(rf"`{{{len(fence)},}}\s*", line) else fence
        elif mark and "`" not in line[mark.end() :]:
            fence = mark[0]
        else:
            kept.append(line)
    assert not fence, "a block is left open"
    return re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", "\n".join(kept))


def test_the_card_holds_hostile_text(tmp_path: Path) -> None:
    card = (exported(tmp_path, *ROWS, DIALOGUE).folder / "README.md").read_text()
    values, body = header_and_body(card)
    assert "license" not in values and "# license:" in card
    assert [item["config_name"] for item in values["configs"]] == ["default"] and values["size_categories"] == ["n<1K"]
    prose = without_code(body)
    assert "alert(1)" in body, "the hostile rows are in the card"
    for trace in ("alert", "<", "e.vil", "license: mit", "`"):
        assert trace not in prose, prose
    assert "\u202e" not in card and "\x1b" not in card and "\\u202e" in card
    assert body.count("{{ 7 * 7 }}") >= 5, "no template in a row is run"


@pytest.mark.parametrize("name", [HOSTILE, 'a: "b" #c', "- x", "{a}", "größe", "yes", "1e3", "\U0001f600"])
def test_any_name_stays_one_yaml_string(tmp_path: Path, name: str) -> None:
    stage = {
        "recipe": {}, "metrics": {}, "packages": {}, "created_at": HOSTILE, "command": HOSTILE, "stage": HOSTILE, "key": HOSTILE,
    }  # fmt: skip
    origin = Origin(what="written by", name=HOSTILE, terms="None.")
    facts = CardFacts(name=name, examples=[Example(**ROWS[0])], dataset=stage, pool=None, origin=origin)
    values, body = header_and_body(card_text(facts))
    assert values["pretty_name"] == name
    assert set(values) == {"pretty_name", "task_categories", "tags", "size_categories", "configs"}
    assert "alert" not in without_code(body)


@pytest.mark.parametrize("text", ["`", "``", "a`b``c", "```\n```", "```\n# x", "", " ", "\r\n\n# x", "````json"])
def test_no_text_gets_out_of_its_code(text: str) -> None:
    assert without_code(f"before {code(text)} after") == "before  after"
    assert without_code(f"before\n\n{fenced(text)}\n\nafter") == "before\n\n\nafter"


def test_the_card_tells_where_the_rows_come_from_and_what_was_left_out(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "id": f"s{n}", "output": "word " * n} for n in range(1, 12)]
    card = (exported(tmp_path, *rows, overrides=("name=mine",)).folder / "README.md").read_text()
    manifest = json.loads(next((tmp_path / "outputs" / "store").glob("dataset-*/manifest.json")).read_text())
    config = load_config([])
    sources = resolve(config)
    assert sources.seeds is not None
    for told in (
        "# `mine`", "11 examples", "- `seed`: 11 rows", "`smollm2_135m`", "that model's licence is Apache-2.0",
        sources.seeds.sha256, sources.eval_set.sha256, "Decontaminated: 7 rows", "above `0.7`", "- `near_duplicate`: 1,234",
        "1,236 rejected", "- `duplicate`: 3", "- `max_words`: `150`", f"`dataset-{manifest['key']}`",
        f"- Command: `{Path(sys.executable).name} ",
        "| the answer | 1 | 6 | 6 | 10 | 11 |", "| what the user says | 3 | 3 | 3 | 3 | 3 |", "The first 10 rows",
    ):  # fmt: skip
        assert told in card, told
    assert card.count('"id": "s') == 10


def test_a_data_set_that_was_not_decontaminated_says_so(tmp_path: Path) -> None:
    card = (exported(tmp_path, *ROWS, overrides=("dataset.decontaminate=false",)).folder / "README.md").read_text()
    assert "**Not decontaminated**" in card and "Decontaminated: " not in card


def test_who_wrote_the_rows_decides_on_the_terms(tmp_path: Path, tiny_model: Path) -> None:
    def terms(*overrides: str) -> str:
        config = load_config(list(overrides))
        origin = export_dataset._origin(config, resolve(config))
        return f"{origin.what} {origin.name}: {origin.terms}"

    write_jsonl(tmp_path / "mine.jsonl", [{"instruction": "Do.", "output": "Done."}])
    assert "the provider's terms" in (text := terms("generator=openai", "generator.model=some-model")) and "some-model" in text
    assert "licence of the imported file" in (text := terms("data=file", f"data.path={tmp_path}/mine.jsonl")) and "mine" in text
    assert "whose own licence holds too" in terms("data=answers", f"data.path={tmp_path}/mine.jsonl")
    own = terms(f"model.path={tiny_model}")
    assert "the model's licence may set conditions" in own and tiny_model.name in own and str(tiny_model.parent) not in own


def test_an_export_writes_over_nothing_and_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(store_with(tmp_path, *ROWS))
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place in (occupied, tmp_path / "file", occupied / "mine.txt"):
        with pytest.raises(MinilimaError, match="already there"):
            data_of(config, place, "")
    assert [item.name for item in occupied.iterdir()] == ["mine.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (data_of(config, empty, "").folder / "README.md").is_file()

    def fails(facts: CardFacts) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_dataset, "card_text", fails)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="No space"):
        data_of(config, tmp_path / "new", "")
    assert sorted(tmp_path.iterdir()) == before


def test_a_data_set_that_is_not_built_is_refused_with_the_command_that_builds_it(tmp_path: Path) -> None:
    paragraph = refused(minilima("export", "data", "out", "name=a", "dataset.size=5", "until=report", cwd=tmp_path))
    assert "not built yet" in paragraph and list(tmp_path.iterdir()) == []
    assert " ".join(paragraph.split()).endswith("minilima name=a dataset.size=5 until=dataset")


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["data"], ["model", "out"], ["data", "name=a"], ["data", "out", "-m", "dataset.size=1,2"],
        ["data", "out", "--push-to-hub"], ["data", "out", "--push-to-hub", "nobody"], ["data", "out", "--push-to-hub=a/b/c"],
    ],
)  # fmt: skip
def test_an_export_that_cannot_be_read_is_refused(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 1
    printed = capsys.readouterr().err
    assert "cannot be read" in printed or "is no name on the hub" in printed
    assert list(tmp_path.iterdir()) == []


def test_the_command_builds_exports_and_imports_again(
    tmp_path: Path, minilima_here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    work_here(monkeypatch)
    write_jsonl(tmp_path / "talk.jsonl", [{"conversations": ["Hi.", "Hello.", f"Say {n}.", f"It is {n}."]} for n in range(3)])
    wanted = ["data=file", "data.path=talk.jsonl", "name=talk", "tracking=none", "until=dataset"]
    assert minilima_here(*wanted, cwd=tmp_path).returncode == 0
    result = minilima_here("export", "data", "out", *wanted, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Wrote 3 examples to out" in result.stdout and "hf_dataset/state.json" in result.stdout and result.stderr == ""
    again = minilima_here(*wanted[:1], "data.path=out/dataset_info.json:talk", *wanted[2:], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    first, second = (
        {content(Example(**row)) for row in read_jsonl(file)}
        for file in sorted(tmp_path.glob("outputs/store/dataset-*/dataset.jsonl"))
    )
    assert first == second and len(first) == 3
    assert all(len(history) == 1 for _, history, *_ in first)


class Hub(BaseHTTPRequestHandler):
    """The hub's side of an upload of small files: notes what it is told, and refuses as it is told to."""

    said: ClassVar[dict[str, Any]]
    private: ClassVar[bool]
    refusals: ClassVar[dict[str, int]]
    """By what is asked, a status."""

    def do_GET(self) -> None:
        status = self.refusals.get("create", 200)
        self._answer({"id": "someone/set", "private": self.private, "siblings": []}, 200 if status == 409 else status)

    def do_POST(self) -> None:
        address = f"http://{self.headers['Host']}/datasets/someone/set"
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        what = self.path.rpartition("/api/")[2].removesuffix("/main").rpartition("/")[2]
        self.said[what] = [json.loads(line) for line in body.splitlines()]
        if status := self.refusals.get(what):
            return self._answer({"error": "no, you may not", "url": address}, status)
        if what == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in self.said[what][0]["files"]
            ]
            return self._answer({"files": files})
        commit = {"commitOid": "0" * 40, "commitUrl": f"{address}/commit/{'0' * 40}", "success": True, "hookOutput": ""}
        return self._answer({"url": address, **commit})

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub that knows one token."""
    Hub.said, Hub.private, Hub.refusals = {}, True, {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield Hub
        server.shutdown()


def test_an_export_is_uploaded_whole_to_a_private_repository(tmp_path: Path, hub: type[Hub]) -> None:
    folder = exported(tmp_path, *ROWS).folder
    open_repository("someone/set", "dataset")
    assert push(folder, "someone/set", "dataset").endswith("/datasets/someone/set")
    created = hub.said["create"][0]
    assert (created["type"], created["visibility"], created["name"]) == ("dataset", "private", "set")
    sent = {row["value"]["path"]: base64.b64decode(row["value"]["content"]) for row in hub.said["commit"] if row["key"] == "file"}
    assert sent == {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_model_is_uploaded_as_a_model_and_a_data_card_names_it(tmp_path: Path, hub: type[Hub]) -> None:
    open_repository("someone/model", "model")
    created = hub.said["create"][0]
    assert created.get("type", "model") == "model" and (created["visibility"], created["name"]) == ("private", "model")
    config = load_config(store_with(tmp_path, *ROWS))
    linked = data_of(config, tmp_path / "linked", "build it", "someone/model")
    assert "[someone/model](https://huggingface.co/someone/model)" in (linked.folder / "README.md").read_text()


@pytest.mark.parametrize(("status", "said"), [(401, "does not accept the token"), (403, "may not write there")])
def test_who_may_not_write_on_the_hub_hears_of_it_first(status: int, said: str, hub: type[Hub]) -> None:
    hub.refusals = {"create": status}
    with pytest.raises(MinilimaError, match="cannot be opened on the hub") as refusal:
        open_repository("someone/set", "model")
    assert said in refusal.value.why and "no, you may not" in refusal.value.why and "mozilla" not in refusal.value.why


def test_nothing_is_uploaded_to_a_repository_that_everybody_can_read(hub: type[Hub]) -> None:
    hub.refusals = {"create": 409}
    open_repository("someone/set", "dataset")  # there already, and private: an upload goes on
    hub.private = False
    with pytest.raises(MinilimaError, match="everybody can read it"):
        open_repository("someone/set", "dataset")


def test_an_upload_that_breaks_off_names_the_command_that_goes_on(
    tmp_path: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported(tmp_path, *ROWS).folder

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Error while uploading 'x'.") from ConnectionError("Server disconnected.")  # after five attempts

    hub.refusals = {"commit": 400}
    for said in ("no, you may not", "Error while uploading 'x': Server disconnected."):
        with pytest.raises(MinilimaError, match="could not be written on the hub") as refusal:
            push(folder, "someone/set", "dataset")
        assert said in refusal.value.why and (folder / "README.md").is_file()
        # --private: `hf upload` makes public repositories where there is none
        line = f"hf upload --private --repo-type dataset someone/set {folder}"
        assert refusal.value.fix == f"Go on with: {line}"
        monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", broken)


def test_nothing_is_uploaded_without_a_hub(tmp_path: Path) -> None:
    for trial in (lambda: open_repository("someone/set", "dataset"), lambda: push(tmp_path, "someone/set", "dataset")):
        with pytest.raises(MinilimaError, match="on the hub"):
            trial()


@pytest.mark.parametrize(
    ("name", "fine"), [("a/b", True), ("me-1/my_set.v2", True), ("b", False), ("a/", False), ("../b", False)]
)
def test_a_name_on_the_hub_has_two_parts(name: str, fine: bool) -> None:
    if fine:
        check_repository(name)
    else:
        with pytest.raises(MinilimaError, match="no name on the hub"):
            check_repository(name)
