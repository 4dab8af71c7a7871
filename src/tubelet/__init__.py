"""Tubelet: large-scale video understanding with transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tubelet.threads import limit_spinning
from tubelet.version import __version__

if TYPE_CHECKING:
    from tubelet.inference.predictor import load

__all__ = ["__version__", "load"]

limit_spinning()  # before anything of ours imports torch


def __getattr__(name: str) -> Any:
    """``tubelet.load``, on first use: it imports torch, and ``import tubelet`` must stay quick."""
    if name == "load":
        from tubelet.inference.predictor import load

        return load
    raise AttributeError(f"module 'tubelet' has no attribute {name!r}")
