"""TensorFlow's checkpoints of VATT, and what is no such checkpoint."""

import contextlib
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from bundle_files import field, table, write_bundle
from tubelet.models.vatt import Sense, VattConfig
from tubelet.models.vatt.config import released
from tubelet.specs import VideoSpec, WaveformSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model
from tubelet.weights.tensor_bundle import read_bundle

WIDTH = 64


def tower(before, patches, kernel, axes):
    shapes = {
        f"{patches}/kernel": (*kernel, WIDTH),
        f"{patches}/bias": (WIDTH,),
        "agg_embedding": (WIDTH,),
        **{f"pos_embedding_lookup/{name}_position_embeddings/embeddings": (n, WIDTH) for name, n in axes.items()},
    }
    layer = "tx/layers/0"
    for name in ("pos_embedding_lookup/layernorm", "tx/final_layer_norm", f"{layer}/layer_norm"):
        shapes |= {f"{name}/gamma": (WIDTH,), f"{name}/beta": (WIDTH,)}
    shapes |= {f"{layer}/feed_forward/layer_norm/gamma": (WIDTH,), f"{layer}/feed_forward/layer_norm/beta": (WIDTH,)}
    for part in "qkvo":
        shapes |= {f"{layer}/mha/{part}/kernel": (WIDTH, WIDTH), f"{layer}/mha/{part}/bias": (WIDTH,)}
    for part, (a, b) in {"wi": (WIDTH, 128), "wo": (128, WIDTH)}.items():
        shapes |= {f"{layer}/feed_forward/mlp/{part}/kernel": (a, b), f"{layer}/feed_forward/mlp/{part}/bias": (b,)}
    chance = np.random.default_rng(0)
    return {f"{before}{name}": chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def video(before):
    return tower(before, "voxel_to_patch", (2, 8, 8, 3), {"temporal": 2, "vertical": 2, "horizontal": 3})


def sound(before):
    return tower(before, "wave_to_patch", (16, 1), {"temporal": 5})


SIZE = released(WIDTH, 1, 1, 128)
VIDEO = Sense(
    spec=VideoSpec(frames=4, stride=1, fps=10.0, size=(16, 24), short_side=16), patch=(2, 8, 8), backbone=SIZE
)
SOUND = Sense(spec=WaveformSpec(samples=80), patch=(1, 1, 16), backbone=SIZE)


def test_a_pre_training_tells_all_of_itself(tmp_path):
    arrays = {**video("_base_layer/vid_backbone/_base/"), **sound("_base_layer/aud_backbone/_base/")}
    arrays |= {f"{name}/.OPTIMIZER_SLOT/optimizer/m": -x for name, x in arrays.items()}
    path = write_bundle(tmp_path / "ckpt-5", {**arrays, "step": np.int64(5)}, "model/layer_with_weights-0/")
    for name in (path, tmp_path / "ckpt-5.index"):
        loaded = load_model(name)
        assert loaded.config == VattConfig(modalities={"video": VIDEO, "audio": SOUND})
        weight = loaded.model.encoder.state_dict()["modalities.audio.tokenizer.projection.weight"]
        kernel = torch.from_numpy(arrays["_base_layer/aud_backbone/_base/wave_to_patch/kernel"])
        assert torch.equal(weight, kernel[:, 0].T)


def test_a_fine_tuned_tower_has_a_classifier(tmp_path):
    head = {"_ops/cls/kernel": np.ones((WIDTH, 3), np.float32), "_ops/cls/bias": np.zeros(3, np.float32)}
    loaded = load_model(write_bundle(tmp_path / "ckpt", {**video("_base/"), **head}, "model/"))
    assert loaded.config == VattConfig(modalities={"video": VIDEO})
    assert loaded.model.eval()({"video": torch.randn(1, 4, 3, 16, 24)}, "label").shape == (1, 3)


def test_heads_of_other_widths_are_told(tmp_path):
    path = write_bundle(tmp_path / "ckpt", video("_base/"))
    config = VattConfig(modalities={"video": replace(VIDEO, backbone=replace(SIZE, heads=4))})
    assert load_model(path, config).config == config


ENTRY = field(1, 1) + field(2, field(2, field(1, 2))) + field(5, 8)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (b"", "it is empty"),
        (b"\0" * 48, "no table's end"),
        (table({b"a": ENTRY})[:20] + table({})[-48:], "ends too early|damaged|compressed"),
        (table({b"a": field(1, 1) + field(2, field(2, field(1, 2**40))) + field(5, 2**42)}), "which is not there"),
        (table({b"a": field(1, 1) + field(2, field(2, field(1, 3))) + field(5, 8)}), r"a claims the shape \(3,\)"),
        (table({b"a": ENTRY + field(4, 1)}), "which is not there"),
        (table({b"a": ENTRY + field(3, 7)}), "data-00007-of-00001: no such file"),
        (table({b"a": b"\x0b"}), "damaged"),
        (table({b"a": b"\x12\xff\xff\xff\xff\x0f"}), "damaged"),
        (table({b"a" * 5_000_000: b""}), "names are longer"),
    ],
)
def test_no_checkpoint_is_refused_in_a_line(tmp_path, index, says):
    (tmp_path / "ckpt.index").write_bytes(index)
    (tmp_path / "ckpt.data-00000-of-00001").write_bytes(bytes(8))
    with pytest.raises(WeightsError, match=says) as error:
        read_bundle(tmp_path / "ckpt")
    assert "\n" not in str(error.value)


def test_a_whole_one_is_read(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b/c": np.ones(2, np.float16), "n": np.int64(3)}
    write_bundle(tmp_path / "ckpt", arrays)
    found = read_bundle(tmp_path / "ckpt")
    assert {name: x.tolist() for name, x in found.items()} == {"a": [[0, 1, 2], [3, 4, 5]], "b/c": [1, 1]}


def test_damaged_indices_end_in_our_error(tmp_path):
    path, chance = write_bundle(tmp_path / "ckpt", video("_base/")), random.Random(0)
    whole = (tmp_path / "ckpt.index").read_bytes()
    for _ in range(50):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 20)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        (tmp_path / "ckpt.index").write_bytes(content)
        with contextlib.suppress(WeightsError):
            load_model(path)
