"""W&B: what an offline run wrote, read back record by record with W&B's own protocol."""

import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from minilima.config.compose import load_config, to_dict
from minilima.formats.files import write_jsonl
from minilima.report import wandb
from minilima.report.run_folder import StageNote, source_files
from minilima.report.summary import Summary
from minilima.report.wandb_record import record
from minilima.run.sources import resolve

KEYS = {"pool": "1" * 16, "dataset": "2" * 16, "model": "3" * 16, "verdicts": "4" * 16}
BLOCK = 32768


def records(folder: Path) -> Iterator[Any]:
    """The records of a W&B run: a LevelDB log of protocol buffers behind seven bytes."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("*.wandb")
    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            read = wandb_internal_pb2.Record()
            read.ParseFromString(parts)
            yield read
            parts = b""


def seen(folder: Path) -> dict[str, Any]:
    """A W&B run as nested values: run, history rows, summary, artifacts."""
    found: dict[str, Any] = {"history": [], "summary": {}, "artifacts": []}
    for item in records(folder):
        kind = item.WhichOneof("record_type")
        if kind == "run":
            found["run"] = item.run
        elif kind == "history":
            found["history"].append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in item.history.item})
        elif kind == "summary":
            found["summary"] |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in item.summary.update}
        elif kind == "request" and item.request.HasField("log_artifact"):
            found["artifacts"].append(item.request.log_artifact.artifact)
        elif kind == "artifact":
            found["artifacts"].append(item.artifact)
    return found


def stage(outputs: Path, name: str, inputs: dict[str, str], metrics: dict[str, Any]) -> Path:
    folder = outputs / "store" / f"{name}-{KEYS[name]}"
    folder.mkdir(parents=True)
    rows: dict[str, tuple[str, list[dict[str, Any]]]] = {
        "pool": ("instructions.jsonl", [{"instruction": "Name a tree."}]),
        "dataset": ("dataset.jsonl", [{"id": "a", "instruction": "Name a tree.", "output": "Oak.", "source": "seed"}]),
        "model": ("training_log.jsonl", [{"step": n, "loss": 2.0 / n, "learning_rate": 0.1} for n in (1, 2)]),
        "verdicts": ("verdicts.jsonl", [{"id": "q", "preference": 2.0, "orders": [2.0, 2.0], "explanation": "better"}]),
    }
    write_jsonl(folder / rows[name][0], rows[name][1])
    files: dict[str, Any] = {rows[name][0]: {}}
    if name == "model":
        (folder / "model.safetensors").write_bytes(b"\0" * 100_000)
        files["model.safetensors"] = {}
    manifest = {
        "stage": name, "key": KEYS[name], "recipe": {"learning_rate": 0.1}, "inputs": inputs, "metrics": metrics,
        "usage": {"calls": 3}, "seconds": 1.5, "packages": {}, "files": files,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("tracked") / "outputs"
    config = to_dict(load_config(["name=tracked", "tracking=offline", "tracking.group=a-sweep", "eval_set=minilima_100"]))
    before: dict[str, str] = {}
    stages = []
    for name, metrics in {
        "pool": {"tasks": 1},
        "dataset": {"examples": 1},
        "model": {"steps": 2},
        "verdicts": {"wins": 1},
    }.items():
        path = stage(outputs, name, dict(before), metrics)
        stages.append({"role": name, "directory": path.name, "path": f"../../store/{path.name}", "metrics": metrics, "usage": {}})
        before = {name: path.name}
    found = resolve(load_config(["eval_set=minilima_100"]))
    sources = json.loads(
        json.dumps([asdict(file) for file in source_files(found, {"pool": StageNote(outcome="", files=("seeds",))})])
    )
    interval = {"win_rate": {"value": 60.0, "low": 40.0, "high": 80.0}}
    for point in ("tracked-aaaa", "tracked-bbbb"):
        folder = outputs / "runs" / point
        folder.mkdir(parents=True)
        told = {"name": "tracked", "config": config, "sources": sources, "stages": stages, "results": {"win_rate": interval}}
        (folder / "run.json").write_text(json.dumps(told))
        record(folder, "offline")
    return outputs


def run_of(outputs: Path, name: str) -> dict[str, Any]:
    (folder,) = (outputs / "wandb").glob(f"offline-run-*-{name}")
    return seen(folder)


def test_an_experiment_holds_its_curve_its_tables_and_its_figures_with_their_intervals(outputs: Path) -> None:
    point = run_of(outputs, "tracked-aaaa")
    assert (point["run"].run_group, point["run"].job_type, point["run"].project) == ("a-sweep", "experiment", "minilima")
    curve = [(row["train/step"], row["train/loss"]) for row in point["history"] if "train/loss" in row]
    assert curve == [(1, 2.0), (2, 1.0)]
    figures = point["summary"]
    assert (figures["win_rate/win_rate/low"], figures["win_rate/win_rate/high"]) == (40.0, 80.0)
    (table,) = [row for row in point["history"] if "verdicts/nrows" in row]
    assert (table["verdicts/_type"], table["verdicts/nrows"], table["verdicts/ncols"]) == ("table-file", 1, 4)


def test_each_stage_is_a_job_type_with_its_directory_as_artifact_under_its_key_and_is_recorded_once(outputs: Path) -> None:
    for name, key in KEYS.items():
        recorded = run_of(outputs, f"{name}-{key}")  # one folder, though two points have the stage
        assert (recorded["run"].job_type, recorded["run"].run_group) == (name, "a-sweep")
        artifact = next(item for item in recorded["artifacts"] if item.type == name)
        assert key in artifact.aliases
        inputs = json.loads(artifact.metadata)["inputs"]
        assert inputs == {} if name == "pool" else next(iter(inputs.values())).endswith(str(int(key[0]) - 1) * 16)


def test_seeds_are_an_artifact_of_the_pool_and_weights_are_not_sent(outputs: Path) -> None:
    assert {item.type for item in run_of(outputs, f"pool-{KEYS['pool']}")["artifacts"]} == {"pool", "seeds"}
    (model,) = run_of(outputs, f"model-{KEYS['model']}")["artifacts"]
    files = {entry.path: entry for entry in model.manifest.contents}
    assert files["model.safetensors"].ref.startswith("file://") and not files["training_log.jsonl"].ref


def summary_of(outputs: Path, point: str = "tracked-aaaa") -> Summary:
    return Summary(name="tracked", folder=outputs / "runs" / point, stages=(), results=None, judge="")


def test_a_recorded_run_is_left_alone(outputs: Path) -> None:
    config = load_config(["tracking=offline"])
    assert wandb.track(summary_of(outputs), config).notes == ()


def test_an_outage_or_a_full_disk_costs_a_note_and_never_the_run(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = outputs / "runs" / "tracked-aaaa" / wandb.MARK
    mark.unlink()
    config = load_config(["tracking=offline"])
    real = sys.executable
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (note,) = wandb.track(summary_of(outputs), config).notes
    assert "not recorded" in note and "complete without it" in note
    monkeypatch.setattr(wandb, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(sys, "executable", real)
    (note,) = wandb.track(summary_of(outputs), config).notes
    assert "still being sent" in note


def test_a_server_that_does_not_answer_leaves_an_offline_record_at_once(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = outputs / "runs" / "tracked-bbbb" / wandb.MARK
    mark.unlink(missing_ok=True)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (note,) = wandb.track(summary_of(outputs, "tracked-bbbb"), load_config(["tracking=wandb"])).notes
    assert "recorded offline because its server did not answer" in note and "wandb sync" in note
    assert json.loads(mark.read_text())["mode"] == "offline"


def test_wandbs_own_variables_turn_it_off_and_name_the_project(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = outputs / "runs" / "tracked-bbbb" / wandb.MARK
    mark.unlink(missing_ok=True)
    config = load_config(["tracking=wandb"])
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb.track(summary_of(outputs, "tracked-bbbb"), config).notes == () and not mark.exists()
    assert wandb.project_of(config.tracking) == "minilima"
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    assert wandb.project_of(config.tracking) == "theirs"
    assert wandb.project_of(load_config(["tracking=wandb", "tracking.project=mine"]).tracking) == "mine", "a setting wins"
