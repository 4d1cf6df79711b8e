"""Fetching a packaged model: whole or not there, resumed after a kill, joined from parts, and its terms accepted by name."""

import hashlib
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilima.errors import MinilimaError
from minilima.models import packaged
from minilima.models.packaged import PACKAGED, PackagedModel
from minilima.models.tokenizer import load_tokenizer

PIECES = {"tiny-part1==1.0": b"first ", "tiny-part2==1.0": b"second"}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def model(**changes: Any) -> PackagedModel:
    """A model of two parts."""
    whole = b"".join(PIECES.values())
    entry: dict[str, Any] = {"licence": "MIT", "megabytes": 1, "unpacked_megabytes": 1, "context_tokens": 64}
    entry["parts"] = [[release, "tiny/part.bin", sha(piece)] for release, piece in PIECES.items()]
    entry["joined"] = ["tiny.gguf", sha(whole)]
    return packaged._model({**entry, **changes})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], list[str]]:
    """Takes what the package index has, as contents by release; returns the list of what pip was asked for."""
    monkeypatch.setenv("MINILIMA_CACHE", str(tmp_path))
    asked: list[str] = []
    offered: dict[str, bytes] = {}

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        release, folder = command[-1], Path(command[command.index("--dest") + 1])
        asked.append(release)
        if release not in offered:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found")
        name, version = release.replace("-", "_").split("==")
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tiny/part.bin", offered[release])
        return subprocess.CompletedProcess(command, 0, "", "")

    def has(contents: dict[str, bytes]) -> list[str]:
        offered.clear()
        offered.update(contents)
        return asked

    monkeypatch.setattr("minilima.models.packaged.subprocess.run", pip)
    return has


def test_parts_are_joined_and_a_fetch_that_broke_off_keeps_what_it_has(
    index: Callable[[dict[str, bytes]], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, "tiny", model())
    asked = index({"tiny-part1==1.0": PIECES["tiny-part1==1.0"]})
    with pytest.raises(MinilimaError, match="No matching distribution"):
        packaged.fetch("tiny")
    assert not packaged.is_fetched("tiny")
    index(PIECES)
    folder = packaged.fetch("tiny")
    assert (folder / "tiny.gguf").read_bytes() == b"first second" and list(folder.iterdir()) == [folder / "tiny.gguf"]
    assert asked == ["tiny-part1==1.0", "tiny-part2==1.0", "tiny-part2==1.0"], "the first part is not fetched twice"
    assert packaged.fetch("tiny") == folder and len(asked) == 3


def test_a_damaged_part_is_refused_by_name_and_fetched_again(
    index: Callable[[dict[str, bytes]], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, "tiny", model())
    asked = index({**PIECES, "tiny-part2==1.0": b"other!"})
    with pytest.raises(MinilimaError, match=r"part.bin out of tiny-part2==1.0 is not the file it should be"):
        packaged.fetch("tiny")
    index(PIECES)
    assert (packaged.fetch("tiny") / "tiny.gguf").read_bytes() == b"first second"
    assert asked.count("tiny-part1==1.0") == 1 and asked.count("tiny-part2==1.0") == 2


def test_parts_in_another_order_are_not_the_whole(
    index: Callable[[dict[str, bytes]], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = model(joined=["tiny.gguf", sha(b"secondfirst ")])
    monkeypatch.setitem(PACKAGED, "tiny", swapped)
    index(PIECES)
    with pytest.raises(MinilimaError, match=r"tiny.gguf out of 2 parts is not the file it should be"):
        packaged.fetch("tiny")
    assert not packaged.is_fetched("tiny")


def test_terms_are_accepted_by_their_name_once(
    index: Callable[[dict[str, bytes]], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, "tiny", model(terms=["tinylaw", "https://example.org/terms", "TERMS"]))
    asked = index(PIECES)
    for accepted in (None, "yes"):
        with pytest.raises(MinilimaError, match=r"minilima fetch tiny --accept-terms tinylaw") as refused:
            packaged.fetch("tiny", accepted)
        assert "https://example.org/terms" in str(refused.value)
    assert asked == []
    packaged.fetch("tiny", "tinylaw")
    packaged.check_language_model("tiny")


def test_a_model_of_sentence_vectors_is_no_base_model() -> None:
    with pytest.raises(MinilimaError, match=r"all_minilm_l6_v2 is not a language model.*qwen2_5_coder_1_5b"):
        packaged.check_language_model("all_minilm_l6_v2")


def test_the_catalogue_is_that_of_the_recorded_hashes() -> None:
    joined = {name: entry.joined for name, entry in PACKAGED.items() if entry.joined}
    assert json.dumps({name: file[1][:16] for name, file in joined.items() if file}) == (
        '{"qwen2_5_coder_1_5b": "cc324af070c2ecbf", "gemma3_270m": "a5fd3b62230aa5ec"}'
    )
    numbers = [part.requirement.partition("part")[2] for part in PACKAGED["qwen2_5_coder_1_5b"].parts]
    assert numbers == [f"{number}==0.2.0" for number in range(1, 23)]
    assert [name for name, entry in PACKAGED.items() if entry.with_install] == ["smollm2_135m", "all_minilm_l6_v2"]


def test_a_tokenizer_that_cuts_words_otherwise_than_the_model_is_used_to_is_refused(tiny_model: Path) -> None:
    """transformers 5.17 makes 34 tokens of the probe with Gemma's file, without a BOS; 5.23 makes the model's own 28."""
    from minilima.train.convert import check_tokenizer

    with pytest.raises(MinilimaError, match="reads the tokenizer of gemma3_270m wrongly") as refusal:
        check_tokenizer(load_tokenizer(str(tiny_model)), "gemma3_270m")
    assert "makes 28" in str(refusal.value) and "5.23" in str(refusal.value)


def test_every_packaged_language_model_has_its_tokens() -> None:
    assert all(bool(model.tokens) == (model.context_tokens is not None) for model in PACKAGED.values())
