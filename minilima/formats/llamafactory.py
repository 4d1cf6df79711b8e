"""LLaMA-Factory's dataset_info.json: which file an entry names, where its rows keep their parts, and what identifies both.

    data.path=/my/data/dataset_info.json:mine ─> (/my/data/mine.json, Layout) ─> identity, which enters the pool's key
Names, defaults and meaning are LLaMA-Factory's (its data/README.md and src/llamafactory/data/parser.py).
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError, options
from minilima.formats.files import canonical_json, sha256_text
from minilima.formats.tables import table_identity

FILE_NAME = "dataset_info.json"
FORMATTINGS = ("alpaca", "sharegpt", "openai")
_UNDERSTOOD = {"file_name", "formatting", "columns", "tags", "ranking"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a row keeps its parts: names of columns, and for conversations the keys and roles of a turn.

    None: there is no such part. The defaults are LLaMA-Factory's.
    """

    formatting: str = "alpaca"
    """alpaca: one column for each part; sharegpt, openai: a list of turns."""
    prompt: str | None = "instruction"
    query: str | None = "input"
    response: str | None = "output"
    history: str | None = None
    system: str | None = None
    messages: str | None = "conversations"
    role_tag: str | None = "from"
    content_tag: str | None = "value"
    user_tag: str | None = "human"
    assistant_tag: str | None = "gpt"
    system_tag: str | None = "system"
    chosen: str | None = None
    """Preference data (`ranking`): the better answer."""
    rejected: str | None = None
    kto_tag: str | None = None
    """Whether the answer is a good one."""


# (needed, others) of each formatting
_COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "alpaca": (("prompt", "response"), ("query", "history", "system", "kto_tag")),
    "sharegpt": (("messages",), ("system", "kto_tag")),
    "openai": (("messages",), ("system", "kto_tag")),
}
_SIDES = ("chosen", "rejected")
_TAGS = (("role_tag", "content_tag", "user_tag", "assistant_tag"), ("system_tag",))
# Named in most entries, and of no use here: a turn of such a role is refused where it occurs.
_TOOL_TAGS = ("observation_tag", "function_tag")


def split_name(value: str) -> tuple[str, str | None] | None:
    """`…/dataset_info.json:name` -> (path, name), the name None where it is left out; None for any other path."""
    match = re.fullmatch(rf"((?:.*/)?{re.escape(FILE_NAME)})(?::(.+))?", value)
    return (match[1], match[2]) if match else None


def locate(listing: Path, name: str | None) -> tuple[Path, str, Layout]:
    """The data file that an entry names, the entry's name, and the layout of the rows.

    Args:
        listing: a dataset_info.json.
        name: the entry; None where the file has only one.

    Raises:
        MinilimaError: the file or the entry cannot be used, or the entry's file lies outside the folder or is missing.
    """
    entries = _entries(listing)
    if name is None and len(entries) == 1:
        name = next(iter(entries))
    if name is None or name not in entries:
        raise MinilimaError(
            f"{listing} has no entry {name!r}." if name else f"{listing} has {len(entries):,} entries, and none was chosen.",
            f"There are: {_few(entries)}.",
            f"Name one of them: data.path={listing}:NAME",
        )
    entry = entries[name]
    if not isinstance(entry, dict):
        raise _refusal(listing, name, f"is a {type(entry).__name__}", "An entry is an object with file_name and the like.")
    _check_understood(listing, name, entry)
    return _data_file(listing, name, entry.get("file_name")), name, _layout(listing, name, entry)


def import_identity(path: Path, layout: Layout | None) -> str:
    """What an import enters keys with: the file's content, and how it is read where an entry says so."""
    content = table_identity(path)
    return content if layout is None else sha256_text(canonical_json({"file": content, "layout": asdict(layout)}))


def _entries(listing: Path) -> dict[str, Any]:
    try:
        entries = json.loads(listing.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MinilimaError(f"{listing} is not JSON.", f"{str(error).rstrip('.')}.", "Correct the file.") from None
    if not isinstance(entries, dict) or not entries:
        raise MinilimaError(
            f"{listing} holds no entries.",
            'It must be an object: {"name": {"file_name": "data.json"}}.',
            "Correct the file, or give the data file itself with data.path=…",
        )
    return entries


def _check_understood(listing: Path, name: str, entry: Mapping[str, Any]) -> None:
    harmless = {"split": "train"}
    strange = [key for key, value in entry.items() if key not in _UNDERSTOOD and value not in (None, harmless.get(key))]
    if strange:
        raise _refusal(
            listing,
            name,
            f"uses {options(strange)}",
            f"Only {options(_UNDERSTOOD)} are understood here: a local file of examples, all of it (dataset.size chooses).",
        )


def _data_file(listing: Path, name: str, file_name: object) -> Path:
    if not isinstance(file_name, str) or not file_name:
        raise _refusal(listing, name, "has no file_name", "It must name a JSON or JSONL file in the same folder.")
    folder = listing.parent.resolve()
    path = (folder / file_name).resolve()
    if not path.is_relative_to(folder):
        raise _refusal(
            listing, name, f"names a file outside its folder: {file_name}", f"Only files below {folder} are read, links included."
        )
    if not path.exists() or path == folder:
        raise _refusal(listing, name, f"names {file_name}, and there is no such file", f"It was looked for in {folder}.")
    return path


def _layout(listing: Path, name: str, entry: Mapping[str, Any]) -> Layout:
    formatting = entry.get("formatting") or "alpaca"
    if formatting not in FORMATTINGS:
        raise _refusal(listing, name, f"has the formatting {formatting!r}", f"There are: {options(FORMATTINGS)}.")
    # Where LLaMA-Factory finds columns or tags, it takes those that are not among them as absent, not as the default.
    needed, others = _COLUMNS[formatting]
    if entry.get("ranking"):
        needed = (*(column for column in needed if column != "response"), *_SIDES)
        if not entry.get("columns"):
            raise _refusal(listing, name, "names no chosen, rejected among its columns", "It is marked as ranking.")
    columns = _names(listing, name, "columns", entry.get("columns"), needed, others)
    tags = _names(listing, name, "tags", entry.get("tags"), *_TAGS) if formatting != "alpaca" else {}
    return Layout(formatting=formatting, **columns, **tags)


def _names(
    listing: Path, name: str, section: str, given: object, needed: tuple[str, ...], others: tuple[str, ...]
) -> dict[str, str | None]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(value, str | None) for value in given.values()):
        raise _refusal(listing, name, f"has no proper {section}", f"They must be names: {options((*needed, *others))}.")
    strange = [key for key, value in given.items() if value and key not in (*needed, *others, *_TOOL_TAGS)]
    if strange:
        raise _refusal(
            listing,
            name,
            f"has the {section} {options(strange)}",
            f"Understood are {options((*needed, *others))}; tools, pictures and sound are not; chosen and rejected need ranking.",
        )
    if missing := [key for key in needed if not given.get(key)]:
        raise _refusal(listing, name, f"names no {options(missing)} among its {section}", "What is not named there is not read.")
    return {key: given.get(key) for key in (*needed, *others)}


def _refusal(listing: Path, name: str, what: str, why: str) -> MinilimaError:
    return MinilimaError(f"The entry {name!r} of {listing} {what}.", why, "Correct the entry, or name another one.")


def _few(names: Iterable[str], most: int = 20) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most:,} more" if len(ordered) > most else "")
