"""The one error that the weights room raises."""

from __future__ import annotations


class WeightsError(ValueError):
    """Weights that cannot be read, or that do not fit: the message names the keys and shapes and what to do next."""
