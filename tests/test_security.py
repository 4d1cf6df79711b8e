"""A whole run with an endpoint that holds a key and with models that write what they can to do harm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minilima.report.wandb_view import make_workspace
from tests.server import VALID_KEY, ModelServer

HOSTILE = '</script><script>alert("owned")</script> \x1b]0;owned\x07\x1b[2J\u202e\u2028 <img src=x onerror=alert(1)> \ud800 '


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> "tuple[Path, subprocess.CompletedProcess[str]]":
    """The folder and the output of a run in which generator and judge answer with `HOSTILE`."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "tasks.jsonl").write_text("".join(f'{{"instruction": "Describe tree number {n}"}}\n' for n in range(6)))
    with ModelServer() as server:
        sent = HOSTILE.encode("utf-8", "replace").decode()
        server.answer = lambda body: f"{sent}{'x' * 20_000 if 'Output (a)' in str(body) else ''}\nOutput (b)"
        endpoints = [f"endpoints.{who}.base_url={server.url}" for who in ("generator", "judge")]
        arguments = [
            "data=answers", "data.path=tasks.jsonl", "generator=openai", "generator.model=writer-small", "judge=cot",
            "judge.model=writer-small", *endpoints, f"model.path={tiny_model}", "compute=cpu", "sft.epochs=1", "sft.batch_size=2",
            "sft.max_tokens=512", "eval.max_tokens=4", "eval_set.size=3", "dataset.include_seeds=false", "tracking=offline",
        ]  # fmt: skip
        result = subprocess.run(
            [sys.executable, "-m", "minilima", *arguments],
            capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, "OPENAI_API_KEY": VALID_KEY}, timeout=600,
        )  # fmt: skip
    return folder, result


def test_a_key_is_in_nothing_that_a_run_writes_or_prints(ran: "tuple[Path, subprocess.CompletedProcess[str]]") -> None:
    folder, result = ran
    assert result.returncode == 0, result.stdout + result.stderr
    written = [file for file in (folder / "outputs").rglob("*") if file.is_file()]
    names = {file.suffix for file in written}
    assert {".sqlite", ".html", ".json", ".jsonl", ".yaml", ".wandb", ".safetensors"} <= names
    assert [file for file in written if VALID_KEY.encode() in file.read_bytes()] == []
    assert VALID_KEY not in result.stdout + result.stderr


def test_what_models_write_cannot_drive_the_terminal_or_the_report(
    ran: "tuple[Path, subprocess.CompletedProcess[str]]",
) -> None:
    folder, result = ran
    assert "\x1b" not in result.stdout + result.stderr and "\x07" not in result.stdout
    (report,) = (folder / "outputs" / "runs").glob("*/report.html")
    page = report.read_text(encoding="utf-8")
    assert "owned" in page  # it is shown
    assert '<script>alert("owned")' not in page and "<img src=x" not in page


def test_a_sweeps_view_in_wandb_shows_its_own_experiments_alone() -> None:
    view = make_workspace("quickstart-size_lr-1a2b3c4d", "minilima", "team", ["dataset.size"])
    text = str(view._to_model())
    assert "quickstart-size_lr-1a2b3c4d" in text and "experiment" in text
    assert "config:dataset.value.size" in text and "win_rate/win_rate/value" in text
