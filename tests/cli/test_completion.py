"""Completion: the words that may stand where a line ends, and the script for bash as bash itself runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from minilima.__main__ import main
from minilima.cli.commands import build
from minilima.cli.completion import SCRIPTS, complete


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("minilima pl", ["plan"]),
        ("minilima plan +exp", ["+experiment="]),
        ("minilima -m +experiment=quick", ["+experiment=quickstart"]),
        ("minilima sft=l", ["sft=lima", "sft=lora"]),
        ("minilima plan sft=full sft.learning", ["sft.learning_rate="]),
        ("minilima endpoints.judge.bud", ["endpoints.judge.budget."]),
        ("minilima compute.compile=", ["compute.compile=false", "compute.compile=true"]),
        ("minilima -m sft.schedule=linear,co", ["sft.schedule=linear,cosine", "sft.schedule=linear,constant"]),
        ("minilima -m sft=full,l", ["sft=full,lima", "sft=full,lora"]),
        ("minilima store g", ["gc"]),
        ("minilima export ", ["alpaca_eval", "data", "model"]),
        ("minilima compare out", []),
        ("minilima sft.no_such.", []),
        ("minilima sft.epochs=", []),
        ("minilima plan --js", ["--json"]),
        ("minilima compare outputs/runs --format ", ["table", "markdown", "csv", "json"]),
        ("minilima compare outputs/runs --ht", ["--html"]),
        ("minilima export data out sft=l", ["sft=lima", "sft=lora"]),
        ("minilima export data ", []),
        ("minilima store gc --yes paths.out", ["paths.outputs="]),
        ("minilima --cf", ["--cfg"]),
        ("minilima --cfg ", ["job", "hydra", "all"]),
        ("minilima help comp", ["compare", "completion"]),
        ("minilima completion ", ["bash", "fish", "zsh"]),
    ],
)
def test_a_line_is_completed(line: str, expected: list[str]) -> None:
    assert complete(line, build()) == expected


def test_the_users_own_options_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert complete("minilima plan --config-dir own +experiment=mi", build()) == ["+experiment=mine"]
    assert complete("minilima plan --config-dir ", build()) == []


def test_an_empty_line_offers_commands_groups_and_sections() -> None:
    found = complete("minilima ", build())
    assert {*build(), "judge=", "judge.", "+experiment=", "seed="} <= set(found)
    assert not {"plan", "run"} & set(complete("minilima plan ", build())), "one command is enough"


def test_bash_shows_what_is_missing_behind_the_equals_sign(tmp_path: Path) -> None:
    program = tmp_path / "minilima"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m minilima "$@"\n')
    program.chmod(0o755)
    lines = ["minilima plan sft=lo", "minilima plan +exp", "minilima pl", "minilima sft=l"]
    words = " ".join(f"'{line}'" for line in lines)
    code = (
        f'PATH="{tmp_path}:$PATH"; eval "$(minilima completion bash)"\n'
        f'for COMP_LINE in {words}; do COMP_POINT=${{#COMP_LINE}}; _minilima; printf "[%s]" "${{COMPREPLY[@]}}"; echo; done\n'
        f'COMP_LINE="{sys.executable} -m minilima plan sft=lo"; COMP_POINT=${{#COMP_LINE}}; rm "{program}"\n'
        '_minilima_module; printf "[%s]" "${COMPREPLY[@]}"; echo; complete -p python'
    )
    shown = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    *several, module, registered = shown.stdout.splitlines()
    assert several == ["[lora ]", "[+experiment=]", "[plan ]", "[lima][lora]"], shown.stderr
    assert module == "[lora ]" and "-F _minilima_module python" in registered


def test_every_shell_has_a_script_and_others_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    for shell in SCRIPTS:
        assert main(["completion", shell]) == 0
        assert "completion query" in capfd.readouterr().out
    assert main(["completion", "tcsh"]) == 1
    assert "bash, fish, zsh" in " ".join(capfd.readouterr().err.split())
