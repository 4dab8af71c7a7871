"""ONNX files of ViTs with random weights, as exporters write them, give the features and logits of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from onnx_files import ViTFile, field, tensor
from tubelet.models import Model, ViTConfig, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model
from tubelet.weights.transfer import Init, initialize

SIZE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
GRID = {"image_size": 32, "patch_size": 8}
LABELS = {0: "run", 1: "jump", 2: "sit", 3: "wave"}
VIT_NAMES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    **{part: f"attention.attention.{part}" for part in ("query", "key", "value")},
    "out": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
DINO_NAMES = VIT_NAMES | {"norm1": "norm1", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


def random_model(kind):
    torch.manual_seed(0)
    if kind == "vit":
        config = transformers.ViTConfig(**SIZE, **GRID, intermediate_size=80, layer_norm_eps=1e-6, id2label=LABELS)
        model = transformers.ViTForImageClassification(config)
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**SIZE, **GRID))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    return model.eval()


def numbers(model, folder) -> dict[str, np.ndarray]:
    """The parameters by the names that files have, without the encoder's own prefix."""
    model.save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    return {name.removeprefix("vit."): x for name, x in state.items()}


def written(path: Path, model, *, size=32, mask=None, activation="gelu", beside="", sizes=None, dtype=np.float32):
    """The ONNX file of a ViT (nodes of their own for norms, one linear map for q, k, v) or a DINOv2 (everything written
    out, positions resized from 4x4 patches)."""
    dino = isinstance(model, transformers.Dinov2Model)
    state = {name: x.astype(dtype) for name, x in numbers(model, path.parent / "transformers").items()}
    names = DINO_NAMES if dino else VIT_NAMES
    file = ViTFile(state, 3, written=dino, patch=8, eps=1e-6)
    x = file.tokens(size // 8)
    for i in range(2):
        layer = {part: f"encoder.layer.{i}.{name}" for part, name in names.items()}
        y = file.attention(file.norm(x, layer["norm1"]), layer, mask)
        y = file.scaled(file.linear(y, layer["out"]), f"encoder.layer.{i}.layer_scale1.lambda1")
        x = file.node("Add", y, x)
        y = file.linear(file.norm(x, layer["norm2"]), layer["fc1"])
        y = file.gelu(y) if activation == "gelu" else file.node(activation, y)
        y = file.scaled(file.linear(y, layer["fc2"]), f"encoder.layer.{i}.layer_scale2.lambda1")
        x = file.node("Add", y, x)
    x = file.norm(x, "layernorm")
    if dino:
        decoder = file.constant(np.zeros((48, 4, 2, 2), dtype), "decoder.weight")
        x = file.node("ConvTranspose", file.node("Transpose", x, perm=(0, 2, 1)), decoder)
    else:
        token = file.node("Gather", x, file.constant(np.array(0)), axis=1)
        head = file.constant(state["classifier.weight"], "classifier.weight")
        x = file.node("Gemm", token, head, file.constant(state["classifier.bias"]), transB=1)
    return file.write(path, sizes or (0, 3, size, size), x, beside)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_classifier_gives_the_same_logits(tmp_path):
    model = random_model("vit")
    loaded = load_model(written(tmp_path / "vit.onnx", model))
    x = torch.randn(2, 3, 32, 32)
    close(loaded.model.eval()({"image": x}, "label"), model(pixel_values=x).logits)
    assert loaded.dropped == ()
    image = loaded.config.inputs["image"]
    assert (image.size, image.mean, image.std) == ((32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert loaded.provenance["preprocessing"].startswith("the mean and deviation of ImageNet, as")


@pytest.mark.parametrize("size", [32, 48])
@torch.no_grad()
def test_what_is_written_out_is_the_same_at_the_size_that_the_file_asks_for(size, tmp_path):
    model = random_model("dinov2")
    loaded = load_model(written(tmp_path / "dino.onnx", model, size=size))
    x = torch.randn(2, 3, size, size)
    theirs = model(pixel_values=x).last_hidden_state
    ours = loaded.model.eval().encoder({"image": x})
    close(ours.tokens, theirs[:, 1:])
    close(ours.pooled, theirs[:, 0])
    assert loaded.dropped == ("decoder.weight",)
    assert loaded.config.backbone.layer_scale == 1.0


def test_where_the_size_is_open_it_is_that_of_the_positions(tmp_path):
    loaded = load_model(written(tmp_path / "dino.onnx", random_model("dinov2"), sizes=(0, 3, 0, 0)))
    assert loaded.config.inputs["image"].size == (32, 32)


@torch.no_grad()
def test_halves_load(tmp_path):
    model = random_model("vit")
    loaded = load_model(written(tmp_path / "vit.onnx", model, dtype=np.float16))
    x = torch.randn(1, 3, 32, 32)
    close(loaded.model.eval()({"image": x}, "label"), model.half().float()(pixel_values=x).logits)


def test_a_model_that_it_is_like_tells_the_preprocessing(tmp_path):
    path = written(tmp_path / "vit.onnx", random_model("vit"))
    image = ImageSpec(size=(48, 48), short_side=56)
    like = ViTConfig(backbone=TransformerConfig(width=8, depth=1, heads=1, mlp=8), patch=(8, 8), image=image)
    assert load_model(path, like).config.inputs["image"] == image


def test_it_starts_a_video_model(tmp_path):
    path = written(tmp_path / "dino.onnx", random_model("dinov2"))
    config = ViViTConfig(
        backbone=load_model(path).config.backbone,
        tubelet=(2, 8, 8),
        video=VideoSpec(frames=4, size=(16, 16), short_side=16),
        attention_type="factorized_encoder",
        temporal_depth=1,
    )
    model = Model(config.build(), {})
    (report,) = initialize(model, config, [Init(source=str(path))])
    name = "encoder.spatial.transformer.blocks.1.mlp.3.gamma"
    assert name in report.loaded
    assert torch.equal(
        model.encoder.get_parameter(name), load_model(path).model.encoder.get_parameter(name.replace("spatial.", ""))
    )
    assert all(name.startswith("encoder.temporal.") for name in report.fresh)


@torch.no_grad()
def test_numbers_may_lie_in_a_file_beside_it(tmp_path):
    model = random_model("vit")
    path = written(tmp_path / "vit.onnx", model, beside="vit.onnx.data")
    x = torch.randn(1, 3, 32, 32)
    close(load_model(path).model.eval()({"image": x}, "label"), model(pixel_values=x).logits)
    path.with_name("vit.onnx.data").write_bytes(b"short")
    with pytest.raises(WeightsError, match=r"lies at \d[\d,]* of vit.onnx.data, which is not there"):
        load_model(path)


@pytest.mark.parametrize("place", ["../elsewhere", "/etc/passwd", "", ".."])
def test_numbers_elsewhere_are_refused_by_name(place, tmp_path):
    far = field(5, tensor("far", np.zeros(4, np.float32), {"location": place, "offset": "0", "length": "16"}))
    (tmp_path / "a.onnx").write_bytes(field(7, far))
    with pytest.raises(WeightsError, match=r"far lies in .*, and numbers are read from files beside this one alone"):
        load_model(tmp_path / "a.onnx")


def test_what_is_no_plain_vit_is_refused_by_its_operation(tmp_path):
    model = random_model("vit")
    relative = np.ones((1, 3, 17, 17), np.float32)
    with pytest.raises(WeightsError, match=r"holds no plain ViT: Add \(.*\) makes the scores of .*Softmax"):
        load_model(written(tmp_path / "mask.onnx", model, mask=relative))
    with pytest.raises(WeightsError, match=r"its MLP goes into Relu \(.*\), and not into a GELU"):
        load_model(written(tmp_path / "relu.onnx", model, activation="Relu"))
    with pytest.raises(WeightsError, match="the activation of its MLP is no GELU: Sigmoid"):
        load_model(written(tmp_path / "sigmoid.onnx", model, activation="Sigmoid"))
    with pytest.raises(WeightsError, match="no convolution cuts the picture that it takes into patches"):
        load_model(written(tmp_path / "sizes.onnx", model, sizes=(0, 3)))
    with pytest.raises(WeightsError, match="16 positions are added to the 8x8 patches of its pictures"):
        load_model(written(tmp_path / "sizes.onnx", model, sizes=(0, 3, 64, 64)))


@torch.no_grad()
def test_a_mask_that_masks_nothing_is_none(tmp_path):
    model = random_model("vit")
    loaded = load_model(written(tmp_path / "mask.onnx", model, mask=np.zeros((1, 1, 17, 17), np.float32)))
    x = torch.randn(1, 3, 32, 32)
    close(loaded.model.eval()({"image": x}, "label"), model(pixel_values=x).logits)


def test_damaged_files_end_in_one_error(tmp_path):
    whole = written(tmp_path / "vit.onnx", random_model("vit")).read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    refused = 0
    for i in range(60):
        data = bytearray(whole)
        if i % 2:
            del data[random.integers(len(data)) :]
        else:  # names, sizes and attributes are at the ends; most of the rest are numbers
            for at in random.integers(len(data), size=300):
                data[at] = random.integers(256)
        path.write_bytes(data)
        try:
            load_model(path)
        except WeightsError:
            refused += 1
    assert refused > 50
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match="no whole ONNX file"):
        load_model(path)
    claim = field(1, 2**40) + field(2, 1) + field(8, "claims") + field(9, b"1234")
    path.write_bytes(field(7, field(5, claim)))
    with pytest.raises(WeightsError, match=r"claims claims the shape \(1099511627776,\) for its 1 numbers"):
        load_model(path)
