"""The export of a tuned model: alpaca_eval loads its config and prompts the model exactly as we do."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from minilima.cli.export import model_of
from minilima.config.choices import DeviceKind
from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.evaluate.length_control_tables import NO_TABLES
from minilima.evaluate.score import score
from minilima.models.chat import ask
from minilima.models.local import LocalModel
from minilima.models.tokenizer import load_tokenizer
from minilima.pipeline import stages
from minilima.run.sources import resolve
from minilima.store.entries import Store
from minilima.store.job import Outcome
from tests.cli.test_commands import minilima, refused
from tests.server import VALID_KEY, ModelServer


@pytest.fixture
def built(tmp_path: Path, tiny_model: Path) -> list[str]:
    """The overrides of an experiment whose model is in the store, and our answers with it."""
    overrides = [f"paths.outputs={tmp_path / 'outputs'}", "name=tiny", "eval.max_tokens=8", "eval.temperature=0.5"]
    config = load_config(overrides)
    graph, store = stages(config, resolve(config)), Store(tmp_path / "outputs" / "store")

    def model(work: Path) -> Outcome:
        shutil.copytree(tiny_model, work, dirs_exist_ok=True)
        return Outcome(metrics={})

    def answers(work: Path) -> Outcome:
        (work / "model_outputs.json").write_text(json.dumps([{"instruction": "Say yes", "output": "yes", "generator": "base"}]))
        return Outcome(metrics={})

    store.get_or_build(graph["model"], model)
    store.get_or_build(graph["base_answers"], answers)
    return overrides


def test_alpaca_eval_reads_the_config_and_prompts_the_model_as_we_do(tmp_path: Path, built: list[str]) -> None:
    import pandas
    from alpaca_eval import utils

    files = model_of(load_config(built), tmp_path / "out", "build it")
    assert set(files) == {
        "configs.yaml", "client.yaml", "chat.txt", "configs_local.yaml", "prompt.txt", "reference_outputs.json"
    }  # fmt: skip
    ((name, settings),) = utils.load_configs(tmp_path / "out" / "configs_local.yaml", relative_to=Path("/elsewhere")).items()
    arguments = settings["completions_kwargs"]
    assert name == Path(arguments["model_name"]).name and name.startswith("model-")
    assert (arguments["max_new_tokens"], arguments["temperature"], arguments["do_sample"]) == (8, 0.5, True)
    template = utils.read_or_return(settings["prompt_template"], relative_to=Path("/elsewhere"))
    rows = pandas.DataFrame([{"instruction": "Say {yes} twice"}])
    (prompt,), _ = utils.make_prompts(rows, template=template)
    ours = LocalModel(arguments["model_name"], "tiny", device=DeviceKind.cpu, batch=1)._prompt_ids(ask("Say {yes} twice"))
    assert load_tokenizer(arguments["model_name"])(prompt)["input_ids"] == ours


def test_what_is_not_built_is_named_with_the_command_that_builds_it(tmp_path: Path) -> None:
    with pytest.raises(MinilimaError, match="not built yet"):
        model_of(load_config([f"paths.outputs={tmp_path}"]), tmp_path / "out", "build it")
    assert not (tmp_path / "out").exists()
    paragraph = refused(minilima("export", "alpaca_eval", "out", "name=a", cwd=tmp_path))
    assert " ".join(paragraph.split()).endswith("minilima name=a until=model")


def test_the_command_exports(tmp_path: Path, built: list[str], minilima_here: Callable[..., Any]) -> None:
    result = minilima_here("export", "alpaca_eval", str(tmp_path / "out"), *built, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "evaluate_from_model" in result.stdout and (tmp_path / "out" / "configs.yaml").is_file()


def test_alpaca_eval_generates_with_the_exported_model(tmp_path: Path, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from alpaca_eval import evaluate_from_model
    from alpaca_eval.decoders import huggingface_local

    # Where there is no GPU, alpaca_eval 0.6.6 passes load_in_8bit, which transformers 5 has no more: it shall see one.
    seen = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True), backends=torch.backends, bfloat16=torch.bfloat16)
    monkeypatch.setattr(huggingface_local, "torch", seen)
    out = tmp_path / "out"
    model_of(load_config(built), out, "build it")
    judged: list[list[str]] = []

    class Judge:
        def __init__(self, **_: object) -> None: ...

        def annotate_head2head(self, outputs_1: Any, outputs_2: Any) -> list[dict[str, float]]:
            judged.append(list(outputs_2["output"]))
            return [{"preference": 2.0}]

    evaluate_from_model(
        str(out / "configs_local.yaml"), evaluation_dataset=str(out / "reference_outputs.json"),
        output_path=str(tmp_path / "theirs"),
        fn_metric="get_winrate", sort_by="win_rate", precomputed_leaderboard=None, Annotator=Judge,
    )  # fmt: skip
    (rows,) = judged
    assert len(rows) == 1
    (written,) = json.loads((tmp_path / "theirs" / "model_outputs.json").read_text())
    assert written["generator"].startswith("model-") and written["instruction"] == "Say yes"


def test_the_real_command_runs_whole_with_a_served_model_and_a_judge(
    tmp_path: Path, built: list[str], server: ModelServer
) -> None:
    """The lines of docs/howto/judge.md, model and judge at loopback: the leaderboard has our win rate, to the last digit."""
    out, count = tmp_path / "out", 66
    model_of(load_config([*built, f"compute.served_at=[{server.url}]"]), out, "build it")
    rows = [{"instruction": f"Say {number} twice", "output": f"It is {number}", "generator": "base"} for number in range(count)]
    (out / "reference_outputs.json").write_text(json.dumps(rows))
    name = str(next(iter(OmegaConf.load(out / "configs.yaml"))))

    server.models, server.keys = (name, "gpt-3.5-turbo-0301"), (VALID_KEY, "none")

    def answer(body: dict[str, Any]) -> str:
        text = str(body["messages"][-1]["content"])
        if body["model"] == name:
            return f"{text.split()[1]} and once more {text.split()[1]}"
        return "Output (a)" if sum(map(ord, text)) % 3 else "Output (b)"

    server.answer = answer
    page = (Path(__file__).parents[2] / "docs" / "howto" / "judge.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```bash\n(mkdir -p my_models.*?)```", page, re.DOTALL)
    lines = lines.replace("FOLDER", str(out)).replace("OPENAI_API_KEY=…", f"OPENAI_API_KEY={VALID_KEY}")
    where = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "OPENAI_BASE_URL": server.url, "PATH": where}
    done = subprocess.run(
        ["bash", "-ec", lines], cwd=tmp_path, capture_output=True, text=True, env=environment, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    written = json.loads((tmp_path / "results" / "model_outputs.json").read_text())
    assert [row["output"] for row in written] == [f"{number} and once more {number}" for number in range(count)]
    asked = [body for body in server.requests if body["model"] == name]
    assert [message["role"] for message in asked[0]["messages"]] == ["user"], "the server's own chat template does the rest"
    assert {(body["max_tokens"], body["temperature"]) for body in asked} == {(8, 0.5)}
    (annotations,) = (tmp_path / "results").rglob("annotations.json")
    (leaderboard,) = (tmp_path / "results").rglob("leaderboard.csv")
    (theirs,) = [row for row in csv.DictReader(leaderboard.open()) if row[""] == name]
    (ours,) = score([annotations], NO_TABLES).runs
    assert 0 < ours.win_rate.wins < count
    assert (ours.win_rate.win_rate.value, ours.win_rate.standard_error) == (
        float(theirs["win_rate"]),
        float(theirs["standard_error"]),
    )
