"""The page over all runs: what it shows is what compare says, it is live, and it is served to this machine alone."""

import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from minilima.__main__ import main
from minilima.formats.records import Progress
from minilima.report.compare import tabulate
from minilima.report.view import Library, builds
from minilima.report.view_server import open_server
from minilima.store.progress import read_progress, written_too
from tests.report.runs import finished_run, plain_prompts

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHOTS = os.environ.get("MINILIMA_SCREENSHOTS")
"""A folder in which the pages are kept as pictures, to be looked at."""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs, one of them without report, a sweep, and a training that has just reported."""
    folder = tmp_path_factory.mktemp("view")
    for size, skill in ((10, 0.2), (20, 0.5), (30, 0.9)):
        finished_run(folder, plain_prompts(20, skill), f"dataset.size={size}")
    sweep = folder / "sweeps" / "quickstart-size-0123abcd"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"points": [{"status": "done"}, {"status": "failed"}]}))
    scratch = folder / "store" / ".work" / "model-00aa11bb22cc33dd" / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "job.json").write_text(json.dumps({"role": "model", "config": {"name": "<b>mine</b>"}, "account": "x"}))
    clock = iter([time.time() - 30 + 5 * step for step in range(6)])
    report = written_too(scratch, lambda progress: None, lambda: next(clock))
    for step in range(1, 6):
        report(Progress(done=step, total=16, unit="steps", note=f"loss {3 - step / 4:.3f}, 100 tokens/s"))
    return folder


def test_progress_is_written_at_most_once_a_second_and_a_broken_line_is_left_out(tmp_path: Path) -> None:
    passed: list[Progress] = []
    clock = iter([10.0, 10.5, 11.5, 11.6])
    report = written_too(tmp_path, passed.append, lambda: next(clock))
    for done in (1, 2, 3, 4):
        report(Progress(done=done, total=4, unit="steps"))
    assert [item.done for item in passed] == [1, 2, 3, 4]
    assert [item.done for item in read_progress(tmp_path)] == [1, 3, 4], "the last one is always written"
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"at": 1')
    assert len(read_progress(tmp_path)) == 3 and read_progress(tmp_path / "nowhere") == []
    written_too(tmp_path / "nowhere", passed.append)(Progress(done=1, total=1, unit="steps"))


def test_a_build_has_its_rate_what_is_left_and_its_losses(outputs: Path) -> None:
    (build,) = builds(outputs)
    assert (build["role"], build["done"], build["total"], build["silent"]) == ("model", 5, 16, False)
    assert build["pace"] == ["12/min", "55 s left"]
    assert build["losses"][0] == [1.0, 2.75] and len(build["losses"]) == 5
    (later,) = builds(outputs, time.time() + 600)
    assert later["silent"]


def test_a_build_that_has_not_reported_yet_is_shown_while_somebody_holds_its_lock(tmp_path: Path) -> None:
    scratch = tmp_path / "store" / ".work" / "pool-0123" / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "job.json").write_text(json.dumps({"role": "pool", "config": {"name": "mine"}}))
    assert builds(tmp_path) == [], "it has ended without a report"
    (tmp_path / "store" / ".locks").mkdir()
    (tmp_path / "store" / ".locks" / "pool-0123.holder").write_text("process 1")
    (build,) = builds(tmp_path)
    assert (build["role"], build["note"], build["pace"], build["silent"]) == ("pool", "starting", [], False)


def test_the_state_and_the_comparison_are_what_compare_says(outputs: Path) -> None:
    library = Library(outputs=outputs)
    state = library.state()
    points, skipped = library.points()
    assert skipped == [] and [row["settings"] for row in state["runs"]] == [["30"], ["20"], ["10"]]
    assert state["runs"][0]["best"] and state["sweeps"][0] == {
        "name": "quickstart-size-0123abcd", "done": 1, "points": 2, "report": None,
    }  # fmt: skip
    names = [row["name"] for row in state["runs"]]
    by_name = {point.name: point for point in points}
    compared = library.compared(names)
    table = tabulate([by_name[name] for name in names], by_name[names[0]])
    wanted = {row.point.name: row.against.paired for row in table.rows if row.against}
    assert len(compared["rows"]) == 2
    for row in compared["rows"]:
        paired = wanted[row["name"]]
        assert paired is not None and (row["difference"], row["p"]) == (paired.difference.value, paired.p_holm)


@pytest.mark.parametrize("damage", ["run.json cut", "verdicts gone", "entry gone", "run gone"])
def test_a_damaged_run_is_named_with_its_reason_and_the_others_stay(outputs: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(outputs, tmp_path, dirs_exist_ok=True)
    folder = min((tmp_path / "runs").iterdir())
    record = json.loads((folder / "run.json").read_text())
    verdicts = next(folder / stage["path"] for stage in record["stages"] if stage["role"] == "verdicts")
    if damage == "run.json cut":
        (folder / "run.json").write_text('{"name": "qu')
    elif damage == "verdicts gone":
        (verdicts / "verdicts.jsonl").unlink()
    else:
        shutil.rmtree(verdicts if damage == "entry gone" else folder)
    state = Library(outputs=tmp_path).state()
    assert len(state["runs"]) == 2 and folder.name not in [row["name"] for row in state["runs"]]
    assert len(state["skipped"]) == (0 if damage == "run gone" else 1) and all(folder.name in why for why in state["skipped"])


@pytest.fixture(scope="module")
def address(outputs: Path) -> Iterator[str]:
    with open_server(outputs, 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


def test_only_reports_are_served_and_only_to_this_machine(address: str, outputs: Path) -> None:
    run = next((outputs / "runs").iterdir()).name
    assert status(f"{address}/runs/{run}/report.html") == 200
    for path in ("/runs/../store", f"/runs/{run}/run.json", "/runs/%2e%2e/%2e%2e/etc/passwd", "/store/x.html", "/nothing"):
        assert status(address + path) == 404, path
    assert status(f"{address}/state.json", Host="evil.example:80") == 403
    assert status(f"{address}/compare.json?run=nope") == 400


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path / "nope")]) == 1
    assert "There is no folder" in capfd.readouterr().err
    assert main(["view", str(tmp_path), "--port", "99999"]) == 1
    assert "The port 99999 cannot be used" in capfd.readouterr().err


def listen(page: "Page", address: str, heard: list[str]) -> None:
    """Notes every complaint of the browser's, and every request that leaves our server."""
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(address) else heard.append(request.url))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_the_page_sorts_compares_opens_reports_and_asks_nobody_else(address: str) -> None:
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        arguments = [*sandbox, "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
            heard: list[str] = []
            listen(page, address, heard)
            page.goto(address)
            rows = page.locator("#rows-of-runs tr")
            expect(rows).to_have_count(3)
            expect(page.locator("#builds .card")).to_contain_text("model of <b>mine</b>")
            expect(page.locator("#builds svg")).to_have_count(1)
            boxes = page.locator("#rows-of-runs input")
            boxes.nth(0).check()
            boxes.nth(2).check()
            expect(page.locator("#comparison h3")).to_contain_text(re.compile(r"quickstart-\w{8} size 30$"))
            expect(page.locator("#comparison p")).to_contain_text(re.compile(r"^quickstart-\w{8} size 10: -"))
            if SHOTS:
                page.screenshot(path=f"{SHOTS}/view-{scheme}-{width}.png", full_page=True)
            page.get_by_role("button", name="win rate, %").click()
            expect(rows.nth(0)).to_contain_text("10")
            assert boxes.nth(0).is_checked(), "a row keeps its tick while it moves"
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "only tables scroll sideways"
            rows.nth(0).get_by_role("link").click()
            page.wait_for_url("**/report.html")
            assert [text for text in heard if "favicon" not in text and "404" not in text] == []
            page.close()
        browser.close()
