"""The kernels that the tokenizers of a model have learned: patches, tubelets and tubes (TubeViT Fig. 5)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tubelet.models.tubevit import TubeKernel
from tubelet.nn.tokenizers import TubeletTokenizer
from tubelet.weights.folder import load_model


def learned_kernels(source: str | Path) -> dict[str, NDArray[np.float32]]:
    """The kernels (D, t, h, w, C) of the tokenizers of images and videos, by the name of their layer.

    ``source``: a run, or anything else that :func:`~tubelet.weights.folder.load_model` reads. A model of sound has
    none. :func:`~tubelet.reports.pictures.kernels_picture` draws them.
    """
    loaded = load_model(source)
    towers = loaded.config.towers()
    heard = {module for tower in towers if tower.spec.modality == "audio" for module in tower.modules.values()}
    return {
        name: layer.projection.weight.detach().unflatten(1, (-1, *layer.tubelet)).movedim(1, -1).float().numpy()
        for name, layer in loaded.model.encoder.named_modules()
        if isinstance(layer, TubeletTokenizer | TubeKernel) and name not in heard
    }
