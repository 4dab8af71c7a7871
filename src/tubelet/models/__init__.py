"""Models: one module or package per paper, and the list of the families that the library has."""

from __future__ import annotations

import difflib
from dataclasses import replace
from fnmatch import fnmatchcase

from tubelet.configs import register, registered
from tubelet.models.ast import AST, ASTConfig
from tubelet.models.family import SIZES, ModelConfig, Tower
from tubelet.models.mbt import MBT, MBTConfig
from tubelet.models.model import Encoder, Model
from tubelet.models.mtv import MTV, MTVConfig
from tubelet.models.polyvit import Modality, PolyViT, PolyViTConfig
from tubelet.models.timesformer import TimeSformer, TimeSformerConfig
from tubelet.models.token_learner import TokenLearnerConfig, TokenLearnerViT
from tubelet.models.tubevit import TubeViT, TubeViTConfig
from tubelet.models.vatt import VattConfig, VattEncoder
from tubelet.models.vit import ViT, ViTConfig
from tubelet.models.vivit import ViViT, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import Pool
from tubelet.nn.tokenizers import Tubelet
from tubelet.plugins import load_installed
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, VideoSpec

__all__ = [
    "AST",
    "MBT",
    "MTV",
    "SIZES",
    "ASTConfig",
    "Encoder",
    "MBTConfig",
    "MTVConfig",
    "Modality",
    "Model",
    "ModelConfig",
    "PolyViT",
    "PolyViTConfig",
    "TimeSformer",
    "TimeSformerConfig",
    "TokenLearnerConfig",
    "TokenLearnerViT",
    "Tower",
    "TubeViT",
    "TubeViTConfig",
    "VattConfig",
    "VattEncoder",
    "ViT",
    "ViTConfig",
    "ViViT",
    "ViViTConfig",
    "examples",
    "list_models",
    "model_config",
    "plain_model",
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
    "vatt": VattConfig,
    "timesformer": TimeSformerConfig,
}

for _name, _family in FAMILIES.items():
    register(ModelConfig, _name, _family)

load_installed()


def examples() -> tuple[str, ...]:
    """Names of models, some of each family, those of plugins too."""
    return tuple(name for family in registered(ModelConfig).values() for name in family.examples)


def model_config(name: str, *, frames: int = 0, size: int = 0) -> ModelConfig:
    """The config that ``name`` stands for, such as "vivit-b/16x2-fe"; each family's ``parse`` says what its names mean.

    ``frames`` and ``size`` (pixels, square) replace the papers' 32 and 224. Raises ValueError, naming examples, for a
    name that no family has.
    """
    for family in registered(ModelConfig).values():
        if (config := family.parse(name.lower(), frames=frames, size=size)) is not None:
            return config
    close = difflib.get_close_matches(name.lower(), list_models(), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    raise ValueError(f"no model is called {name!r}{hint} names look like {', '.join(examples())}")


def list_models(pattern: str = "*") -> list[str]:
    """The names of models that match ``pattern``, such as "vivit*": every family's examples in every size.

    Many more names have a meaning: other patches, numbers of frames, streams and tokens; see :func:`model_config`.
    """
    found: dict[str, None] = {}
    for example in examples():
        family, dash, rest = example.partition("-")
        size, slash, tail = rest.partition("/")
        sizes = [size] if "+" in rest or size not in SIZES else list(SIZES)
        found |= dict.fromkeys(f"{family}{dash}{letters}{slash}{tail}" for letters in sizes)
    return [name for name in found if fnmatchcase(name, pattern.lower())]


def plain_model(
    spec: InputSpec, patch: Tubelet, backbone: TransformerConfig, pool: Pool = "token", *, factorized: bool = False
) -> ModelConfig:
    """The model for one input whose tokens all attend to each other: ViT, AST, or ViViT's Model 1.

    ``patch``: (t, h, w). ``factorized``: ViViT's Model 2 for video. Raises ValueError for an input that none takes.
    """
    match spec:
        case ImageSpec():
            return ViTConfig(backbone=backbone, patch=patch[1:], image=spec, pool=pool)
        case SpectrogramSpec():
            return ASTConfig(backbone=backbone, patch=patch[1:], audio=spec, pool=pool)
        case VideoSpec():
            config = ViViTConfig(backbone=backbone, tubelet=patch, video=spec, pool=pool)
            return replace(config, attention_type="factorized_encoder") if factorized else config
        case _:
            raise ValueError(f"no plain model takes {type(spec).__name__}; a PolyViT of one modality takes any raster")
