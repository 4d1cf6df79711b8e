"""Looking at the store and freeing space: what a run or an unfinished build uses stays."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from minilima.__main__ import main
from minilima.errors import MinilimaError
from minilima.formats.files import size_text
from minilima.run.plan import Plan, PlannedStage
from minilima.run.preflight import check_still_there
from minilima.store.entries import Store, claimed, removing, reserved
from minilima.store.gc import list_entries
from minilima.store.job import Outcome, Stage


def build(outputs: Path, stage: Stage) -> Path:
    def fill(work: Path) -> Outcome:
        (work / "text.txt").write_text("x" * 5_000_000)
        return Outcome(metrics={})

    return Store(outputs / "store").get_or_build(stage, fill).path


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A run that names only its data set, which was made from a pool; and a pool that nothing refers to."""
    pool = Stage(name="pool", version=1, recipe={"a": 1})
    dataset = Stage(name="dataset", version=1, recipe={}, inputs={"pool": pool})
    for stage in (pool, dataset, Stage(name="pool", version=1, recipe={"a": 2})):
        build(tmp_path, stage)
    run = tmp_path / "runs" / "mine" / "run.json"
    run.parent.mkdir(parents=True)
    run.write_text(json.dumps({"stages": [{"directory": dataset.directory}]}))
    return tmp_path


def command(outputs: Path, *arguments: str) -> int:
    return main(["store", *arguments, f"paths.outputs={outputs}"])


def unused(outputs: Path) -> list[str]:
    return [entry.directory for entry in list_entries(outputs) if not entry.users]


def test_entries_are_listed_with_what_uses_them(outputs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    entries = list_entries(outputs)
    assert [entry.users for entry in entries].count(("mine",)) == 2
    assert all(5_000_000 < entry.size_bytes < 5_010_000 and 0 <= entry.age_seconds < 60 for entry in entries)
    (dataset,) = (entry for entry in entries if entry.directory.startswith("dataset"))
    assert dataset.inputs[0] in {entry.directory for entry in entries}
    assert command(outputs, "ls") == 0
    assert "3 entries, 15.0 MB" in capfd.readouterr().out


def test_gc_lists_first_and_removes_only_what_no_run_uses(outputs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(outputs, "gc") == 0
    assert "nothing was removed" in capfd.readouterr().out
    assert len(list_entries(outputs)) == 3
    (outputs / "store" / "my-notes").mkdir()
    assert command(outputs, "gc", "--yes") == 0
    assert (len(list_entries(outputs)), unused(outputs)) == (2, [])
    assert (outputs / "store" / "my-notes").is_dir(), "only what is named as an entry can be removed"
    assert command(outputs, "gc") == 0
    assert "nothing to free" in capfd.readouterr().out


def test_gc_keeps_what_somebody_holds(outputs: Path) -> None:
    (directory,) = unused(outputs)
    with claimed(outputs / "store", directory) as free:
        assert free
        assert command(outputs, "gc", "--yes") == 0
    assert unused(outputs) == [directory]


def test_gc_keeps_what_a_running_experiment_has_reserved_and_what_that_is_made_from(
    outputs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (outputs / "runs" / "mine" / "run.json").unlink()
    (dataset,) = (entry.directory for entry in list_entries(outputs) if entry.directory.startswith("dataset"))
    with reserved(outputs / "store", [dataset, "model-not-there-yet"]):
        assert command(outputs, "gc", "--yes") == 0
        users = {entry.directory: entry.users for entry in list_entries(outputs)}
        assert len(users) == 2 and users[dataset][0].startswith("running ")
    assert len(unused(outputs)) == 2, "a reservation ends with its experiment"


def test_a_killed_experiment_reserves_nothing_and_leaves_no_debris(outputs: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from minilima.store.entries import reserved\n"
        "with reserved(Path(sys.argv[1]), sys.argv[2:]): os.kill(os.getpid(), signal.SIGKILL)"
    )
    (directory,) = unused(outputs)
    subprocess.run([sys.executable, "-c", code, str(outputs / "store"), directory], check=False)
    assert list((outputs / "store" / ".reserved").glob("*.json"))
    assert unused(outputs) == [directory]
    assert not list((outputs / "store" / ".reserved").iterdir())


def test_an_experiment_waits_until_gc_is_through_before_it_reserves(outputs: Path) -> None:
    root, order = outputs / "store", []

    def experiment() -> None:
        with reserved(root, ["pool-1"]):
            order.append("reserved")

    with removing(root):
        other = threading.Thread(target=experiment)
        other.start()
        other.join(timeout=0.2)
        order.append("removed")
    other.join()
    assert order == ["removed", "reserved"]


def test_a_run_stops_when_what_it_would_reuse_was_removed_after_the_plan() -> None:
    stage = PlannedStage(role="pool", status="reuse", directory="pool-1", what="")
    shown, now = Plan(stages=(stage,), notes=()), Plan(stages=(replace(stage, status="build"),), notes=())
    check_still_there(now, shown)
    with pytest.raises(MinilimaError, match="pool"):
        check_still_there(shown, now)


def test_gc_removes_nothing_while_a_build_cannot_be_read(outputs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = outputs / "store" / ".work" / "model-0123456789abcdef" / "scratch" / "job.json"
    job.parent.mkdir(parents=True)
    job.write_text("{")
    assert command(outputs, "gc", "--yes") == 1
    assert "it is not known what it uses" in " ".join(capfd.readouterr().err.split())
    assert len(list((outputs / "store").glob("*-*"))) == 3


@pytest.mark.parametrize("field", ["needs", "inputs"])
def test_gc_keeps_what_an_unfinished_build_needs(outputs: Path, field: str) -> None:
    (directory,) = unused(outputs)
    job = outputs / "store" / ".work" / "model-0123456789abcdef" / "scratch" / "job.json"
    job.parent.mkdir(parents=True)
    inputs = {"dataset": f"/elsewhere/store/{directory}"} if field == "inputs" else {}
    job.write_text(json.dumps({"inputs": inputs} | ({"needs": [directory]} if field == "needs" else {})))
    assert command(outputs, "gc", "--yes") == 0
    assert unused(outputs) == [] and len(list_entries(outputs)) == 3


def test_verify_hashes_large_files_too(outputs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(outputs, "verify") == 0
    (directory,) = unused(outputs)
    (outputs / "store" / directory / "text.txt").write_text("y" * 5_000_000)
    assert command(outputs, "verify") == 1
    captured = capfd.readouterr()
    assert directory in captured.err and "1 damaged" in captured.out


@pytest.mark.parametrize("arguments", [[], ["rm"], ["ls", "--yes"], ["gc", "--force"]])
def test_an_unknown_store_command_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    assert command(tmp_path, *arguments) == 1


def test_sizes_are_written_for_people() -> None:
    assert [size_text(size) for size in (0, 999, 1_500, 2_000_000, 3.2e15)] == ["0 B", "999 B", "1.5 kB", "2.0 MB", "3200.0 TB"]


@pytest.mark.parametrize("text", ["null", "[]", "5", '{"inputs": {"a": []}}', "[" * 5_000])
def test_an_entry_whose_manifest_is_none_is_listed(outputs: Path, text: str) -> None:
    entries = list_entries(outputs)
    (outputs / "store" / entries[0].directory / "manifest.json").write_text(text)
    assert {entry.directory for entry in list_entries(outputs)} == {entry.directory for entry in entries}
