"""One file per paper; importing this package makes every config known to :mod:`tubelet.configs`."""

from tubelet.models.model import Encoder, Model, ModelConfig
from tubelet.models.vit import ViT, ViTConfig
from tubelet.models.vivit import ViViT, ViViTConfig

__all__ = ["Encoder", "Model", "ModelConfig", "ViT", "ViTConfig", "ViViT", "ViViTConfig"]
