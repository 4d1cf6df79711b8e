"""The store: complete or absent, built once, never trusted when damaged."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from minilima.errors import MinilimaError
from minilima.formats.files import sha256_text
from minilima.store.entries import Store
from minilima.store.job import SCRATCH, Outcome, Stage


def stage(**recipe: object) -> Stage:
    return Stage(name="pool", version=1, recipe=recipe)


def build_hello(work: Path) -> Outcome:
    (work / "hello.txt").write_text("hello")
    (work / SCRATCH / "notes").write_text("not published")
    return Outcome(metrics={"words": 1})


def test_the_second_time_nothing_is_built(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.get_or_build(stage(a=1), build_hello).how == "built"

    def never(work: Path) -> Outcome:
        raise AssertionError("built again")

    again = store.get_or_build(stage(a=1), never)
    assert (again.how, again.metrics, (again.path / "hello.txt").read_text()) == ("reused", {"words": 1}, "hello")
    assert not (again.path / SCRATCH).exists()


def test_an_unset_field_does_not_change_a_key_and_a_set_one_does() -> None:
    assert stage(a=1).key == stage(a=1, new_option=None).key != stage(a=1, new_option=2).key


def test_a_key_covers_the_inputs_and_the_version() -> None:
    one = Stage(name="model", version=1, recipe={}, inputs={"dataset": stage(a=1)})
    two = Stage(name="model", version=1, recipe={}, inputs={"dataset": stage(a=2)})
    three = Stage(name="model", version=2, recipe={}, inputs={"dataset": stage(a=1)})
    assert len({one.key, two.key, three.key}) == 3


def test_a_failed_build_leaves_no_result_and_its_work_is_found_again(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(work: Path) -> Outcome:
        (work / SCRATCH / "half").write_text("done")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        store.get_or_build(stage(), fail)
    assert store.find(stage()) is None

    def resume(work: Path) -> Outcome:
        assert (work / SCRATCH / "half").read_text() == "done"
        return Outcome(metrics={})

    assert store.get_or_build(stage(), resume).how == "built"


@pytest.mark.parametrize("damage", ["change", "cut", "delete", "manifest", "outside"])
def test_a_damaged_entry_is_named_with_the_command_that_removes_it(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    path = store.get_or_build(stage(), build_hello).path
    match damage:
        case "change":
            (path / "hello.txt").write_text("hullo")
        case "cut":
            (path / "hello.txt").write_text("he")
        case "delete":
            (path / "hello.txt").unlink()
        case "outside":
            manifest = json.loads((path / "manifest.json").read_text())
            manifest["files"]["../elsewhere.txt"] = {"bytes": 5, "sha256": sha256_text("hello")}
            (path / "manifest.json").write_text(json.dumps(manifest))
            (path.parent / "elsewhere.txt").write_text("hello")
        case "manifest":
            (path / "manifest.json").write_text('{"files": ')
    said = {"change": "contents of hello.txt have changed", "cut": "hello.txt has 2 bytes", "delete": "hello.txt is missing"}
    said["outside"] = "outside of it"
    with pytest.raises(MinilimaError, match=rf"is damaged.*{said.get(damage, 'manifest.json cannot be read')}.*rm -r"):
        store.find(stage())


def test_a_manifest_tells_where_a_result_comes_from(tmp_path: Path) -> None:
    path = Store(tmp_path).get_or_build(stage(a=1), build_hello).path
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["recipe"] == {"a": 1}
    assert manifest["files"]["hello.txt"]["bytes"] == 5
    for field in ("created_at", "host", "python", "packages", "git", "command", "seconds", "usage"):
        assert field in manifest


def _get(root: Path, hows: "multiprocessing.Queue[str]", seconds: float) -> None:
    def build(work: Path) -> Outcome:
        with (work / "builders").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        return Outcome(metrics={})

    hows.put(Store(root).get_or_build(stage(), build).how)


def test_eight_processes_build_once_also_when_the_first_builder_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    hows = context.Queue()
    first = context.Process(target=_get, args=(tmp_path, hows, 3600.0))
    first.start()
    builders = tmp_path / ".work" / stage().directory / "builders"
    while not (builders.exists() and builders.read_text().endswith("\n")):  # there before it is written
        time.sleep(0.01)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    others = [context.Process(target=_get, args=(tmp_path, hows, 0.5)) for _ in range(8)]
    for process in others:
        process.start()
    results = sorted(hows.get(timeout=600) for _ in others)
    for process in others:
        process.join()
    assert results.count("built") == 1
    assert len((tmp_path / stage().directory / "builders").read_text().split()) == 2  # the killed one, and one more
