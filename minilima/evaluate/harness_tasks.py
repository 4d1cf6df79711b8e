"""The tasks of lm-evaluation-harness and their files, read as text: its import loads torch, and its own index takes seconds.

files of the harness ─> names of tasks, groups and tags ─> check_task: an error before anything is computed
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from minilima.errors import MinilimaError, options

HARNESS = "lm_eval"
_NAMES = re.compile(r"\s*-?\s*[\"']?(task|group|tag)[\"']?\s*:|\s*-\s*[\w.+-]+\s*$")
"""A line of a task's file that may name it, its group, a member or a tag."""
_INCLUDES = re.compile(r"^include:\s*(\S+)", re.MULTILINE)
_WHOLE_TEXTS = "output_type: loglikelihood_rolling"


def harness_version() -> str | None:
    """The version of lm-evaluation-harness; None where it is not installed."""
    try:
        return version(HARNESS)
    except PackageNotFoundError:
        return None


def check_task(task: str) -> None:
    """Raises MinilimaError where the harness has no task of this name, or it cannot be run here."""
    if task not in _files():
        near = get_close_matches(task, _files(), n=10)
        raise MinilimaError(
            f"lm-evaluation-harness has no task {task}.",
            f"Names like it: {options(near) or 'none'}.",
            "`lm_eval ls tasks` lists all of them; correct benchmarks=[…].",
        )
    if _reads_whole_texts(task):
        raise MinilimaError(
            f"benchmarks={task} measures the perplexity of whole texts.",
            "minilima pairs base and tuned model on items with scores from 0 to 1: tasks that ask for replies (ifeval, gsm8k) or "
            "choose among continuations (mmlu, arc_challenge, hellaswag, truthfulqa_mc2).",
            f"Leave {task} out of benchmarks=[…]. Its figure of a finished run: minilima export model RUN MODEL_FOLDER; "
            f"lm_eval --model hf --model_args pretrained=MODEL_FOLDER --tasks {task}",
        )


def folders_of(task: str) -> list[str]:
    """The harness's folders that hold a task, or the members of a group: reading all of them takes seconds."""
    root = _root()
    tops = {file.relative_to(root).parts[0] for name in {task, *_members(task)} for file in _files().get(name, ())}
    return [str(root / top) for top in sorted(tops)]


def _root() -> Path:
    installed = find_spec(HARNESS)
    assert installed is not None and installed.submodule_search_locations, "a task is named, so the harness is there"
    return Path(installed.submodule_search_locations[0], "tasks")


@cache
def _files() -> Mapping[str, Sequence[Path]]:
    """The files by the tasks, groups and tags that they name."""
    found: dict[str, list[Path]] = {}
    # Files without a suffix are templates, which others include; some name tags.
    for file in (file for file in _root().rglob("*") if file.suffix in ("", ".yaml") and file.is_file()):
        for name in _named(_text(file)):
            found.setdefault(name, []).append(file)
    return found


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="ignore")


def _named(text: str) -> set[str]:
    return {line.rpartition(":")[2].strip(" -'\"") for line in text.splitlines() if _NAMES.match(line)} - {""}


def _members(name: str) -> Iterator[str]:
    """What a group holds, and the groups in it."""
    for file in _files().get(name, ()):
        text = _text(file)
        if re.search(rf"^group:\s*{re.escape(name)}\s*$", text, re.MULTILINE):
            for member in _named(text) - {name}:
                yield member
                yield from _members(member)


def _reads_whole_texts(task: str) -> bool:
    """Whether a task, or one of a group or tag, measures perplexity; its `output_type` may stand in what its file includes."""
    files = {file for name in {task, *_members(task)} for file in _files().get(name, ())}
    return any(_WHOLE_TEXTS in part for file in files for part in _with_included(file))


def _with_included(file: Path) -> Iterator[str]:
    text = _text(file)
    yield text
    yield from (_text(file.parent / name) for name in _INCLUDES.findall(text) if (file.parent / name).is_file())
