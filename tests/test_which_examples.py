"""The study's runner: what travels between machines comes back as it was, and each point of the sweep counts once."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from minilima.formats.files import DATA
from minilima.store.entries import Store
from minilima.store.job import Outcome, Stage

STUDY = Path(__file__).parent.parent / "experiments" / "which_examples"


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDY))
    return import_module("packs")


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(STUDY), *sys.path])  # the runner puts its own folder there too
    return import_module("run")


def entry(store: Store, name: str, text: str) -> Stage:
    stage = Stage(name=name, version=1, recipe={"text": text})

    def build(work: Path) -> Outcome:
        (work / "rows.jsonl").write_text(text, encoding="utf-8")
        return Outcome(metrics={})

    store.get_or_build(stage, build)
    return stage


def test_entries_come_out_of_packs_as_they_were_and_are_packed_once(packs: ModuleType, tmp_path: Path) -> None:
    here, there, out = tmp_path / "here", tmp_path / "there", tmp_path / "out"
    store = Store(here / "store")
    made = [entry(store, "dataset", "one\ntwo\r\n\u2028 three\n"), entry(store, "answers", "two\n\nno end")]
    first = packs.pack(here, out, with_cache=False)
    made.append(entry(store, "verdicts", "later\n"))
    second = packs.pack(here, out, with_cache=False)
    assert len({file.name for file in (*first, *second)}) == 2
    assert packs.restore(there, sorted(out.iterdir())) == 3
    for stage in made:
        found = Store(there / "store").find(stage, hash_up_to=float("inf"))
        assert found is not None and found.path.parent == there / "store"
    assert packs.pack(there, out, with_cache=False) == [], "what came out of a pack is not packed again"


def test_a_model_travels_without_its_weights_and_is_no_entry_of_the_store_there(packs: ModuleType, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    stage = entry(Store(here / "store"), "model", "log\n")
    assert packs.pack(here, tmp_path / "out", with_cache=False) == [], "it is still in use"
    (here / "models").mkdir()
    (here / "store" / stage.directory).rename(here / "models" / stage.directory)
    (here / "models" / stage.directory / "rows.jsonl").unlink()
    packs.restore(there, packs.pack(here, tmp_path / "out", with_cache=False))
    assert json.loads((there / "models" / stage.directory / "manifest.json").read_text())["key"] == stage.key
    assert Store(there / "store").find(stage) is None


def test_each_point_of_the_sweep_counts_once(runner: ModuleType, tiny_model: Path, tmp_path: Path) -> None:
    extra = (f"model.path={tiny_model}", "generator=local", "seed=0,1", "dataset.size=3,5")
    study = runner.Study(folder=tmp_path, rate=None, given=DATA / "minilima_175.jsonl", extra=extra)
    assert runner.write_pool(study)
    points = study.points()
    written = [of for of in points if of.config.data.path == str(study.pool_file)]
    assert len(written) == (12 + 3) * 2 * 2, "twelve methods, and three orders of perplexity"
    assert len({of.overrides for of in points}) == len(points)
    assert all(not any(item.startswith("+sweep=") for item in of.overrides) for of in points)
    assert {of.graph["pool"].key for of in written} == {written[0].graph["pool"].key}, "one pool for all seeds"


def test_a_method_is_compared_with_random_at_its_size_over_the_same_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(STUDY), *sys.path])
    gather = import_module("gather")
    prompts = [f"p{n}" for n in range(40)]

    def point(method: str, size: int, seed: int, gain: float) -> dict[str, object]:
        values = {name: 1.5 + gain + 0.01 * ((n + seed) % 5) for n, name in enumerate(prompts)}
        figures = {"win_rate": values, "loss": values, "verifiable": {**values, "odd": None if seed else 1.0}}
        means = {"win_rate": 50 + 100 * gain, "length_controlled": None, "loss": 1.0, "verifiable": 10.0, "words": 9.0}
        means |= {"base_loss": 2.0, "trained_on_words": 9.0}
        return {"method": method, "size": size, "seed": seed, "by_prompt": figures, **means}

    points = [point("random", 50, seed, 0.0) for seed in (0, 1)] + [point("rds", 50, seed, 0.1) for seed in (0, 1)]
    points += [point("long", 100, 0, 0.2)]  # no random choice of that size
    rows = gather.compared(points)
    assert [(row["size"], row["method"], row["figure"], row["seeds"]) for row in rows] == [
        (50, "rds", figure, 2) for figure in gather.FIGURES
    ]
    assert rows[0]["difference"]["value"] == pytest.approx(10.0) and rows[0]["p_holm"] < 0.05
    written = gather.table(gather.means(points), rows)
    assert "| 50 | rds | 2 | 60.0 | 0.0 | not known | +10.0 " in written
    assert "| 100 | long | 1 | 70.0 | - | not known | - | - |" in written


def test_figures_on_the_page_of_the_study_stand_in_its_results() -> None:
    results = json.loads((STUDY / "results.json").read_text(encoding="utf-8"))
    rows = [row["difference"] | row for row in results["against_random"]] + results["means"]
    known = {
        f"{abs(value):.{digits}f}" for row in rows for value in row.values() if isinstance(value, float) for digits in (1, 3)
    }
    for page in (STUDY.parent.parent / "docs" / "explanation" / "which_examples.md", STUDY.parent.parent / "README.md"):
        text = page.read_text(encoding="utf-8")
        said = text if page.name != "README.md" else text[text.index("Fourteen ways") : text.index("A first one asked")]
        figures = re.findall(r"(?<![\w.\-])\d\.\d{3}(?=\D)|(?<![\w.\-])\d+\.\d(?= points|,|:| to|\.\s| %)", said)
        assert figures, page
        assert [figure for figure in figures if figure not in known] == [], page
        assert len(results["points"]) == 315 and "315" in said
