"""The documentation holds: every command in it composes, every link leads somewhere, every page is in the navigation."""

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from benchmarks import embedded_data, tour
from minilima.cli.commands import build
from minilima.config.sweep_grid import expand

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_PLACEHOLDERS = {"overrides…", "…", "COMMAND"}


def commands(page: Path) -> Iterator[str]:
    """What is typed: lines of code blocks, and code in the text, that begin with `minilima` or `python -m minilima`.

    Blocks of text are what commands printed.
    """
    text = re.sub(r"^```text\n.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    blocks = re.findall(r"^```(?:\w*)[^\n]*\n(.*?)^```", text, flags=re.M | re.S)
    typed = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    typed += re.findall(r"`((?:python -m )?minilima [^`\n]*)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    for line in typed:
        for start in ("python -m minilima", ".venv/bin/python -m minilima", "minilima "):
            if line.strip().startswith(start):
                yield line.partition("  #")[0].strip()


ALL = [(str(page.relative_to(ROOT)), command) for page in PAGES for command in commands(page)]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages tell the reader to write."""
    for page in PAGES:
        for title, content in re.findall(r'^```yaml title="([^"]+)"\n(.*?)^```', page.read_text(), flags=re.M | re.S):
            (tmp_path / title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / title).write_text(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("page", "command"), ALL)
def test_every_command_in_the_documentation_composes(page: str, command: str, written: Path) -> None:
    words = shlex.split(command)
    module, *words = words if words[0] == "minilima" else words[words.index("-m") + 1 :]
    if module != "minilima":
        assert importlib.util.find_spec(module), f"{page}: there is no module {module}"
        return
    words = [word for word in words if word not in _PLACEHOLDERS]
    verb = words.pop(0) if words and words[0] in build() else "run"
    without_settings = ("compare", "score", "completion", "fetch", "help", "chat", "serve", "view", "init")
    assert not words or "=" in words[0] or words[0].startswith("-") or verb in (*without_settings, "store", "export")
    if verb in without_settings:
        return
    config_dir = words[words.index("--config-dir") + 1] if "--config-dir" in words else None
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    if "+sweep=optuna_lr" in overrides and importlib.util.find_spec("optuna") is None:
        pytest.skip("Optuna is an extra")
    # Most launchers are extras too; they change nothing of what composes.
    expand([item for item in overrides if not item.lstrip("+").startswith(("hydra/launcher", "hydra.launcher"))], config_dir)


def test_commands_were_found_in_every_guide() -> None:
    pages = {page for page, _ in ALL}
    assert {"README.md", "docs/tutorial.md", "docs/howto/cost.md"} <= pages and len(ALL) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_every_page_is_in_the_navigation() -> None:
    def leaves(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for item in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from leaves(item)

    shown = set(leaves(OmegaConf.to_container(OmegaConf.load(ROOT / "mkdocs.yml").nav)))
    assert shown == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}, (
        "add the page to nav in mkdocs.yml"
    )


def _linked(page: Path) -> set[Path]:
    """The files of this repository that a page links to."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


@pytest.mark.parametrize("start", ["README.md", "docs/index.md"])
def test_every_page_and_picture_can_be_reached_by_links(start: str) -> None:
    reached, ahead = set[Path](), [ROOT / start]
    while ahead:
        page = ahead.pop()
        new = _linked(page) - reached
        reached |= new
        ahead += [target for target in new if target.suffix == ".md"]
    files = {path for path in (ROOT / "docs").rglob("*") if path.suffix in (".md", ".png")}
    assert files - reached - {ROOT / start} == set()


def test_sample_output_in_the_documentation_is_what_the_commands_printed() -> None:
    results = [json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text()) for name in ("tour", "talk")]
    printed = {name: text for record in results for name, text in record["printed"].items()}
    pages = {page: page.read_text(encoding="utf-8") for page in PAGES}
    assert {name for text in pages.values() for _, name, _ in tour.MARK.findall(text)} == set(printed)
    other = [str(page) for page, text in pages.items() if tour.fill(text, printed) != text]
    assert other == [], "python benchmarks/tour.py and talk.py write them"
    assert not any("/tmp" in text or "/home" in text for text in printed.values()), "a page names no folder of a machine"


def test_pictures_are_those_of_the_tour_and_of_the_study_and_small() -> None:
    pictures = {path.stem: path.stat().st_size for path in tour.PICTURES.iterdir()}
    assert set(pictures) == {*tour.SHOTS, "which_examples"} and max(pictures.values()) < 80_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_the_examples_import_is_there(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S):
        compile(block, str(page), "exec")
        for module, names in re.findall(r"^from (\S+) import (.+)$", block, flags=re.M):
            loaded = importlib.import_module(module)
            assert [name for name in names.split(", ") if not hasattr(loaded, name)] == []


def test_the_page_on_the_embedded_model_says_what_was_measured() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "embedded_data.json").read_text())
    assert (ROOT / "docs" / "explanation" / "embedded_data.md").read_text() == embedded_data.page(record)
    assert sum(record["marks"].values()) == embedded_data.READ and len(record["shown"]) >= 10
