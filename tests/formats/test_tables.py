"""Tables: the same rows from every container and encoding, recognised by the first bytes, and broken lines named together."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import ipc, parquet

from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.formats.annotations import read_annotations
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import sha256_file
from minilima.formats.imports import Reading, read_file, read_tasks
from minilima.formats.preferences import read_labels
from minilima.formats.seeds import load_seeds
from minilima.formats.tables import read_rows, table_identity
from minilima.run.sources import resolve

ROWS = [
    {"instruction": "Sag ja, „jetzt“!", "input": "a\nb", "output": "Ja\u2028doch\x85."},
    {"instruction": "说是", "input": "", "output": "是, 的"},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def zstd(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


def parquet_bytes() -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), sink)
    return bytes(sink.getvalue())


def arrow_bytes(new: Callable[..., Any]) -> bytes:
    table, sink = pyarrow.Table.from_pylist(ROWS), pyarrow.BufferOutputStream()
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def separated(mark: str) -> str:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    return "".join(mark.join(map(cell, cells)) + "\r\n" for cells in (ROWS[0], *(row.values() for row in ROWS)))


CONTAINERS: dict[str, bytes] = {
    "a.json": json.dumps(ROWS, ensure_ascii=False, indent=1).encode(),
    "a.jsonl": LINES.encode(),
    "bom.jsonl": b"\xef\xbb\xbf" + LINES.encode(),
    "utf16.jsonl": LINES.encode("utf-16"),
    "utf16be.json": b"\xfe\xff" + json.dumps(ROWS).encode("utf-16-be"),
    "nomark.json": json.dumps(ROWS).encode("utf-16-le"),
    "a.jsonl.gz": gzip.compress(LINES.encode(), mtime=0),
    "gz_named.json": gzip.compress(LINES.encode("utf-16"), mtime=0),
    "a.jsonl.zst": zstd(LINES.encode()),
    "a.csv": separated(",").encode(),
    "semicolon.csv": separated(";").encode("utf-8-sig"),
    "a.tsv": separated("\t").encode("utf-16"),
    "a.csv.gz": gzip.compress(separated(",").encode(), mtime=0),
    "a.parquet": parquet_bytes(),
    "no_suffix": parquet_bytes(),
    "a.arrow": arrow_bytes(ipc.new_file),
    "stream.arrow": arrow_bytes(ipc.new_stream),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(CONTAINERS[name])
    assert read_rows(path) == ROWS
    assert [example.output for example in read_file(path).examples] == [row["output"] for row in ROWS]
    assert [task[2] for task in read_tasks(path).tasks] == ["a\nb", ""]
    assert [prompt.instruction for prompt in load_eval_set(path, None)] == ["Sag ja, „jetzt“!\n\na\nb", "说是"]
    assert table_identity(path) == sha256_file(path)


def test_a_saved_folder_is_a_table_and_its_content_its_key(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    datasets.Dataset.from_list(ROWS[:1]).save_to_disk(tmp_path / "other")
    assert read_rows(tmp_path / "one") == ROWS
    folders = [resolve(load_config(["data=file", f"data.path={tmp_path / name}"])).data for name in ("one", "other")]
    assert folders[0] is not None and folders[1] is not None and folders[0].sha256 != folders[1].sha256
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "splits")
    with pytest.raises(MinilimaError, match="splits: train"):
        read_rows(tmp_path / "splits")


def test_seeds_labels_and_annotations_come_from_any_container(tmp_path: Path) -> None:
    seed = {"id": "a", "instruction": "Do.", "instances": [{"input": "", "output": "Done"}], "is_classification": False}
    pair = {"instruction": "Do.", "output_1": "a", "output_2": "b", "preference": 2}
    for name, row in (("seeds", seed), ("pairs", pair)):
        (tmp_path / name).write_bytes(zstd(json.dumps([row]).encode("utf-16")))
        parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / f"{name}.parquet")
    for end in ("", ".parquet"):
        assert [task.output for task in load_seeds(tmp_path / f"seeds{end}")] == ["Done"]
        assert [one.label for one in read_labels(tmp_path / f"pairs{end}").pairs] == [2]
        assert [run.preferences for run in read_annotations(tmp_path / f"pairs{end}")] == [[2]]


@pytest.mark.parametrize("encoding", ["gbk", "latin1"])
def test_other_encodings_are_refused_and_never_guessed(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(
        json.dumps([{"instruction": "é" if encoding == "latin1" else "说是的，这不行"}], ensure_ascii=False).encode(encoding)
    )
    with pytest.raises(MinilimaError, match="never guessed") as refused:
        read_rows(path)
    assert "iconv -f ENCODING" in refused.value.fix


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "cannot be unpacked"),
        ("a.zst", zstd(LINES.encode())[:20], "cannot be unpacked"),
        ("a.parquet", parquet_bytes()[:-8], "as parquet"),
        ("a.xlsx", b"PK\x03\x04...", "a ZIP archive or a spreadsheet"),
        ("a.csv", b'a,b\n"x', "is not CSV"),
        ("a.csv", b"a,a\n1,2\n", "two columns of one name"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MinilimaError, match=named):
        read_rows(tmp_path / name)


def test_broken_lines_are_counted_together_and_may_be_left_out(tmp_path: Path) -> None:
    good = json.dumps({"instruction": "Do.", "output": "Done."})
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([good, "{", "5", good, "no", *["x"] * 5]))
    with pytest.raises(MinilimaError, match=r"8 lines of .*line 2: .*line 3: .*line 5: .*line 6: .*line 7: [^;]*$"):
        read_rows(path)
    with pytest.raises(MinilimaError, match="8 rows of"):
        read_file(path)
    imported = read_file(path, reading=Reading(reject=True))
    assert len(imported.examples) == 2 and len(imported.rejected) == 8 and "Line 2" in imported.rejected[0].reason
    (tmp_path / "a.csv").write_text("instruction,output\nDo.,Done.\nDo.,a,b\n")
    with pytest.raises(MinilimaError, match="Line 3"):
        read_file(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "instruction\toutput\nDo.\tDone.\n"),
        ("a.csv", 'instruction; output\n"Do.";"Done."\n'),
        ("a.csv", 'conversations\n"[{""from"": ""human"", ""value"": ""Do.""}, {""from"": ""gpt"", ""value"": ""Done.""}]"\n'),
        ("a.json", '{\n  "instruction": "Do.",\n  "output": "Done."\n}\n'),
        ("a.json", '[{"instruction": "Do.", "output": "Done.", "score": NaN}]'),
    ],
)
def test_other_spellings_of_a_table_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (example,) = read_file(tmp_path / name).examples
    assert (example.instruction, example.output) == ("Do.", "Done.")


def test_a_name_that_stands_twice_in_an_object_is_refused(tmp_path: Path) -> None:
    twice = '{"instruction": "Do.", "instruction": "Stop.", "output": "Done."}'
    for text in (twice, f"[{twice}]"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(MinilimaError, match="he name 'instruction' stands twice"):
            read_file(tmp_path / "a.json")


def test_a_folder_without_a_table_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.jsonl").write_text(LINES)
    with pytest.raises(MinilimaError, match=r"The folder .*shards is no table"):
        resolve(load_config(["data=file", f"data.path={tmp_path / 'shards'}"]))
