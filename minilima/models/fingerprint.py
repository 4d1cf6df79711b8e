"""A model's files named by their content."""

import json
import re
from pathlib import Path

from minilima.formats.files import canonical_json, remembered, sha256_file, sha256_text, write_atomic


def fingerprint_directory(path: Path) -> str:
    """sha256 over the names and contents of the files directly in `path`, hidden ones left out.

    A file's hash is remembered beside the user's cache by (path, size, mtime), so that only the first plan reads gigabytes.
    """
    from minilima.models.packaged import user_cache

    memory_file = user_cache() / "fingerprints.json"
    memory = remembered(memory_file, _hashes) or {}
    hashes = []
    for file in sorted(item for item in path.iterdir() if item.is_file() and not item.name.startswith(".")):
        stat = file.stat()
        identity = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if identity not in memory:
            memory[identity] = sha256_file(file)
        hashes.append([file.name, memory[identity]])
    write_atomic(memory_file, json.dumps(memory))
    return sha256_text(canonical_json(hashes))


def _hashes(memory: dict[str, str]) -> dict[str, str]:
    if any(re.fullmatch("[0-9a-f]{64}", sha256) is None for sha256 in memory.values()):
        raise ValueError("not all of them are hashes")
    return memory
