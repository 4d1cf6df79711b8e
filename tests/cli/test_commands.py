"""The command as a user types it: what is wrong is said in one paragraph, with exit status 1 and no traceback."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from minilima import results, to_frame
from minilima.__main__ import main
from minilima.cli.commands import build, execute, overview
from minilima.config.compose import load_config
from minilima.environment import ROOT
from minilima.errors import MinilimaError
from minilima.pipeline import stages
from minilima.run.sources import resolve
from tests.models.test_whole_runs import work_here

HEAVY = {"torch", "transformers", "peft", "datasets", "matplotlib", "pandas", "wandb", "openai"}
"""What takes long to import and is needed only where something is built, drawn, sent or recorded."""


def minilima(*arguments: str, cwd: Path | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
    command: Sequence[str] = [sys.executable, "-m", "minilima", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, **environment}, timeout=600
    )


def refused(result: "subprocess.CompletedProcess[str]") -> str:
    """The paragraph of a refusal: on standard error, alone, with exit status 1."""
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    paragraph = result.stderr.strip()
    assert paragraph.count("\n") <= 2, paragraph
    return paragraph


def test_help_names_the_commands_and_groups_without_hydra_or_torch() -> None:
    code = (
        "import sys; from minilima.__main__ import main; main(['--help']); main(['plan', '-h']); "
        "print(sorted({'torch', 'hydra', 'omegaconf'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for word in ("plan", "fetch", "quickstart", "lima_1k", "smollm2_135m", "+experiment="):
        assert word in result.stdout
    assert result.stdout.strip().endswith("[]")


@pytest.mark.parametrize("verb", build())
def test_every_verb_has_its_own_help_with_its_options_and_two_examples(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    parser = build()[verb]
    assert main([verb, "--help"]) == 0
    shown = capfd.readouterr().out
    assert main(["help", verb]) == 0 and capfd.readouterr().out == shown
    assert shown.startswith(f"usage: minilima {verb} ")
    assert all(name in shown for name in parser.options) and all(item.help for item in parser.options.values())
    assert len(parser.examples) == 2 and all(f"  {example}\n" in shown for example in parser.examples)
    for example in parser.examples:
        words = shlex.split(example.partition("|")[0])[1:]
        named = words.pop(0) if words[0] in build() else "run"
        build()[named].read(words, build())


def test_the_overview_lists_every_verb_and_is_what_help_and_no_arguments_show(capfd: pytest.CaptureFixture[str]) -> None:
    shown = []
    for arguments in ([], ["help"], ["--help"], ["-h"]):
        assert main(arguments) == 0
        shown.append(capfd.readouterr().out)
    assert len(set(shown)) == 1
    assert all(f"  {verb:<12}{parser.summary}\n" in shown[0] for verb, parser in build().items())
    assert shown[0].count("python -m minilima") == 1


def test_help_names_only_files_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for here in (tmp_path, ROOT):
        monkeypatch.chdir(here)
        named = re.findall(r"\S+/(?:index|settings)\.md|\S*conf(?=/<group>)", overview())
        assert len(named) == 3 and all(Path(name).exists() for name in named)


MISTAKES = [
    (["--experiment", "quickstart"], "Did you mean +experiment=quickstart?"),
    (["--experiment=quickstart"], "Did you mean +experiment=quickstart?"),
    (["+experiment=quickstart", "--dry-run"], "minilima plan +experiment=quickstart"),
    (["--dry-run"], "minilima plan +experiment=quickstart"),
    (["plan", "--dry-run", "+experiment=quickstart"], "leave --dry-run out"),
    (["quickstart"], "Did you mean +experiment=quickstart?"),
    (["plan", "quickstart"], "Did you mean +experiment=quickstart?"),
    (["lora"], "Did you mean sft=lora?"),
    (["sft"], "the options of sft are: full, lima, lora, qlora"),
    (["pln", "+experiment=quickstart"], "Did you mean plan?"),
    (["-m", "plan"], "A command comes first: minilima plan …"),
    (["help", "comparr"], "Did you mean help compare?"),
    (["--epochs", "2"], "sft.epochs=2"),
    (["plan", "--sft.learning-rate=1e-4"], "sft.learning_rate=1e-4"),
    (["--model", "llama3_1b"], "Did you mean model=llama3_1b?"),
    (["sft.epochs"], "Write sft.epochs=…"),
    (["plan", "--jsn"], "Did you mean --json?"),
    (["plan", "--cfg", "job"], "an option of: run"),
    (["--cfg", "jb"], "Did you mean --cfg job?"),
    (["--cfg", "job", "+experiment=quickstrt"], "Did you mean quickstart?"),
    (["--cfg", "job", "--package", "sfft"], "There is no part sfft"),
    (["--cfg", "job", "-m"], "do not go together"),
    (["--package", "sft"], "belongs to --cfg"),
    (["--config-dir"], "--config-dir names no folder"),
    (["--config-dir", "nope", "+experiment=quickstart"], "There is no folder nope."),
    (["plan", "--config-dir=nope"], "There is no folder nope."),
    (["--config-dir", "nope", "--cfg", "job"], "There is no folder nope."),
    (["--config-dir", "."], ". has no configuration group"),
    (["plan", "+sft.epochs=1"], "Write it without '+': sft.epochs=…"),
    (["plan", "-m", "+sft.epochs=1,2"], "Write it without '+': sft.epochs=…"),
    (["plan", "~sft.epochs"], "Every setting has a value"),
    (["plan", "~experiment"], "It was not chosen"),
    (["plan", "~sft.epoch"], "Did you mean sft.epochs?"),
    (["plan", "sfft@x=lora"], "Did you mean sft?"),
    (["plan", "sft=null"], "sft=null names no option"),
    (["plan", "=3"], "=3 names no option"),
    (["plan", "-m", "sft=null,lora"], "sft=null names no option"),
    (["plan", "-m", "sft=glob(no*)"], "The options of sft are: full, lima, lora, qlora"),
    (["plan", "-m", "sft.epochs=glob(*)"], "sft.epochs is no group"),
    (["plan", "sft.epochs=choice(1,2)"], "gives several values"),
    (["plan", "name=${sed}"], "Did you mean ${seed}?"),
    (["plan", "name=${oc.env:NO_SUCH_NAME}"], "name reads the environment"),
    (["plan", "data.blocked_words=[a,'${oc.env:HOME}']"], "data.blocked_words reads the environment"),
    (["plan", "name='${oc.decode:${oc.env:HOME}}'"], "name reads the environment"),
    (["plan", "name='${oc.${oc.select:none,env}:HOME}'"], "it reads the environment"),
    (["plan", "endpoints.judge.base_url='http://h/v1?api_key=abc'"], "endpoints.judge.base_url holds api_key"),
    (["plan", "endpoints.judge.base_url='http://me:word@h/v1'"], "endpoints.judge.base_url holds a user or a password"),
    (["store"], "none of ls, gc, verify"),
    (["store", "verfy"], "Did you mean store verify?"),
    (["store", "ls", "--yes"], "--yes belongs to gc"),
    (["export", "data"], "no folder"),
    (["compare"], "no folder"),
    (["compare", "runs", "--format", "jsn"], "Did you mean --format json?"),
    (["agreement", "--labels"], "--labels names no file"),
    (["agreement", "--size", "few"], "--size must be a whole number, not 'few'"),
    (["fetch", "now"], "There is no packaged model 'now'"),
    (["doctor", "--fix"], "doctor --help"),
]


@pytest.mark.parametrize(("arguments", "named"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_on_the_command_line_has_three_parts_and_names_what_was_meant(
    tmp_path: Path, arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MinilimaError) as raised:
        execute(arguments)
    error = raised.value
    assert all(part.strip() for part in (error.what, error.why, error.fix))
    assert named in str(error)
    assert main(arguments) == 1
    captured = capfd.readouterr()
    assert captured.out == "" and " ".join(captured.err.split()) == " ".join(str(error).split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "listed"),
    [
        (["+experiment=mystdy"], ("mystudy, own_examples", "Did you mean mystudy?")),
        (["sft=gentl"], ("full, gentle, lima", "Did you mean gentle?")),
        (["-m", "sft=gentl,full"], ("full, gentle, lima", "Did you mean gentle?")),
        (["--cfg", "job", "sft=gentl"], ("full, gentle, lima", "Did you mean gentle?")),
        (["mystudy"], ("Did you mean +experiment=mystudy?",)),
        (["--experiment", "mystudy"], ("Did you mean +experiment=mystudy?",)),
    ],
)
def test_a_typo_lists_the_options_in_the_users_own_folder_too(
    tmp_path: Path, arguments: list[str], listed: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("experiment/mystudy", "sft/gentle"):
        (tmp_path / "own" / name).parent.mkdir(parents=True)
        (tmp_path / "own" / f"{name}.yaml").write_text("{}\n")
    with pytest.raises(MinilimaError) as raised:
        execute([*arguments, "--config-dir", "own"])
    assert all(words in str(raised.value) for words in listed), str(raised.value)


def test_a_plan_shows_every_stage_without_torch_or_any_file(tmp_path: Path) -> None:
    code = (
        "import sys; from minilima.__main__ import main; "
        f"main(['plan', '+experiment=quickstart', 'paths.outputs={tmp_path / 'new'}']); "
        f"print(sorted({HEAVY | {'numpy', 'rapidfuzz', 'jinja2'}!r} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for role in ("base", "pool", "dataset", "model", "base_answers", "answers", "verdicts", "9 stages to build"):
        assert role in result.stdout
    assert result.stdout.strip().endswith("[]")
    assert not (tmp_path / "new").exists()


def test_a_sweep_is_planned_as_a_whole(tmp_path: Path, minilima_here: Callable[..., Any]) -> None:
    result = minilima_here(
        "plan", "-m", "+experiment=quickstart", "dataset.size=10,20", "sft.learning_rate=1e-5,1e-4", cwd=tmp_path
    )
    assert "4 points, 22 stages, 22 to build" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["sft.learning_rte=1"], "Did you mean sft.learning_rate"),
        (["+sft.learning_rte=1"], "Did you mean sft.learning_rate"),
        (["+experiment=lima_1k"], "$OPENAI_API_KEY is not set"),
        (["seeds=file"], "seeds.path"),
        (["seeds.path=nowhere.jsonl"], "no file nowhere.jsonl"),
        (["model.path=/nowhere"], "no model in /nowhere"),
        (["data=file", "data.path=nowhere.json"], "no file nowhere.json"),
        (["-m", "+experiment=quickstart", "sft.epochs=1,x"], "sft.epochs"),
    ],
)
def test_what_is_wrong_is_said_in_one_paragraph(
    tmp_path: Path, arguments: list[str], named: str, minilima_here: Callable[..., Any]
) -> None:
    assert named in " ".join(refused(minilima_here(*arguments, cwd=tmp_path)).split())
    assert not (tmp_path / "outputs" / "store" / ".work").exists(), "nothing was started"


def test_without_a_key_the_overrides_that_run_it_locally_are_named_and_compose(
    tmp_path: Path, minilima_here: Callable[..., Any]
) -> None:
    paragraph = " ".join(refused(minilima_here("+experiment=lima_1k", cwd=tmp_path)).split())
    local = paragraph.rpartition("with: ")[2].split()
    config = load_config(["+experiment=lima_1k", *local])
    assert resolve(config).missing() == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, minilima_here: Callable[..., Any]) -> None:
    (tmp_path / "occupied").write_text("a file")
    paragraph = refused(minilima_here("+experiment=quickstart", f"paths.outputs={tmp_path / 'occupied'}"))
    assert "occupied" in paragraph and "paths.outputs=" in paragraph


@pytest.mark.parametrize(
    ("content", "named"),
    [('{"id": \n', "Line 1"), ('{"id": "a", "instruction": "x y z"}\n', "instances"), ("", "no seed task")],
)
def test_a_bad_seed_file_is_named_and_nothing_is_lost(
    tmp_path: Path, tiny_model: Path, content: str, named: str, minilima_here: Callable[..., Any]
) -> None:
    (tmp_path / "seeds.jsonl").write_text(content)
    result = minilima_here("seeds.path=seeds.jsonl", f"model.path={tiny_model}", "until=pool", "tracking=none", cwd=tmp_path)
    assert named in refused(result)


def test_an_empty_evaluation_set_is_found_before_anything_is_built(tmp_path: Path, minilima_here: Callable[..., Any]) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    result = minilima_here("eval_set=file", "eval_set.path=empty.jsonl", cwd=tmp_path)
    assert "is empty" in refused(result)
    assert not (tmp_path / "outputs").exists()


def test_a_damaged_store_entry_is_named(tmp_path: Path, minilima_here: Callable[..., Any]) -> None:
    config = load_config(["+experiment=quickstart"])
    pool = stages(config, resolve(config))["pool"]
    (tmp_path / "outputs" / "store" / pool.directory).mkdir(parents=True)
    assert "is damaged" in refused(minilima_here("+experiment=quickstart", cwd=tmp_path))


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    code = (
        "import errno, sys; from minilima import __main__, pipeline\n"
        "def full(*_): raise OSError(errno.ENOSPC, 'No space left on device', 'instances.jsonl')\n"
        "pipeline.resolve = full\n"
        "sys.exit(__main__.main(['until=pool']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "The disk is full: instances.jsonl" in refused(result)


def test_a_command_of_hydras_own_still_works(tmp_path: Path) -> None:
    result = minilima("--cfg", "job", "+experiment=quickstart", cwd=tmp_path)
    assert result.returncode == 0 and "learning_rate: 0.0001" in result.stdout, result.stderr


def test_the_name_of_a_secret_stands_in_a_run_and_its_value_does_not(tmp_path: Path, tiny_model: Path) -> None:
    rows = "".join(f'{{"instruction": "Say {n} times yes", "output": "yes {n}"}}\n' for n in range(4))
    (tmp_path / "data.jsonl").write_text(rows)
    arguments = ["data=file", "data.path=data.jsonl", f"model.path={tiny_model}", "until=dataset", "judge=cot"]
    result = minilima(*arguments, cwd=tmp_path, OPENAI_API_KEY="sk-very-secret", WANDB_MODE="offline")
    assert result.returncode == 0, result.stderr
    written = [file for file in (tmp_path / "outputs").rglob("*") if file.is_file()]
    assert any(file.name == "run.json" and "OPENAI_API_KEY" in file.read_text() for file in written)
    assert not any(b"sk-very-secret" in file.read_bytes() for file in written)
    assert "sk-very-secret" not in result.stdout + result.stderr


def test_a_second_run_reuses_everything_without_torch_and_a_changed_rate_only_what_precedes_the_model(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    work_here(monkeypatch)
    rows = "".join(f'{{"instruction": "Say {n} times yes", "output": "yes {n}"}}\n' for n in range(8))
    (tmp_path / "data.jsonl").write_text(rows)
    arguments = [
        "data=file", "data.path=data.jsonl", f"model.path={tiny_model}", "compute=cpu", "sft.epochs=1", "sft.batch_size=4",
        "eval.max_tokens=8", "eval_set.size=3", "judge.embedding_weight=0", "tracking=none", "name=tiny",
    ]  # fmt: skip
    assert main(arguments) == 0
    first = capfd.readouterr().out
    assert "Win rate" in first and "Loss change" in first
    code = f"import sys; from minilima.__main__ import main; main({arguments!r}); print(sorted({HEAVY!r} & set(sys.modules)))"
    second, again = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path) for _ in range(2)
    )
    assert "Everything was reused" in second.stdout and "torch" not in second.stdout.splitlines()[-1]
    assert again.stdout.strip().endswith("[]"), "nothing is drawn again, and nothing computed"
    assert main([*arguments, "sft.learning_rate=1e-3"]) == 0
    third = capfd.readouterr().out
    reused = [line.split()[0] for line in third.splitlines() if line.split()[1:2] == ["reused"]]
    assert reused == ["pool", "dataset", "base_answers"]
    assert main(["plan", *arguments, "sft.epochs=2", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    planned = {stage["role"]: stage for stage in told["stages"]}
    assert planned["pool"]["status"] == "reuse" and planned["pool"]["needs"]["seconds"] is None
    assert planned["model"]["needs"]["seconds"] > 0 and planned["answers"]["needs"]["seconds"] > 0, "as in the runs above"
    half = sum(file.stat().st_size for file in tiny_model.glob("*.safetensors")) // 2
    assert told["needs"]["disk_bytes"] == half, "float32 weights are kept in bfloat16"
    frame = to_frame(results(tmp_path / "outputs" / "runs"))
    assert sorted(frame["sft.learning_rate"]) == [1e-5, 1e-3] and frame["prompts"].tolist() == [3, 3]
    assert {"point", "win_rate", "win_rate_low", "loss_change", "tokens", "usd", "seconds"} <= set(frame.columns)


def annotations(folder: Path, model: str, wins: int, count: int = 40) -> str:
    rows = [
        {
            "instruction": f"Say {number}", "output_1": "a" * (number + 5), "output_2": "b" * (number * 7 % 40 + 1),
            "generator_1": "base", "generator_2": model, "annotator": "a judge", "preference": 2 if number < wins else 1,
        }
        for number in range(count)
    ]  # fmt: skip
    path = folder / f"{model}.json"
    path.write_text(json.dumps([*rows, {**rows[0], "instruction": "unread", "preference": None}]))
    return str(path)


def test_annotations_are_scored_and_compared_as_json_without_torch(tmp_path: Path) -> None:
    files = [annotations(tmp_path, name, wins) for name, wins in (("good", 30), ("poor", 10), ("same", 11))]
    code = f"import sys; from minilima.__main__ import main; main(['score', *{files!r}, '--json']); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, _, torch = result.stdout.strip().rpartition("\n")
    assert torch == "False"
    scores = json.loads(text)
    good = scores["runs"][0]
    assert (good["generator"], good["n_total"], good["n_unread"], good["win_rate"]) == ("good", 40, 1, 75.0)
    assert good["ci95"][0] < 75 < good["ci95"][1]
    assert good["length_controlled_win_rate"] is None and "baseline" in good["length_controlled_win_rate_how"]
    assert 0 < good["minimal_length_controlled_win_rate"] < 100
    pairs = {(pair["first"], pair["second"]): pair for pair in scores["pairs"]}
    assert pairs["good", "poor"]["difference"] == 50
    assert pairs["good", "poor"]["p_holm"] == pytest.approx(3 * pairs["good", "poor"]["p_bootstrap"])
    assert pairs["good", "poor"]["p_holm"] < 0.05 < pairs["poor", "same"]["p_holm"]


def test_scores_are_shown_as_tables(tmp_path: Path, minilima_here: Callable[..., Any]) -> None:
    result = minilima_here("score", annotations(tmp_path, "good", 30), annotations(tmp_path, "poor", 10))
    assert result.returncode == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "75.00 %, 95 % interval" in text and "40, and 1 not read" in text
    assert "good minus poor" in text and "+50.00 points" in text


def test_runs_of_different_judges_are_named_apart_and_not_compared(tmp_path: Path, minilima_here: Callable[..., Any]) -> None:
    file = Path(annotations(tmp_path, "m", 20))
    other = tmp_path / "other.json"
    other.write_text(file.read_text().replace("a judge", "another judge"))
    scores = json.loads(minilima_here("score", str(file), str(other), "--json").stdout)
    assert [run["name"] for run in scores["runs"]] == ["m (a judge)", "m (another judge)"]
    (pair,) = scores["pairs"]
    assert pair["difference"] is None and "different judges" in pair["reason"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "given no file"),
        (["a.json", "--jsn"], "no option --jsn"),
        (["nowhere.json"], "no file nowhere.json"),
        (["a.json", "--length-control"], "names no folder"),
        (["a.json", "--length-control=nowhere"], "no folder nowhere"),
    ],
)
def test_what_is_wrong_with_a_score_is_said_in_one_paragraph(
    tmp_path: Path, arguments: list[str], named: str, minilima_here: Callable[..., Any]
) -> None:
    assert named in " ".join(refused(minilima_here("score", *arguments, cwd=tmp_path)).split())


@pytest.mark.parametrize("action", ["gc", "ls", "verify"])
def test_a_folder_without_a_store_is_named_and_stays_empty(
    tmp_path: Path, action: str, minilima_here: Callable[..., Any]
) -> None:
    result = minilima_here("store", action, cwd=tmp_path)
    assert result.returncode == 0 and f"There is no store in {tmp_path}" in " ".join(result.stdout.split()).replace("/ ", "/")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_of_nothing_shows_help(tmp_path: Path, minilima_here: Callable[..., Any]) -> None:
    result = minilima_here("-m", cwd=tmp_path)
    assert result.returncode == 0 and "commands (minilima COMMAND --help" in result.stdout and list(tmp_path.iterdir()) == []
