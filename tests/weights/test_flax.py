"""Flax's checkpoints from strangers: what is no checkpoint ends in one line, before memory is taken for it."""

import contextlib
import random
import re
import resource
import struct

import numpy as np
import pytest

import released
from flax_files import nested, packed
from tubelet.weights.files import WeightsError
from tubelet.weights.flax import read_flax
from tubelet.weights.folder import load_model

CHECKPOINT = packed({"params": nested(released.filled(released.model_2(4, 4))), "rng": np.zeros(2, np.uint32)})


def refused(path, content):
    path.write_bytes(content)
    with pytest.raises(WeightsError) as error:
        load_model(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def array(shape, name, data):
    content = packed([shape, name, data])
    return packed({"params": {}})[:-1] + b"\x81\xa1a" + struct.pack(">BIb", 0xC9, len(content), 1) + content


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (CHECKPOINT[: len(CHECKPOINT) // 2], "it ends too early"),
        (CHECKPOINT[:1], "it ends too early"),
        (b"\xdf\xff\xff\xff\xff", "it ends too early"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "it ends too early"),
        (b"\x81\xa1a\xc6\xff\xff\xff\xff", "it ends too early"),
        (b"\x81\xa1a" * 100_000, "nested more than 32 deep"),
        (b"\x81\xa1a" + b"\x91" * 100_000, "nested more than 32 deep"),
        (b"\x81\x01\x01", "a name that is no string"),
        (b"\x81\xa1\xff\x01", "decode"),
        (b"\x81\xa1a\xc1", "no meaning in MessagePack"),
        (b"\x81\xdb\x00\x01\x00\x00" + b"a" * 2**16 + b"\x01", "a very long one"),
        (b"\x81\xa1a\xdd\x00\x02\x00\x00" + b"\x01" * 2**17, "more than 100,000 values"),
        (array([2**20, 2**20], "float32", b"1234"), r"claims the shape \(1048576, 1048576\), which its 4 bytes"),
        (array([-1, -4], "float32", b"1234" * 4), "whose shape is none"),
        (array([1.5], "float32", b"1234"), "whose shape is none"),
        (array(3, "float32", b"1234"), "whose shape is none"),
        (array([1], 5, b"1234"), "an array that is none"),
        (packed({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {}}}), "in chunks that is none"),
        (packed({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {"0": np.ones(2)}}}), "claims"),
        (packed({"step": 5}), "holds 0 arrays"),
        (array([1], "object", b"1234"), "holds 0 arrays"),
    ],
)
def test_no_checkpoint_is_refused_in_a_line(tmp_path, content, says):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert re.search(says, refused(tmp_path / "checkpoint_1", content))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_damaged_checkpoints_end_in_our_error(tmp_path):
    chance, path = random.Random(0), tmp_path / "checkpoint_1"
    for _ in range(50):
        content = bytearray(CHECKPOINT)
        for _ in range(chance.randrange(1, 20)):
            content[chance.randrange(1, len(content))] = chance.randrange(256)
        path.write_bytes(content)
        with contextlib.suppress(WeightsError):
            load_model(path)


def test_names_without_end_are_refused(tmp_path):
    tree = {"a": np.zeros(1, np.float32)}
    for _ in range(25):
        tree = {"x" * 900: tree}
    many = {str(i): tree for i in range(300)}
    assert "names are longer than" in refused(tmp_path / "checkpoint_1", packed(many))


def test_other_files_are_no_checkpoints(tmp_path):
    for name, content in {"page": b"<!doctype html>", "archive": b"\x1f\x8b\x08", "pickle": b"\x80\x02}"}.items():
        assert "not ''" in refused(tmp_path / name, content)


def test_only_what_is_asked_for_is_read(tmp_path):
    path = tmp_path / "checkpoint_1"
    path.write_bytes(packed({"a": np.arange(3, dtype=np.float32), "b": {"c": np.ones((2, 0), np.float16), "n": 3}}))
    found = read_flax(path)
    assert {name: tuple(x.shape) for name, x in found.items()} == {"a": (3,), "b/c": (2, 0)}
    assert found["a"].tolist() == [0, 1, 2]
