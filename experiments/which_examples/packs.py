"""The store without its weights, in files small enough to travel: a machine that goes away loses no more than a call.

    store/*/ that no earlier pack holds ─> pack-TIME.json.xz, each line of text once ─> restored on the next machine
An entry whose weights were left out is restored beside the store, in models/, since the store holds whole results only.
"""

import json
import lzma
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

MOST_BYTES = 15_000_000
"""Of a pack, compressed."""
_MOST_NUMBERS = 400
"""Bytes of the numbers kept for a row that are worth packing: losses, ratings, cosines; not hidden states."""


def pack(folder: Path, out: Path, *, with_cache: bool) -> list[Path]:
    """Writes what no earlier pack holds; returns the new files.

    Args:
        folder: of the study: store/, cache/, models/.
        out: where the packs are put.
        with_cache: also the reply cache, which only an unfinished pool or unfinished scores need.
    """
    out.mkdir(parents=True, exist_ok=True)
    listing = folder / "packed.json"
    packed: set[str] = set(json.loads(listing.read_text())) if listing.is_file() else set()
    there = sorted(path.parent for place in ("store", "models") for path in (folder / place).glob("*/manifest.json"))
    # A model in the store is still in use; one that is done is in models/.
    heavy = ("base-", "model-")
    new = [
        entry
        for entry in there
        if entry.name not in packed and not (entry.parent.name == "store" and entry.name.startswith(heavy))
    ]
    written: list[Path] = []
    waiting = [new] if new else []
    while waiting:
        entries = waiting.pop(0)
        content = lzma.compress(json.dumps(_as_table(entries), ensure_ascii=False).encode(), preset=6)
        if len(content) > MOST_BYTES and len(entries) > 1:
            middle = len(entries) // 2
            waiting = [entries[:middle], entries[middle:], *waiting]
            continue
        # Packs of all calls and machines lie in one folder in the end.
        written.append(out / f"pack-{time.time_ns() // 10**6}.json.xz")
        written[-1].write_bytes(content)
        packed |= {entry.name for entry in entries}
    listing.write_text(json.dumps(sorted(packed)))
    if with_cache and (folder / "cache" / "replies.sqlite").is_file():
        written.append(_pack_cache(folder / "cache" / "replies.sqlite", out / "cache.sqlite.xz"))
    return written


def restore(folder: Path, packs: Iterable[Path]) -> int:
    """Puts the entries of packs back, and the cache where there is none; returns how many entries came."""
    listing, came = folder / "packed.json", 0
    packed: set[str] = set(json.loads(listing.read_text())) if listing.is_file() else set()
    for file in packs:
        if file.name == "cache.sqlite.xz":
            if not (cache := folder / "cache" / "replies.sqlite").is_file():
                cache.parent.mkdir(parents=True, exist_ok=True)
                cache.write_bytes(lzma.decompress(file.read_bytes()))
            continue
        table = json.loads(lzma.decompress(file.read_bytes()))
        for name, files in table["entries"].items():
            packed.add(name)
            target = folder / ("models" if table["left_out"].get(name) else "store") / name
            if not target.is_dir():
                _write_entry(target, files, table["lines"])
                came += 1
    folder.mkdir(parents=True, exist_ok=True)
    listing.write_text(json.dumps(sorted(packed)))
    return came


def _as_table(entries: Sequence[Path]) -> dict[str, Any]:
    """All lines of all files, each once, and the files as the numbers of their lines."""
    lines: dict[str, int] = {}
    files: dict[str, dict[str, list[int]]] = {}
    left_out: dict[str, list[str]] = {}
    for entry in entries:
        files[entry.name] = {}
        listed = json.loads((entry / "manifest.json").read_text())["files"]
        for name in ["manifest.json", *listed]:
            if not (entry / name).is_file() or name == "tokenizer.json":
                left_out.setdefault(entry.name, []).append(name)
                continue
            text = (entry / name).read_bytes().decode("utf-8")
            files[entry.name][name] = [lines.setdefault(line, len(lines)) for line in text.split("\n")]
    return {"lines": list(lines), "entries": files, "left_out": left_out}


def _write_entry(target: Path, files: Mapping[str, Sequence[int]], lines: Sequence[str]) -> None:
    aside = target.with_name(f".{target.name}")
    for name, numbers in files.items():
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        (aside / name).write_bytes("\n".join(lines[number] for number in numbers).encode("utf-8"))
    aside.rename(target)


def _pack_cache(file: Path, target: Path) -> Path:
    """Replies and numbers, without hidden states and without what answers and benchmarks asked for: their entries hold it."""
    copy = target.with_suffix(".copy")
    copy.unlink(missing_ok=True)
    with sqlite3.connect(file) as source, sqlite3.connect(copy) as other:
        source.backup(other)
        if other.execute("SELECT name FROM sqlite_master WHERE name = 'numbers'").fetchone():
            other.execute("DELETE FROM numbers WHERE length(numbers) > ?", (_MOST_NUMBERS,))
        other.commit()
        other.execute("VACUUM")
    target.write_bytes(lzma.compress(copy.read_bytes(), preset=3))
    copy.unlink()
    return target
