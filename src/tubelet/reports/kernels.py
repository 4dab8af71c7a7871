"""What the tokenizers of a model look for: its learned patches, tubelets and tubes (TubeViT Fig. 5)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tubelet.nn.tokenizers import TubeletTokenizer
from tubelet.nn.tubes import TubeKernel
from tubelet.weights.folder import load_model
from tubelet.weights.lanes import lanes


def learned_kernels(source: str | Path) -> dict[str, NDArray[np.float32]]:
    """The kernels (D, t, h, w, C) that cut images and videos, by the name of their layer; none for a model of sound.

    ``source``: a run, or whatever else :func:`~tubelet.weights.folder.load_model` reads.
    :func:`~tubelet.reports.pictures.kernels_picture` draws them.
    """
    loaded = load_model(source)
    heard = {lane.modules.get("tokenizer") for lane in lanes(loaded.config) if lane.spec.modality == "audio"}
    return {
        name: layer.projection.weight.detach().unflatten(1, (-1, *layer.tubelet)).movedim(1, -1).float().numpy()
        for name, layer in loaded.model.encoder.named_modules()
        if isinstance(layer, TubeletTokenizer | TubeKernel) and name not in heard
    }
