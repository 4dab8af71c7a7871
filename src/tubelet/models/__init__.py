"""One module per paper, and the list of the families that the library has."""

from tubelet.configs import register
from tubelet.models.ast import AST, ASTConfig
from tubelet.models.mbt import MBT, MBTConfig
from tubelet.models.model import Encoder, Model, ModelConfig
from tubelet.models.mtv import MTV, MTVConfig
from tubelet.models.polyvit import Modality, PolyViT, PolyViTConfig
from tubelet.models.token_learner import TokenLearnerConfig, TokenLearnerViT
from tubelet.models.tubevit import TubeViT, TubeViTConfig
from tubelet.models.vit import ViT, ViTConfig
from tubelet.models.vivit import ViViT, ViViTConfig

__all__ = [
    "AST",
    "MBT",
    "MTV",
    "ASTConfig",
    "Encoder",
    "MBTConfig",
    "MTVConfig",
    "Modality",
    "Model",
    "ModelConfig",
    "PolyViT",
    "PolyViTConfig",
    "TokenLearnerConfig",
    "TokenLearnerViT",
    "TubeViT",
    "TubeViTConfig",
    "ViT",
    "ViTConfig",
    "ViViT",
    "ViViTConfig",
]

FAMILIES: dict[str, type[ModelConfig]] = {
    "vit": ViTConfig,
    "ast": ASTConfig,
    "vivit": ViViTConfig,
    "polyvit": PolyViTConfig,
    "mtv": MTVConfig,
    "mbt": MBTConfig,
    "tubevit": TubeViTConfig,
    "token_learner": TokenLearnerConfig,
}

for _name, _family in FAMILIES.items():
    register(ModelConfig, _name, _family)
