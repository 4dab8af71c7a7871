"""VATT: transformers that learn from video, raw sound and captions together (Akbari et al. 2021)."""

from tubelet.models.vatt.config import LinearWords, Sense, VattConfig, Words
from tubelet.models.vatt.encoder import VattEncoder

__all__ = ["LinearWords", "Sense", "VattConfig", "VattEncoder", "Words"]
