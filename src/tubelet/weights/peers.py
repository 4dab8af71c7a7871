"""A model here and, as another library loads it from its own layout, there: both given the same input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.weights.files import reason
from tubelet.weights.formats import Layout
from tubelet.weights.formats.written import Written
from tubelet.weights.loaded import LoadedModel

TOLERANCE = 1e-4
"""How far apart two libraries' tokens and logits may be: float32's rounding in another order, and a margin."""

_SEED, _EXAMPLES = 0, 2


def check_installed(layout: Layout) -> None:
    """Raise ModuleNotFoundError where the library of a layout is not there to compare with, or does not load."""
    try:
        import_module(layout)
    except (ImportError, OSError, RuntimeError) as error:  # torchvision, which timm imports, has other errors, too
        raise ModuleNotFoundError(
            f"{layout}, to compare with, cannot be loaded ({reason(error)}): pip install {layout}, or leave --check out"
        ) from error


@torch.no_grad()
def compare(folder: str | Path, made: Written, loaded: LoadedModel, layout: Layout, task: str = "") -> dict[str, float]:
    """The largest difference of tokens, and of logits where there is a head, between ``loaded`` and what the other
    library loads from ``folder``: both are given the same random numbers, in the place of normalized input.

    ``made`` and ``task``: what :func:`~tubelet.weights.layouts.save_layout` returned, and was given.
    """
    ((name, spec),) = loaded.config.inputs.items()
    x = torch.randn(_EXAMPLES, *spec.shape, generator=torch.Generator().manual_seed(_SEED))
    model, training = loaded.model, loaded.model.training
    try:
        features = model.eval().encoder({name: x.to(next(model.parameters()).device)})
        ours = {"tokens": features.tokens}
        if loaded.tasks:
            ours["logits"] = model.heads[task or next(iter(loaded.tasks))](features)
    finally:
        model.train(training)
    theirs = _LIBRARIES[layout](Path(folder), made, x)
    return {key: float((value.cpu() - theirs[key]).abs().max()) for key, value in ours.items()}


def _transformers(folder: Path, made: Written, x: Tensor) -> Mapping[str, Tensor]:
    model: Any = getattr(import_module("transformers"), made.kind).from_pretrained(folder).eval()
    base = getattr(model, model.base_model_prefix, None)
    if base is None:
        return {"tokens": made.tokens(model(x).last_hidden_state)}
    return {"tokens": made.tokens(base(x).last_hidden_state), "logits": model(x).logits}


def _timm(folder: Path, made: Written, x: Tensor) -> Mapping[str, Tensor]:
    model: Any = import_module("timm").create_model(f"local-dir:{folder}", pretrained=True).eval()
    return {"tokens": made.tokens(model.forward_features(x)), "logits": model(x)}


_LIBRARIES: dict[Layout, Callable[[Path, Written, Tensor], Mapping[str, Tensor]]] = {
    "transformers": _transformers,
    "timm": _timm,
}
