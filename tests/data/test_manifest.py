"""Manifests: three formats that say the same, and errors that name the line."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tubelet.data.manifest import ManifestError, Record, Records, read_manifest, write_manifest

RECORDS = [
    Record("a b.mp4", {"label": ("jump",)}, split="train", text="a man, jumping"),
    Record("ordner/ü.mp4", {"label": ("run",)}, start=1.5, end=4.0, split="train", duration=9.5, fps=25.0),
    Record("ordner/ü.mp4", {"label": ("jump",)}, start=4.0, split="val", width=320, height=240, error="broken"),
]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    path = tmp_path / f"all.{suffix}"
    write_manifest(path, RECORDS)
    manifest = read_manifest(path)
    assert [record.path for record in manifest.records] == [str(tmp_path / record.path) for record in RECORDS]
    for record, original in zip(manifest.records, RECORDS, strict=True):
        for name in ("labels", "start", "end", "split", "text", "duration", "fps", "width", "height", "error"):
            assert getattr(record, name) == getattr(original, name), name
    assert [record.key for record in manifest.records] == ["a b.mp4", "ordner/ü.mp4#1.5-4", "ordner/ü.mp4#4-"]
    assert manifest.splits == ("train", "val")
    assert manifest.classes() == ("jump", "run")
    assert manifest.classes(split="val") == ("jump",)
    assert len(manifest.split("train")) == 2


def test_records_of_several_manifests_are_joined(tmp_path):
    """Each keeps its own folder, key and cells; what one of them lacks is empty."""
    for name, records in (("one", RECORDS), ("two", [Record("c.mp4", split="train", text="a dog")])):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name / "all.csv", records)
    parts = [read_manifest(tmp_path / name / "all.csv").split("train") for name in ("one", "two")]
    joined = Records.joined(parts)
    assert [record.path for record in joined] == [record.path for part in parts for record in part]
    assert [record.key for record in joined] == [record.key for part in parts for record in part]
    assert joined[1] == parts[0][1]
    assert joined[2].text == "a dog"
    assert not joined[2].labels


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_several_labels_and_several_label_sets(tmp_path, suffix):
    many = [Record("a.mp4", {"label": ("cat", "dog")}), Record("b.mp4", {"label": ("dog",)})]
    write_manifest(tmp_path / f"many.{suffix}", many)
    assert [r.labels for r in read_manifest(tmp_path / f"many.{suffix}").records] == [r.labels for r in many]
    sets = [
        Record("a.mp4", {"verb": ("cut",), "noun": ("leek",)}),
        Record("b.mp4", {"verb": ("wash",), "noun": ("pan",)}),
    ]
    write_manifest(tmp_path / f"sets.{suffix}", sets)
    manifest = read_manifest(tmp_path / f"sets.{suffix}")
    assert [r.labels for r in manifest.records] == [r.labels for r in sets]
    assert manifest.label_sets == ("verb", "noun")
    assert manifest.classes("noun") == ("leek", "pan")


def test_whole_numbers_are_sorted_as_numbers(tmp_path):
    write_manifest(tmp_path / "m.csv", [Record(f"{i}.mp4", {"label": (str(i),)}) for i in (10, 9, 0)])
    assert read_manifest(tmp_path / "m.csv").classes() == ("0", "9", "10")


def test_absolute_paths_below_the_manifest_are_written_relative(tmp_path):
    write_manifest(tmp_path / "m.csv", [Record(str(tmp_path / "x" / "a.mp4"), {"label": ("a",)})])
    assert (tmp_path / "m.csv").read_text().splitlines() == ["path,label", "x/a.mp4,a"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("path,label\na.mp4,\n", 2, "'label' is empty"),
        ("file,label\na.mp4,x\n", 1, "unknown column 'file'"),
        ("path,lable\na.mp4,x\n", 1, "did you mean 'label'?"),
        ("label,split\nx,train\n", 1, "no column 'path'"),
        ("path,label,labels\na.mp4,x,y\n", 1, "two names of one column"),
        ("path,label,start,end\na.mp4,x,0,2\nb.mp4,x,3,3\n", 3, "before end=3"),
        ("path,label,start\na.mp4,x,-1\n", 2, "at least 0"),
        ("path,label,start\na.mp4,x,soon\n", 2, "must hold a number, not 'soon'"),
        ("path,label\na.mp4,x\nb.mp4,x\na.mp4,y\n", 4, "already stands in line 2"),
        ('path,label,text\na.mp4,x,"two\nlines"\nb.mp4,,\n', 4, "'label' is empty"),
        ("path,label\na.mp4,x,more\n", 2, "3 cells"),
        ("path,label\n,x\n", 2, "path is empty"),
        ("path,label\n", None, "no rows"),
    ],
)
def test_a_wrong_csv_is_told_with_its_line(tmp_path, text, line, words):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert caught.value.line == line
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_wrong_line_of_jsonl(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"path": "a.mp4", "label": "x"}\n\n{"path": "b.mp4"}\n')
    with pytest.raises(ManifestError, match=r"line 3: column 'label' is empty"):
        read_manifest(path)
    path.write_text('{"path": "a.mp4", "label": "x"}\n{"path": "b.mp4", "label": "x", "splt": "val"}\n')
    with pytest.raises(ManifestError, match=r"line 2: unknown column 'splt'; did you mean 'split'"):
        read_manifest(path)
    path.write_text('{"path": "a.mp4", "label": "x"}\n{oops\n')
    with pytest.raises(ManifestError, match=r"line 2: not JSON"):
        read_manifest(path)


def test_files_from_elsewhere(tmp_path):
    """A byte order mark, Windows line ends, labels that are numbers, a column of a foreign type."""
    (tmp_path / "m.csv").write_bytes("﻿path,label\r\na.mp4,x\r\n".encode())
    assert read_manifest(tmp_path / "m.csv").records[0].labels == {"label": ("x",)}
    (tmp_path / "m.jsonl").write_text(json.dumps({"path": "a.mp4", "labels": [3, 4], "end": None}) + "\n")
    assert read_manifest(tmp_path / "m.jsonl").records[0].labels == {"label": ("3", "4")}
    pq.write_table(pa.table({"path": ["a.mp4"], "label": [7], "start": [1]}), tmp_path / "m.parquet")
    record = read_manifest(tmp_path / "m.parquet").records[0]
    assert (record.labels, record.start) == ({"label": ("7",)}, 1.0)


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(ManifestError, match="no such file"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "m.txt").write_text("path\n")
    with pytest.raises(ManifestError, match=r"\.csv, \.jsonl, \.parquet or \.arrow"):
        read_manifest(tmp_path / "m.txt")
    (tmp_path / "m.csv").write_text("path,split\na.mp4,train\n")
    manifest = read_manifest(tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="no split 'val'; it has 'train'"):
        manifest.split("val")
    (tmp_path / "none.csv").write_text("path,label\na.mp4,x\n")
    with pytest.raises(ManifestError, match="no split 'train'; it has none; write train and val in a column 'split'"):
        read_manifest(tmp_path / "none.csv").split("train")
    with pytest.raises(ManifestError, match="no column 'label'"):
        manifest.classes()
    with pytest.raises(ManifestError, match="cannot be told apart"):
        write_manifest(tmp_path / "x.csv", [Record("a.mp4", {"label": ("a;b", "c")})])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow"])
def test_records_are_views_of_columns(tmp_path, suffix):
    write_manifest(tmp_path / f"m.{suffix}", RECORDS)
    records = read_manifest(tmp_path / f"m.{suffix}").records
    assert records[1:][0] == records[1] == list(records)[1]
    assert records[-1].error == "broken"
    assert [record.key for record in records[::-1]] == [record.key for record in reversed(list(records))]
    with pytest.raises(IndexError):
        records[3]


def test_a_file_is_read_once_while_it_stays_the_same(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("path,label\na.mp4,x\n")
    assert read_manifest(path) is read_manifest(path)
    path.write_text("path,label\na.mp4,x\nb.mp4,y\n")
    assert len(read_manifest(path).records) == 2


def test_the_fingerprint_is_of_the_examples_and_not_of_the_format(tmp_path):
    found: set[str] = set()
    for suffix in ("csv", "jsonl", "parquet", "arrow"):
        write_manifest(tmp_path / f"m.{suffix}", RECORDS)
        found.add(Records.of(read_manifest(tmp_path / f"m.{suffix}").records).sha256())
    assert len(found) == 1
    captions = {"text": "another"}, {"texts": ("one", "two")}, {"texts": ("one two",)}
    for changed in ({"labels": {"label": ("run",)}}, {"start": 1.0}, {"end": 9.0}, {"key": "b"}, *captions):
        first = Records.of([replace(RECORDS[0], **changed), *RECORDS[1:]])
        assert first.sha256() != Records.of(RECORDS).sha256()


def test_text_stays_as_it_is_written(tmp_path):
    (tmp_path / "m.csv").write_text('path,label,text\n a.mp4 ,007,"two\nlines, ""quoted"""\nb.mp4,1e3,2020-01-01\n')
    first, second = read_manifest(tmp_path / "m.csv").records
    assert (first.key, first.labels, first.text) == ("a.mp4", {"label": ("007",)}, 'two\nlines, "quoted"')
    assert (second.labels, second.text) == ({"label": ("1e3",)}, "2020-01-01")
    rows = [{"path": "a.mp4", "label": "007"}, {"path": "b.mp4", "label": 7, "text": "2020-01-01"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_manifest(tmp_path / "m.jsonl").classes() == ("007", "7")
    assert read_manifest(tmp_path / "m.jsonl").records[1].text == "2020-01-01"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("path,label,fps\na.mp4,x,30\nb.mp4,x,-0.03\n", 3, "'fps' must hold a finite number of at least 0, not -0.03"),
        ("path,label,end\na.mp4,x,inf\n", 2, "finite"),
        ('path,label\na.mp4,x\n"b.mp4,x\nc.mp4,x\n', 3, "a quote is opened and not closed"),
        ('path,label\na.mp4,"x\nb.mp4,x\n', 2, "a quote is opened and not closed"),
        ("path;label\na.mp4;x\n", 1, "the cells are separated by ';'; save it with commas"),
        ("path;label,split\na.mp4;x,train\n", 1, "the cells are separated by ';'; save it with commas"),
        ("label\tpath\nx\ta.mp4\n", 1, "the cells are separated by tabs; save it with commas"),
        ("path,label, label\na.mp4,x,y\n", 1, "two columns are named 'label'"),
        ("path,label,start\ra.mp4,x,0\rb.mp4,x,soon\r", 3, "must hold a number, not 'soon'"),
        ('path,start\na.mp4,1\nb.mp4,"0,5"\n', 3, "not '0,5'; write a point, not a comma"),
        ("path,label,width\na.mp4,x,1e300\n", 2, "'width' must hold a number of at most 1,000,000, not 1e+300"),
        ("path,label,duration\na.mp4,x,1e300\n", 2, "'duration' must hold a number of at most 1,000,000,000"),
        (f"path,label\na.mp4,x\nb.mp4,{'y' * 200_000}\n", 3, "a cell of 200,000 letters, 'yyy"),
        (f"path,text\na.mp4,x\nb.mp4,{'y' * 200_000}\n", 3, "'text' has a cell of 200,000 letters"),
        (f"path,text.1\na.mp4,x\nb.mp4,{'y' * 200_000}\n", 3, "has a cell of 200,000 letters"),
        (f"path,label,start\na.mp4,{'y' * 3000},0\nb.mp4,x,{'y' * 200_000}\n", 3, "200,000 letters"),
        (f"path,label,{'y' * 200_000}\na.mp4,x,z\n", 1, "unknown column 'yyy"),
        ("path,label\na.mp4,x\nb\0.mp4,x\n", 3, "zero byte"),
    ],
)
def test_what_other_programs_write_is_told_with_its_line(tmp_path, text, line, words):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / "m.csv")
    assert (caught.value.line, words in str(caught.value)) == (line, True)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ('"label": ' + "[" * 100_000 + "]" * 100_000, "nested too deep"),
        ('"label": ' + '{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deep"),
        ('"start": ' + "9" * 5_000, "thousands of digits"),
        ('"start": Infinity', "finite number"),
        ('"start": 1e999', "finite number"),
        ('"width": -1', "finite number of at least 0"),
        ('"label": {"a": 1}', "must hold one value"),
        ('"labels": [["a"]]', "must hold texts"),
        ('"label": "\\ud800"', "half a letter"),
    ],
)
def test_jsonl_that_no_table_holds_is_told_with_its_line(tmp_path, cells, words):
    (tmp_path / "m.jsonl").write_text('{"path": "a.mp4"}\n{"path": "b.mp4", ' + cells + "}\n")
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / "m.jsonl")
    assert (caught.value.line, words in str(caught.value)) == (2, True)
    assert len(str(caught.value)) < 500


def test_a_path_that_python_listed_is_the_file(tmp_path):
    """os.listdir gives bytes that are no letters as halves of letters, which JSON keeps."""
    (tmp_path / "m.jsonl").write_text(json.dumps({"path": "caf\udce9.png", "label": "x"}) + "\n")
    (record,) = read_manifest(tmp_path / "m.jsonl").records
    assert (record.path, record.key) == (str(tmp_path / "caf\udce9.png"), r"caf\xe9.png")


def test_what_fails_leaves_the_old_manifest(tmp_path):
    for suffix in ("csv", "jsonl", "parquet"):
        path = tmp_path / f"m.{suffix}"
        write_manifest(path, RECORDS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ManifestError, match=r"m\.csv: .* cannot be told apart"):
        write_manifest(tmp_path / "m.csv", [Record("a.mp4", {"label": ("a;b", "c")})])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_parts_of_a_long_file_have_keys_of_their_own(tmp_path):
    (tmp_path / "m.csv").write_text("path,start,end\na.mp4,12345.61,12345.7\na.mp4,12345.62,12345.7\n")
    assert [r.key for r in read_manifest(tmp_path / "m.csv").records] == [
        "a.mp4#12345.61-12345.7",
        "a.mp4#12345.62-12345.7",
    ]


def test_examples_that_take_no_part_are_counted(tmp_path):
    (tmp_path / "m.csv").write_text("path,label,split,error\na.mp4,x,train,\nb.mp4,x,,\nc.mp4,x,train,broken\n")
    said = "\n".join(read_manifest(tmp_path / "m.csv").notes)
    assert "1 examples have no split and are left out" in said
    assert "1 examples that the index could not read are left out of training" in said


def test_a_data_frame_s_index_and_nan_are_nothing(tmp_path):
    (tmp_path / "m.csv").write_text(",path,label,start,end\n0,a.mp4,x,nan,\n1,b.mp4,x,NaN,2\n")
    first, second = read_manifest(tmp_path / "m.csv").records
    assert (first.start, first.end, second.start, second.end) == (0.0, None, 0.0, 2.0)


def test_text_that_is_not_utf8_is_told(tmp_path):
    (tmp_path / "m.csv").write_bytes("path,label\nü.mp4,x\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="line 2: not UTF-8 text: the byte 0xfc is no letter; save it as UTF-8"):
        read_manifest(tmp_path / "m.csv")
    for coding in ("utf-16", "utf-16-le"):
        (tmp_path / "m.csv").write_bytes("path,label\na.mp4,x\n".encode(coding))
        with pytest.raises(ManifestError, match=r"UTF-16.*; save it as UTF-8"):
            read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow"])
def test_several_captions_of_an_example(tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    many = [Record("a.mp4", texts=("stir; then, serve", "add salt")), Record("b.mp4", text="one"), Record("c.mp4")]
    write_manifest(path, many)
    found = read_manifest(path).records
    assert [record.captions for record in found] == [record.captions for record in many]
    assert Records.of(list(found)) == found


def test_columns_of_captions_are_taken_in_their_order(tmp_path):
    (tmp_path / "m.csv").write_text('path,text.b,text,text.a\nx.mp4,"b; c",t,a\ny.mp4,,,\nz.mp4,,,a\n')
    assert [record.captions for record in read_manifest(tmp_path / "m.csv").records] == [("t", "b; c", "a"), (), ("a",)]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "m.csv",
            "path,texts\na.mp4,one;two\n",
            "'texts' must hold lists; where cells hold text, as in CSV, write text.1",
        ),
        (
            "m.jsonl",
            '{"path": "a.mp4", "texts": ["x"]}\n{"path": "b.mp4", "texts": "y"}\n',
            "must hold a list, not 'y'",
        ),
        ("m.jsonl", '{"path": "a.mp4", "texts": ["x"], "text.1": "y"}\n', "'texts' and 'text.1' both hold several"),
        ("m.csv", "path,text.\na.mp4,x\n", "unknown column 'text.'"),
    ],
)
def test_captions_in_a_wrong_form_are_told(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / name)
    assert words in str(caught.value)
