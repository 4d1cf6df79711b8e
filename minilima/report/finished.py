"""A finished run by its folder: what run.json says, where each stage lies in the store, and which model it began with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from minilima.config.outputs import outputs_folder
from minilima.config.renames import settings_of
from minilima.errors import MinilimaError, options
from minilima.formats.files import recorded
from minilima.models.packaged import PACKAGED


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """The model that a run began with."""

    kind: str
    """packaged, hub or path."""
    name: str
    """As people call it: its name on the hub, a packaged one's, or the folder's without what stands before it."""
    location: str
    """What to load: a folder, or owner/name@commit."""


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """A run and its stages."""

    folder: Path
    record: Mapping[str, Any]
    """run.json."""
    settings: Mapping[str, Any]
    """By their dotted names of today."""
    entries: Mapping[str, Path]
    """The store entry of each role that is still there."""
    manifests: Mapping[str, Mapping[str, Any]]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def model(self) -> Path:
        """The folder of the tuned model.

        Raises:
            MinilimaError: the run stopped before it, or it was removed.
        """
        if (path := self.entries.get("model")) is not None:
            return path
        raise MinilimaError(
            f"{self.name} has no tuned model.",
            "It stopped before the training was done, or the model was removed from the store.",
            "Run its command again, which builds what is missing.",
        )

    @property
    def base(self) -> BaseModel:
        """The model that it began with."""
        setting = self.settings.get
        if path := setting("model.path"):
            return BaseModel(kind="path", name=Path(path).name, location=str(path))
        if hub := setting("model.hub"):
            recipe = self.manifests.get("model", {}).get("recipe", {}).get("base", {})
            revision = recipe.get("identity") or setting("model.revision") or "main"
            return BaseModel(kind="hub", name=str(hub), location=f"{hub}@{revision}")
        entry = self.entries.get("base")
        return BaseModel(kind="packaged", name=str(setting("model.packaged")), location=str(entry or ""))


def open_run(name: str, outputs: Path | None = None) -> OpenedRun:
    """The run in the folder `name`, or the one in `outputs`/runs (None: the usual outputs) whose name is or begins so.

    Raises:
        MinilimaError: there is none, there are several, or run.json cannot be read.
    """
    folder = _folder(name, Path(outputs or outputs_folder()) / "runs")
    record = recorded(folder / "run.json", _checked, "Run its command again, which writes the file again.")
    entries, manifests = {}, {}
    for stage in record["stages"]:
        path = (folder / stage["path"]).resolve()
        if (path / "manifest.json").is_file():
            entries[stage["role"]] = path
            fix = f"Remove {path}, and run its command again, which builds it again."
            manifests[stage["role"]] = recorded(path / "manifest.json", dict, fix)
    settings = settings_of(record["config"])
    return OpenedRun(folder=folder, record=record, settings=settings, entries=entries, manifests=manifests)


def _checked(written: Any) -> Mapping[str, Any]:
    """run.json, which has to name its stages and settings."""
    stages: Sequence[Mapping[str, Any]] = written["stages"]
    return {
        **written,
        "stages": [{"role": stage["role"], "path": stage["path"]} for stage in stages],
        "config": {**written["config"]},
    }


def _folder(name: str, runs: Path) -> Path:
    if (Path(name) / "run.json").is_file():
        return Path(name)
    known = sorted(file.parent for file in runs.glob("*/run.json"))
    near = [folder for folder in known if folder.name == name] or [folder for folder in known if folder.name.startswith(name)]
    if len(near) == 1:
        return near[0]
    if near:
        raise MinilimaError(
            f"{len(near)} runs begin with {name}.", f"They are: {options(item.name for item in near)}.", "Write more of the name."
        )
    names = [folder.name for folder in known]
    close = (
        get_close_matches(Path(name).name, names, n=1) or [item for item in names if item.startswith(f"{Path(name).name}-")][:1]
    )
    where = f"The runs in {runs} are: {options(names[:_NAMED])}{' …' if len(names) > _NAMED else '.'}"
    why = "It has no run.json: it was interrupted, or is no run." if Path(name).is_dir() else "A run is a folder with run.json."
    raise MinilimaError(
        f"There is no finished run {name}.",
        f"{why} {where if known else f'There are no runs in {runs}.'}",
        f"Did you mean {runs / close[0]}?"
        if close
        else "Name the folder that the line Report of the run shows, as in: outputs/runs/quickstart-0123abcd",
    )


_NAMED = 12
"""Most runs that an error names."""


def licence_of(base: BaseModel) -> str:
    """The base model's licence as its card or package states it; empty where nothing on this machine says so."""
    if base.kind == "packaged":
        return PACKAGED[base.name].licence if base.name in PACKAGED else ""
    card = Path(base.location) / "README.md" if base.kind == "path" else _cached_card(base.location)
    return _stated(card) if card is not None and card.is_file() else ""


def _cached_card(location: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = location.partition("@")
    card = try_to_load_from_cache(name, "README.md", revision=revision or None)
    return Path(card) if isinstance(card, str) else None


def _stated(card: Path) -> str:
    """`license` in the header of a model card."""
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return ""
    header = lines[1 : next((number for number, line in enumerate(lines[1:], 1) if line.strip() == "---"), 1)]
    named = {name.strip(): value.strip(" '\"") for name, _, value in (line.partition(":") for line in header)}
    return named.get("license_name") or named.get("license", "")
