"""A store that several users and processes look at while others build: modes, permissions, listings and leftovers."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minilima import console
from minilima.__main__ import main
from minilima.cli.doctor_store import cache_findings, store_findings
from minilima.cli.store_table import verify
from minilima.config.schema import BudgetConfig
from minilima.errors import MinilimaError, explain
from minilima.formats.files import new_folder, write_atomic
from minilima.models.budget import Budget
from minilima.report.runs import read_points
from minilima.store.debris import ABANDONED_SECONDS
from minilima.store.debris import interrupted as interrupted_builds
from minilima.store.entries import Store, checked_manifest, claimed, reservations, reserved
from minilima.store.gc import list_entries
from minilima.store.job import SCRATCH, Outcome, Stage

NOBODY = 65534


def stage(**recipe: object) -> Stage:
    return Stage(name="pool", version=1, recipe=recipe)


def build_private(work: Path) -> Outcome:
    """As libraries do that write through a temporary file: only the owner may read what they leave."""
    (work / "tokenizer").mkdir(mode=0o700)
    for name in ("model.safetensors", "tokenizer/tokenizer.json"):
        (work / name).write_text("weights")
        (work / name).chmod(0o600)
    return Outcome(metrics={})


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)])
def test_what_is_published_has_the_modes_of_the_umask(
    tmp_path: Path, umask: Callable[[int], int], mask: int, file: int, folder: int
) -> None:
    umask(mask)
    path = Store(tmp_path / "store").get_or_build(stage(), build_private).path
    with new_folder(tmp_path / "export") as aside:
        build_private(aside)
    for root in (path, tmp_path / "export"):
        files = [item for item in root.rglob("*") if item.is_file()]
        assert {item.stat().st_mode & 0o777 for item in files} == {file} and len(files) >= 2
        assert {item.stat().st_mode & 0o777 for item in (root, root / "tokenizer")} == {folder}


def test_a_group_can_lock_and_write_what_it_shares(tmp_path: Path, umask: Callable[[int], int]) -> None:
    umask(0o002)
    Store(tmp_path / "store").get_or_build(stage(), build_private)
    with reserved(tmp_path / "store", ["pool-1"]):
        Budget(tmp_path / "cache" / "replies.sqlite", "pool-1", BudgetConfig(), None)
        shared = [item for folder in ("store/.locks", "store/.reserved", "cache") for item in (tmp_path / folder).iterdir()]
        assert len(shared) >= 5
        assert {item.name: item.stat().st_mode & 0o060 for item in shared} == {item.name: 0o060 for item in shared}


def as_another_user(look: Callable[[], object]) -> str:
    """What a user who is neither root nor the owner sees when looking, or is told."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        try:
            said = str(look() or "nothing")
        except Exception as error:
            said = str(explain(error))
        os.write(write, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as told:
        return told.read()


@pytest.mark.parametrize("closed", [".", "manifest.json", "model.safetensors", "tokenizer"])
def test_an_entry_that_may_not_be_read_is_not_called_damaged(closed: str) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        path = Store(folder / "store").get_or_build(stage(), build_private).path
        (path / closed).chmod(0)
        said = as_another_user(lambda: Store(folder / "store").find(stage()))
        assert "no permission to read" in said and "chmod -R a+rX" in said
        assert "damaged" not in said and "rm -r" not in said
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def shared() -> Iterator[Path]:
    """The outputs of somebody else: two entries, one made from the other, and the run that uses them."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    Store(folder / "store").get_or_build(stage(), build_private)
    dataset = Stage(name="dataset", version=1, recipe={}, inputs={"pool": stage()})
    made = Store(folder / "store").get_or_build(dataset, build_private).path
    run = folder / "runs" / "one-0123abcd"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"stages": [{"directory": made.name}]}))
    Budget(folder / "cache" / "replies.sqlite", "pool-1", BudgetConfig(), None)
    yield folder
    subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
    shutil.rmtree(folder)


def close(outputs: Path, pattern: str) -> None:
    for item in outputs.glob(pattern):
        item.chmod(0)


@pytest.mark.parametrize(
    "closed", ["runs", "runs/*", "runs/*/run.json", "store", "store/dataset-*", "store/dataset-*/manifest.json"]
)
def test_what_may_not_be_read_never_counts_as_unused(shared: Path, closed: str) -> None:
    close(shared, closed)
    said = as_another_user(lambda: list_entries(shared))
    assert said.startswith("This user has no permission to read ") and "chmod -R a+rX" in said
    assert "rm -r" not in said


@pytest.mark.parametrize("closed", ["runs", "runs/*", "runs/*/run.json", "store/dataset-*"])
def test_a_run_that_may_not_be_read_is_not_called_unfinished_or_damaged(shared: Path, closed: str) -> None:
    run = shared / "runs" / "one-0123abcd"
    stages = [{"role": role, "path": str(path)} for role, path in (("verdicts", next((shared / "store").glob("dataset-*"))),)]
    (run / "run.json").write_text(json.dumps({"stages": stages}))
    close(shared, closed)
    said = as_another_user(lambda: read_points([shared / "runs"]))
    assert "This user has no permission to read " in said
    assert "chmod -R a+rX" in said and "Run them to the end" not in said
    assert "not a finished run" not in said and "damaged" not in said and "no longer exists" not in said


def test_entries_that_may_not_be_read_are_no_damaged_ones(shared: Path) -> None:
    close(shared, "store/dataset-*/model.safetensors")

    def look() -> object:
        said: list[str] = []
        console.say = said.append  # type: ignore[assignment]
        return f"{verify(shared / 'store')}: {said[-1]}"

    assert as_another_user(look) == "1: 1 entry hashed, 0 damaged, 1 could not be read."


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_doctor_looks_at_a_store_and_a_cache_that_it_may_not_write(shared: Path) -> None:
    cache = shared / "cache" / "replies.sqlite"

    def look() -> object:
        findings = [*store_findings(shared / "store", repair=True), *cache_findings(cache, shared / "store", repair=True)]
        return [(finding.name, finding.level.value, finding.says, finding.fix) for finding in findings]

    said = as_another_user(look)
    assert f"no permission to write {shared}/store/.locks/removing.lock" in said
    assert f"no permission to write {cache}" in said and "--repair" not in said and "damaged" not in said
    close(shared, "cache")
    close(shared, "store")
    said = as_another_user(look)
    assert f"no permission to read {shared}/cache" in said and f"no permission to read {shared}/store" in said


def test_a_reader_sees_what_a_running_experiment_of_somebody_else_has_reserved(shared: Path) -> None:
    with reserved(shared / "store", ["pool-1"]):
        assert "pool-1" in as_another_user(lambda: reservations(shared / "store"))


def test_a_disk_that_does_not_answer_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Store(tmp_path).get_or_build(stage(), build_private).path

    def fails(file: Path) -> str:
        raise OSError(5, "Input/output error", str(file))

    monkeypatch.setattr("minilima.store.entries.sha256_file", fails)
    with pytest.raises(MinilimaError, match=r"cannot be read just now.*Input/output error") as caught:
        checked_manifest(path)
    assert "rm -r" not in str(caught.value)


_BUILDS = """
import sys
from pathlib import Path
from minilima.store.entries import Store
from minilima.store.gc import remove
from minilima.store.job import Outcome, Stage

def fill(work):
    (work / "text.txt").write_text("x")
    return Outcome(metrics={})

root = Path(sys.argv[1])
print("ready", flush=True)
number = 0
while not (root / "enough").exists():
    path = Store(root).get_or_build(Stage(name="pool", version=1, recipe={"n": number}), fill).path
    if number % 2:
        remove(root, path)
    number += 1
print((number + 1) // 2)
"""


def test_listing_and_verifying_beside_builds_and_removals_never_fails(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    other = subprocess.Popen([sys.executable, "-c", _BUILDS, str(root)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "ready\n"
    for _ in range(100):
        list_entries(tmp_path)
    for _ in range(3):
        assert main(["store", "verify", f"paths.outputs={tmp_path}"]) == 0
    (root / "enough").touch()
    kept = int(other.communicate()[0])
    assert len(list_entries(tmp_path)) == kept > 0


def test_what_a_killed_process_was_writing_aside_is_never_published(tmp_path: Path) -> None:
    store = Store(tmp_path)
    work = store.work(stage())
    (work / "part").mkdir(parents=True)
    (work / ".pool.jsonl.4711").write_text("half")
    (work / "part" / ".x.json.12").write_text("half")

    def fill(work: Path) -> Outcome:
        assert not list(work.rglob(".*.*")), "cleared before the next build"
        (work / ".late.json.99").write_text("half")
        (work / "pool.jsonl").write_text("whole")
        return Outcome(metrics={})

    path = store.get_or_build(stage(), fill).path
    assert sorted(json.loads((path / "manifest.json").read_text())["files"]) == ["pool.jsonl"]
    assert sorted(item.name for item in path.iterdir()) == ["manifest.json", "part", "pool.jsonl"]


def test_halves_of_dead_processes_are_cleared_beside_the_file_that_is_written_next(tmp_path: Path) -> None:
    (tmp_path / ".memory.json.4711").write_text("half")
    (tmp_path / ".other.json.4711").write_text("not of this file")
    (tmp_path / ".export.4711").mkdir()
    (tmp_path / ".export.4711" / "data.json").write_text("half")
    write_atomic(tmp_path / "memory.json", "{}")
    with new_folder(tmp_path / "export") as aside:
        (aside / "data.json").write_text("[]")
    assert sorted(item.name for item in tmp_path.iterdir()) == [".other.json.4711", "export", "memory.json"]


def test_what_a_living_process_is_writing_aside_is_left_to_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from minilima.formats.files import new_folder\n"
        "with new_folder(Path(sys.argv[1])) as aside:\n"
        "    (aside / 'mine').touch(); print('ready', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "export")]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "ready\n"
    with pytest.raises(RuntimeError), new_folder(tmp_path / "export"):
        raise RuntimeError("fails")
    assert other.communicate("\n")[0] == "" and other.returncode == 0
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["export", "mine"]


def test_a_clock_that_was_set_back_makes_nothing_younger_than_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(work: Path) -> Outcome:
        monkeypatch.setattr(time, "time", lambda: 1.0)
        return build_private(work)

    path = Store(tmp_path / "store").get_or_build(stage(), fill).path
    assert json.loads((path / "manifest.json").read_text())["seconds"] >= 0
    assert [entry.age_seconds for entry in list_entries(tmp_path)] == [0.0]
    assert [build.age_seconds for build in interrupted_builds(tmp_path / "store")] == []
    interrupted(tmp_path, "model-0123456789abcdef", 0.0)
    assert [build.age_seconds for build in interrupted_builds(tmp_path / "store")] == [0.0]


def gc(outputs: Path, *options: str) -> int:
    return main(["store", "gc", *options, f"paths.outputs={outputs}"])


def interrupted(outputs: Path, name: str, age_seconds: float) -> Path:
    work = outputs / "store" / ".work" / name
    checkpoint = work / SCRATCH / "checkpoints" / "checkpoint-7"
    checkpoint.mkdir(parents=True)
    (work / SCRATCH / "job.json").write_text(json.dumps({"role": "model", "inputs": {}, "needs": []}))
    (checkpoint / "weights").write_bytes(b"x" * 2_000_000)
    for file in work.rglob("*"):
        changed = file.stat().st_mtime - age_seconds
        os.utime(file, (changed, changed))
    return work


def test_gc_shows_and_frees_what_the_killed_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console._out, "width", 200)
    root = tmp_path / "store"
    old = interrupted(tmp_path, "model-0123456789abcdef", ABANDONED_SECONDS + 10)
    young = interrupted(tmp_path, "model-fedcba9876543210", 3_700)
    (root / ".removed-pool-1").mkdir()
    (root / ".reserved").mkdir()
    (root / ".reserved" / "host-1-ab.lock").touch()
    (root / ".locks").mkdir()
    (root / ".locks" / "pool-1.lock").touch()
    assert gc(tmp_path) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert ".work/model-0123456789abcdef an interrupted build, 1 checkpoint 2.0 MB 7 d" in said
    assert ".work/model-fedcba9876543210 an interrupted build, 1 checkpoint 2.0 MB 1 h" in said
    assert "4 leftovers, 2.0 MB, could be freed; nothing was removed" in said
    assert old.is_dir() and (root / ".removed-pool-1").is_dir()
    assert gc(tmp_path, "--yes") == 0
    assert not old.exists() and young.is_dir()
    assert not (root / ".removed-pool-1").exists()
    assert sorted(file.name for file in root.rglob("*.lock")) == ["removing.lock"]
    assert gc(tmp_path, "--yes", "--unfinished") == 0
    assert not young.exists()


def test_gc_keeps_a_build_that_somebody_goes_on_with(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    work = interrupted(tmp_path, "model-0123456789abcdef", 2 * ABANDONED_SECONDS)
    with claimed(tmp_path / "store", work.name):
        assert gc(tmp_path, "--yes", "--unfinished") == 0
    assert work.is_dir()


def test_reservations_are_listed_while_experiments_come_and_go(tmp_path: Path) -> None:
    stop = threading.Event()

    def experiments() -> None:
        while not stop.is_set():
            with reserved(tmp_path, ["pool-1"]):
                pass

    other = threading.Thread(target=experiments)
    other.start()
    try:
        for _ in range(200):
            assert set().union(*reservations(tmp_path).values()) <= {"pool-1"}
    finally:
        stop.set()
        other.join()
