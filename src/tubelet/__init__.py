"""Tubelet: large-scale video understanding with transformers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tubelet.threads import limit_spinning
from tubelet.version import __version__

if TYPE_CHECKING:
    from tubelet.inference.predictor import create_model, load
    from tubelet.models import list_models
    from tubelet.nn.attention import capture_attention

__all__ = ["__version__", "capture_attention", "create_model", "list_models", "load"]

_HOME = {
    "capture_attention": "tubelet.nn.attention",
    "create_model": "tubelet.inference.predictor",
    "list_models": "tubelet.models",
    "load": "tubelet.inference.predictor",
}

limit_spinning()  # before anything of ours imports torch


def __getattr__(name: str) -> Any:
    """The public functions, on first use: they import torch, and ``import tubelet`` must stay quick."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tubelet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
