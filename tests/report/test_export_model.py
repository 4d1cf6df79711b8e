"""The export of a tuned model: alpaca_eval loads its config and prompts the model exactly as we do."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minilima.cli.export import model_of
from minilima.config.choices import DeviceKind
from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.models.chat import ask
from minilima.models.local import LocalModel
from minilima.models.tokenizer import load_tokenizer
from minilima.pipeline import stages
from minilima.run.sources import resolve
from minilima.store.entries import Store
from minilima.store.job import Outcome
from tests.cli.test_commands import minilima, refused


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
    assert set(files) == {"configs.yaml", "prompt.txt", "reference_outputs.json"}
    ((name, settings),) = utils.load_configs(tmp_path / "out", relative_to=Path("/elsewhere")).items()
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


def test_the_command_exports(tmp_path: Path, built: list[str]) -> None:
    result = minilima("export", "alpaca_eval", str(tmp_path / "out"), *built, cwd=tmp_path)
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
        str(out), evaluation_dataset=str(out / "reference_outputs.json"), output_path=str(tmp_path / "theirs"),
        fn_metric="get_winrate", sort_by="win_rate", precomputed_leaderboard=None, Annotator=Judge,
    )  # fmt: skip
    (rows,) = judged
    assert len(rows) == 1
    (written,) = json.loads((tmp_path / "theirs" / "model_outputs.json").read_text())
    assert written["generator"].startswith("model-") and written["instruction"] == "Say yes"
