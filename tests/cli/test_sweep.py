"""Sweeps: points expand as Hydra would, share what they can, fail alone, and the same command resumes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from minilima.__main__ import main
from minilima.cli import sweep
from minilima.cli.sweep_folder import Entry
from minilima.config.compose import load_config
from minilima.config.sweep_grid import expand
from minilima.errors import MinilimaError
from minilima.report.runs import find_runs
from tests.cli.test_commands import minilima, refused
from tests.generate.test_pool import writer
from tests.models.test_whole_runs import work_here
from tests.server import VALID_KEY, ModelServer


@pytest.mark.parametrize(
    "overrides",
    [
        ["+experiment=quickstart", "dataset.size=10,null", "sft.learning_rate=1e-5,2"],
        ["sft=full,lora", "sft.epochs=1,2", "seed=range(0,3)"],
        ["data.blocked_words=[a,b],[]", "until=pool,dataset"],
        ["+sweep=size_lr", "dataset.size=8,9", "name='a','b'"],
        ["+experiment=follows", "seed=1,2"],
    ],
)
def test_points_are_what_hydra_composes(tmp_path: Path, overrides: list[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "follows.yaml").write_text("# @package _global_\nname: seed-${seed}\n")
    points = expand(overrides, str(tmp_path)).points
    assert len(points) > 1
    for point in points:
        assert point.config == load_config(point.overrides, config_dir=str(tmp_path))


def test_a_sweeps_file_gives_the_axes_and_the_command_line_wins() -> None:
    assert len(expand(["+sweep=size_lr"]).points) == 9
    found = expand(["+experiment=quickstart", "+sweep=size_lr", "sft.learning_rate=1e-4", "dataset.size=16,8"])
    assert [(point.config.dataset.size, point.config.sft.learning_rate) for point in found.points] == [(16, 1e-4), (8, 1e-4)]
    assert found.varied == ("dataset.size",)
    assert found.points[0].axes == {"dataset.size": "16"}


def test_a_sweep_of_the_users_own_is_found(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text("# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: 1,2\n")
    assert [point.config.seed for point in expand(["+sweep=mine"], str(tmp_path)).points] == [1, 2]


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["sft.epochs=1,x"], "sft.epochs"),
        (["sft.epochs=1,0"], "at least 1"),
        (["sft.epoch=1,2"], "Did you mean sft.epochs"),
        (["sft=full,loraa"], "There is no sft=loraa"),
        (["+sweep=size"], "There is no sweep=size"),
        (["+sweep=optuna_lr"], "minilima[optuna]"),
        (["hydra/launcher=ray"], "minilima[ray]"),
        (["hydra/launcher=slurm"], "joblib, optuna, ray, submitit_local"),
        (["hydra/launcher=joblib", "hydra.launcher.njobs=2"], "--cfg hydra --package hydra.launcher"),
        (["sft.learning_rate=interval(1e-5,1e-4)"], "hydra/sweeper=optuna"),
    ],
)
def test_a_mistake_in_one_point_is_named(overrides: list[str], named: str) -> None:
    with pytest.raises(MinilimaError) as caught:
        expand(overrides)
    assert named in str(caught.value)


def test_several_values_without_a_sweep_are_explained() -> None:
    with pytest.raises(MinilimaError, match=r"dataset\.size=10,20 gives several values.* -m"):
        load_config(["dataset.size=10,20"])


def test_a_hundred_points_are_planned_with_each_stage_once_and_without_torch(tmp_path: Path) -> None:
    sizes, rates = (",".join(str(number) for number in numbers) for numbers in (range(10, 20), range(1, 11)))
    arguments = ["plan", "+sweep=size_lr", "+experiment=quickstart", f"dataset.size={sizes}", f"sft.learning_rate={rates}"]
    code = (
        f"import sys; from minilima.__main__ import main; main({[*arguments, f'paths.outputs={tmp_path}']!r}); "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "quickstart-size_lr: 100 points, 414 stages, 414 to build" in result.stdout
    assert "100 times: the tuned model" in result.stdout and "(for all points)" in " ".join(result.stdout.split())
    assert result.stdout.strip().endswith("False")
    assert list(tmp_path.iterdir()) == []


def sweep_json(folder: Path) -> dict[str, object]:
    (file,) = (folder / "sweeps").glob("*/sweep.json")
    told: dict[str, object] = json.loads(file.read_text())
    return told


def statuses(folder: Path) -> list[str]:
    points = sweep_json(folder)["points"]
    assert isinstance(points, list)
    return [point["status"] for point in points]


def test_a_failed_point_is_named_the_others_run_and_the_same_command_runs_only_what_is_missing(
    tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    work_here(monkeypatch)
    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)
    server.answer = writer
    arguments = [
        "-m", "generator=openai", "generator.model=novice,writer-small", f"endpoints.generator.base_url={server.url}",
        "data.instructions=4", "data.requests_per_round=1", "dataset.size=3,4", "until=dataset", "tracking=none",
        f"paths.outputs={tmp_path}",
    ]  # fmt: skip
    assert main(arguments) == 1
    first = capfd.readouterr()
    assert statuses(tmp_path) == ["failed", "failed", "done", "done"]
    text = " ".join(first.out.split())
    assert "2 of 4 points are done. This runs what is missing:" in text and " -m minilima -m generator=openai" in text
    assert "generator.model=novice dataset.size=3: " in text and "novice" in text.rpartition("dataset.size=3: ")[2]
    assert "Traceback" not in first.out + first.err

    server.models = (*server.models, "novice")
    server.requests.clear()
    assert main(arguments) == 0
    assert statuses(tmp_path) == ["done"] * 4
    assert {body["model"] for body in server.requests} == {"novice"}
    assert Counter(entry.name.partition("-")[0] for entry in (tmp_path / "store").glob("[a-z]*")) == {
        "pool": 2,
        "dataset": 4,
    }
    capfd.readouterr()
    assert main(arguments) == 0 and "started" not in capfd.readouterr().out


def test_ctrl_c_stops_a_sweep_at_once_and_the_same_command_goes_on(tmp_path: Path, server: ModelServer) -> None:
    server.answer, server.hold_after = writer, 3
    command = [
        sys.executable, "-m", "minilima", "-m", "generator=openai", "generator.model=writer-small", "data.instructions=4",
        f"endpoints.generator.base_url={server.url}", "data.requests_per_round=1", "endpoints.generator.concurrency=1",
        "seed=0,1", "until=pool", "tracking=none", f"paths.outputs={tmp_path}",
    ]  # fmt: skip
    environment = {**os.environ, "OPENAI_API_KEY": VALID_KEY}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite under nohup ignores it, and so would this
    )  # fmt: skip
    while len(server.requests) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "1 reply is in flight" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)  # the server would never answer it
    output, _ = process.communicate(timeout=600)
    server.hold_after = None
    assert process.returncode == 130
    assert statuses(tmp_path) == ["stopped", "missing"]
    assert shlex.join(command) in output.splitlines(), "the command to resume, unbroken"
    asked = Counter(json.dumps(body, sort_keys=True) for body in server.requests)

    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False, timeout=600).returncode == 0
    assert statuses(tmp_path) == ["done", "done"]
    again = Counter(json.dumps(body, sort_keys=True) for body in server.requests)
    assert sum(count > 1 for body, count in again.items() if body in asked) <= 1, "what was on its way, and no more"


def test_where_no_point_can_run_nothing_is_started(tmp_path: Path) -> None:
    paragraph = refused(minilima("-m", "+experiment=lima_1k", "dataset.size=10,20", f"paths.outputs={tmp_path}/new"))
    assert "OPENAI_API_KEY" in paragraph
    assert not (tmp_path / "new").exists()


SITE = """
import os, sys
if "minilima.run.worker" in sys.orig_argv:
    with open(os.environ["SEEN"], "a") as file:
        file.write(f"{sys.orig_argv[-1].split('/')[-3]} {os.environ['CUDA_VISIBLE_DEVICES']}\\n")
"""


def test_points_in_parallel_share_stages_and_lease_a_gpu_each(
    tmp_path: Path, tiny_model: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pretended GPUs: what torch cannot find it leaves alone, and computes on the CPU."""
    server.answer = writer
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    for name, value in {"PYTHONPATH": tmp_path / "site", "SEEN": tmp_path / "seen", "TMPDIR": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    result = minilima(
        "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "dataset.size=4,8", "until=answers",
        "generator=openai", "generator.model=writer-small", f"endpoints.generator.base_url={server.url}", "data.instructions=4",
        "data.requests_per_round=1", f"model.path={tiny_model}", "sft.epochs=1", "sft.batch_size=4", "eval.max_tokens=4",
        "eval_set.size=2", "judge.embedding_weight=0", "tracking=none", "name=tiny", f"paths.outputs={tmp_path}/out",
        OPENAI_API_KEY=VALID_KEY,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    entries = Counter(entry.name.partition("-")[0] for entry in (tmp_path / "out" / "store").glob("[a-z]*"))
    assert entries == {"pool": 1, "dataset": 2, "model": 2, "answers": 3}, "one pool, one data set a size, one reference"
    built = dict(line.split() for line in (tmp_path / "seen").read_text().splitlines())
    assert len(built) == len((tmp_path / "seen").read_text().splitlines()) == 8, "each stage had one process"
    leased = {directory: gpus for directory, gpus in built.items() if directory.startswith(("model", "answers"))}
    assert set(leased.values()) == {"0", "1"}
    assert built[next(name for name in built if name.startswith("pool"))] == "0,1", "nothing is leased to ask an endpoint"
    assert "Points run through joblib" in result.stdout and "dataset.size=8: done" in result.stdout

    (folder,) = (tmp_path / "out" / "sweeps").iterdir()
    assert {run.name for run in find_runs([folder])} == {run.name for run in (tmp_path / "out" / "runs").iterdir()}


def test_four_jobs_need_one_pool_and_the_builder_is_killed(tmp_path: Path, server: ModelServer) -> None:
    server.answer, server.hold_after = writer, 10
    command = [
        sys.executable, "-m", "minilima", "generator=openai", "generator.model=writer-small", "until=pool", "tracking=none",
        f"endpoints.generator.base_url={server.url}", "data.instructions=40", "data.requests_per_round=2",
        "endpoints.generator.concurrency=2", f"paths.outputs={tmp_path}",
    ]  # fmt: skip
    environment = {**os.environ, "OPENAI_API_KEY": VALID_KEY}

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    first = start()
    while len(server.requests) < 10:
        assert first.poll() is None
        time.sleep(0.01)
    others = [start() for _ in range(3)]
    first.kill()
    first.wait()
    server.hold_after = None
    outputs = [job.communicate(timeout=600)[0] for job in others]
    first.communicate()
    assert [job.returncode for job in others] == [0] * 3, outputs
    assert sum("built in" in output for output in outputs) == 1
    bodies = Counter(json.dumps(body, sort_keys=True) for body in server.requests)
    # What was on its way when the builder was killed had to be asked again; nothing else was.
    assert sum(bodies.values()) - len(bodies) <= 2
    assert len(list((tmp_path / "store").glob("pool-*"))) == 1


def test_a_sweep_ends_with_what_its_points_share_said_once(tmp_path: Path) -> None:
    entries = []
    for number, status in enumerate(("done", "done", "failed")):
        run = tmp_path / "runs" / f"point-{number}"
        run.mkdir(parents=True)
        (run / "run.json").write_text(json.dumps({"judge": "worth little"}))
        (run / "wandb.json").write_text(json.dumps({"url": None, "folders": [str(tmp_path / "wandb" / f"offline-{number}")]}))
        entries.append(Entry(overrides=(), run=f"../runs/point-{number}", status=status))
    (tmp_path / "sweep").mkdir()
    assert sweep._shared(tmp_path / "sweep", entries) == [
        ("Judge", "worth little"), ("W&B", f"recorded offline; to send it later: wandb sync {tmp_path / 'wandb'}"),
    ]  # fmt: skip
