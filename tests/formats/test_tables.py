"""Tables: the same rows from every container and encoding, recognised by the first bytes, and broken lines named together."""

import bz2
import gzip
import json
import lzma
import tarfile
import zipfile
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
from minilima.generate.import_pool import read_source
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
    "a.jsonl.bz2": bz2.compress(LINES.encode()),
    "a.csv.xz": lzma.compress(separated(",").encode()),
    "pipe.csv": separated("|").encode(),
    "excel.csv": f"sep=;\n{separated(';')}".encode("utf-16"),
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
    one = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": one}).save_to_disk(tmp_path / "split")
    assert read_rows(tmp_path / "split") == ROWS
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "splits")
    with pytest.raises(MinilimaError, match="splits: test, train"):
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
        ("a.zip", b"PK\x03\x04...", "cannot be unpacked"),
        ("a.bz2", bz2.compress(LINES.encode())[:-9], "cannot be unpacked"),
        ("a.xz", lzma.compress(LINES.encode())[:-9], "cannot be unpacked"),
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
        ("a.csv", "instruction,output,,\nDo.,Done.,,\n"),
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


SHARDS = [{"instruction": f"Say {n}.", "output": f"It is {n}."} for n in range(12)]


def shards(folder: Path, write: Callable[[Path, dict[str, str]], object], end: str) -> Path:
    folder.mkdir(parents=True)
    for number, row in enumerate(SHARDS):
        write(folder / f"train-{number}{end}", row)
    (folder / "README.md").write_text("About it.")
    (folder / ".hidden.jsonl").write_text("{}")
    return folder


def as_line(path: Path, row: dict[str, str]) -> None:
    path.write_text(json.dumps(row) + "\n")


def as_parquet(path: Path, row: dict[str, str]) -> None:
    parquet.write_table(pyarrow.Table.from_pylist([row]), path)


def zipped(folder: Path) -> Path:
    archive = folder.parent / "rows.zip"
    with zipfile.ZipFile(archive, "w") as into:
        for file in folder.iterdir():
            into.write(file, f"data/{file.name}")
        into.writestr("__MACOSX/data/._train-0.jsonl", "x")
    return archive


def test_shards_are_one_table_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    lines = shards(tmp_path / "lines", as_line, ".jsonl")
    columns = shards(tmp_path / "columns", as_parquet, "-of-12.parquet")
    sources = [lines, lines / "*.jsonl", lines / "train-*", columns, columns / "*.parquet", zipped(lines)]
    identities: set[str] = set()
    for source in sources:
        assert read_rows(source) == SHARDS, source
        data = resolve(load_config(["data=file", f"data.path={source}"])).data
        assert data is not None and len(read_source(data).examples) == 12
        identities.add(data.sha256)
    assert len(identities) == 3, "a folder and a pattern with the same files are the same table"
    (lines / "train-3.jsonl").write_text(json.dumps(SHARDS[3]) + "\n{}\n")
    with pytest.raises(MinilimaError, match=r"Row 2 of .*train-3.jsonl "):
        read_file(lines)
    (lines / "train-7.jsonl").write_text("[1]")
    with pytest.raises(MinilimaError, match=r"2 rows of .*lines cannot .*Row 2 of train-3.jsonl .* Row 1 of train-7.jsonl"):
        read_file(lines)


def test_several_tables_in_one_place_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "splits").mkdir()
    for name in ("splits/train.jsonl", "splits/test.jsonl"):
        as_line(tmp_path / name, SHARDS[0])
    with pytest.raises(MinilimaError, match=r"several splits: test, train"):
        read_rows(tmp_path / "splits")
    with pytest.raises(MinilimaError, match=r"several splits"):
        read_rows(zipped(tmp_path / "splits"))
    assert read_rows(tmp_path / "splits" / "train*") == SHARDS[:1]
    (tmp_path / "kinds").mkdir()
    as_line(tmp_path / "kinds" / "a.jsonl", SHARDS[0])
    as_parquet(tmp_path / "kinds" / "a.parquet", SHARDS[0])
    with pytest.raises(MinilimaError, match=r"several kinds: .jsonl, .parquet"):
        read_rows(tmp_path / "kinds")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MinilimaError, match=r"It is empty"):
        read_rows(tmp_path / "empty")
    with pytest.raises(MinilimaError, match=r"folders: kinds, splits"):
        read_rows(tmp_path)
    with pytest.raises(MinilimaError, match=r"There is no file .*\*\.csv"):
        resolve(load_config(["data=file", f"data.path={tmp_path}/*.csv"]))


def test_an_archive_that_is_no_table_says_what_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as into:
        into.writestr("[Content_Types].xml", "")
    with pytest.raises(MinilimaError, match="is a spreadsheet"):
        read_rows(tmp_path / "a.xlsx")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a.xlsx")
    with pytest.raises(MinilimaError, match="is a TAR archive"):
        read_rows(tmp_path / "a.tar.gz")


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(json.dumps(row, indent=1) for row in ROWS),
        "".join(json.dumps(row) for row in ROWS),
        json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}),
        json.dumps({name: {str(number): row[name] for number, row in enumerate(ROWS)} for name in ROWS[0]}, indent=1),
        "\n\ufeff".join(json.dumps(row) for row in ROWS),
    ],
)
def test_objects_over_several_lines_and_lists_of_columns_are_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read_rows(tmp_path / "a.json") == ROWS


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}], "tools": ["x"]},
        {"conversations": ["a", "b"]},
        {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]},
        {"a": {"instruction": "x"}, "b": {"instruction": "y"}},
    ],
)
def test_a_single_row_with_lists_is_one_row(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(row, indent=1))
    assert read_rows(tmp_path / "a.json") == [row]


def test_what_is_no_json_says_how_it_begins(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("instruction,output\nDo.,Done.\n")
    with pytest.raises(MinilimaError, match=r"holds no JSON. It begins: 'instruction,output'.*known by their names"):
        read_file(tmp_path / "a.txt")
