"""File names that no table, terminal or encoding expects: from a folder to an index and back to the file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tubelet.data.folder import read_folder
from tubelet.data.index import check_manifest, index_folder
from tubelet.data.manifest import Record, Records, read_manifest, write_manifest
from tubelet.data.names import path_of, text_of

NAMES = [
    b"caf\xe9.png",  # Latin-1
    "café.png".encode(),
    "cafe\u0301.png".encode(),
    b" before.png",
    b"new\nline\r.png",
    b'quote"d, with comma; and more.png',
    b"12:30:00#1-2.png",
    b"a\\xe9b.png",  # a backslash, and the letters of a code
    b"a\\b\\.png",
    b"%e9 $HOME ~.png",
]


@pytest.mark.parametrize("name", [*NAMES, b"after.png ", b"\xff\xfe", "\u2003\u00a0x".encode()])
def test_every_name_has_a_text_of_whole_letters_in_one_line(name):
    path = os.fsdecode(name)
    text = text_of(path)
    assert path_of(text) == path
    assert text.encode().decode().splitlines() == [text] == [text.strip()]


def test_usual_names_are_their_own_text():
    for name in ("a b/ü.mp4", "日本/x.wav", "a\\b.mp4", "C#1.png"):
        assert text_of(name) == path_of(name) == name


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    for number, label in enumerate([b"caf\xe9 ", b"plain"]):
        (tmp_path / os.fsdecode(label)).mkdir()
        for place, name in enumerate(NAMES):
            pixels = np.full((4, 4, 3), 20 * place + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / os.fsdecode(label) / os.fsdecode(name))
    return tmp_path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_names_survive_from_a_folder_to_an_index(collection, suffix):
    manifest = read_folder(collection)
    assert {Path(record.path).name for record in manifest.records} == set(map(os.fsdecode, NAMES))
    assert manifest.classes() == (r"caf\xe9\x20", "plain")
    index = index_folder(collection, collection / f"m.{suffix}", workers=1)
    assert index.broken == ()
    again = read_manifest(collection / f"m.{suffix}")
    assert [(r.path, r.key, r.labels, r.split) for r in again.records] == [
        (r.path, r.key, r.labels, r.split) for r in manifest.records
    ]
    assert check_manifest(again, workers=1) == []


def test_records_made_in_python_keep_their_paths(tmp_path):
    records = [Record(os.fsdecode(b"/x/" + name), paths={"flow": os.fsdecode(b"/y/" + name)}) for name in NAMES]
    assert [(record.path, record.paths) for record in Records.of(records)] == [(r.path, r.paths) for r in records]
    assert Records.of(records).keys().to_pylist() == [record.name for record in records]
    write_manifest(tmp_path / "m.csv", records)
    assert [record.path for record in read_manifest(tmp_path / "m.csv").records] == [record.path for record in records]


def test_a_class_spelled_in_two_ways_of_unicode_is_one(tmp_path):
    for folder, name in (("train", "cafe\u0301"), ("test", "café")):
        (tmp_path / folder / name).mkdir(parents=True)
        (tmp_path / folder / name / "1.png").write_text("1")
    assert len(read_folder(tmp_path).classes()) == 1
