"""Image ViTs as the released JAX code stores them: flat .npz files, in three namings."""

import numpy as np
import pytest
import torch

from tubelet.models import ViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model
from tubelet.weights.loaded import build_model
from tubelet.weights.transfer import Init, initialize

CONFIG = ViTConfig(
    backbone=TransformerConfig(width=16, depth=2, heads=2, mlp=32),
    patch=(4, 4),
    image=ImageSpec(size=(12, 12), short_side=12),
    representation=10,
)


def released(namings=("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0"), head="head"):
    """A random ViT's arrays under the released names; ``namings`` are those of a block's four parts."""
    norm_attention, attention, norm_mlp, mlp = namings
    shapes = {
        "embedding/kernel": (4, 4, 3, 16),
        "embedding/bias": (16,),
        "cls": (1, 1, 16),
        "Transformer/posembed_input/pos_embedding": (1, 10, 16),
        "Transformer/encoder_norm/scale": (16,),
        "Transformer/encoder_norm/bias": (16,),
        "pre_logits/kernel": (16, 10),
        "pre_logits/bias": (10,),
        f"{head}/kernel": (10, 5),
        f"{head}/bias": (5,),
    }
    for i in range(2):
        block = f"Transformer/encoderblock_{i}"
        for norm in (norm_attention, norm_mlp):
            shapes |= {f"{block}/{norm}/{kind}": (16,) for kind in ("scale", "bias")}
        for part in ("query", "key", "value"):
            shapes |= {f"{block}/{attention}/{part}/kernel": (16, 2, 8), f"{block}/{attention}/{part}/bias": (2, 8)}
        shapes |= {f"{block}/{attention}/out/kernel": (2, 8, 16), f"{block}/{attention}/out/bias": (16,)}
        shapes |= {f"{block}/{mlp}/Dense_0/kernel": (16, 32), f"{block}/{mlp}/Dense_0/bias": (32,)}
        shapes |= {f"{block}/{mlp}/Dense_1/kernel": (32, 16), f"{block}/{mlp}/Dense_1/bias": (16,)}
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


AUGREG = ("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")


@torch.no_grad()
def logits(path):
    torch.manual_seed(0)
    return load_model(path).model.eval()({"image": torch.randn(2, 3, 12, 12)}, "label")


def test_the_namings_mean_the_same_model(tmp_path):
    plain = released()
    big_vision = {name.replace("Transformer/posembed_input/", ""): x for name, x in plain.items()}
    namings = {
        "plain": plain,
        "augreg": released(AUGREG),
        "scenic": released(head="output_projection"),
        "big_vision": {f"params/{name}": x for name, x in big_vision.items()},
    }
    for name, arrays in namings.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    expected = logits(tmp_path / "plain.npz")
    assert expected.std() > 0.1
    for name in namings:
        torch.testing.assert_close(logits(tmp_path / f"{name}.npz"), expected, rtol=0, atol=0)
    assert load_model(tmp_path / "plain.npz").config == CONFIG


def test_an_npz_starts_a_model_of_another_size(tmp_path):
    np.savez(tmp_path / "vit.npz", **released())
    config = ViTConfig(backbone=CONFIG.backbone, patch=(4, 4), image=ImageSpec(size=(24, 24), short_side=24))
    model = build_model(config, {})
    (report,) = initialize(model, config, [Init(source=str(tmp_path / "vit.npz"))])
    assert report.resized == ("encoder.positions.table (10, 16) to (37, 16)",)
    assert report.dropped == ("representation.dense.weight", "representation.dense.bias", "heads.label")


def test_what_is_no_such_file_says_so(tmp_path):
    arrays = released()
    del arrays["Transformer/encoder_norm/scale"]
    np.savez(tmp_path / "vit.npz", **arrays)
    with pytest.raises(WeightsError, match="no parameter 'Transformer/encoder_norm/kernel'"):
        load_model(tmp_path / "vit.npz")
    np.savez(tmp_path / "vit.npz", **released(), **{"Transformer/encoderblock_0/gamma": np.ones(3)})
    with pytest.raises(WeightsError, match=r"no place for Transformer/encoderblock_0/gamma \(3,\)"):
        load_model(tmp_path / "vit.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK not a zip")
    with pytest.raises(WeightsError, match=r"broken\.npz: not a readable \.npz"):
        load_model(tmp_path / "broken.npz")
