"""Models of one modality made to look at another (PolyViT App. D)."""

from __future__ import annotations

from dataclasses import replace

from tubelet.models.ast import ASTConfig
from tubelet.models.model import ModelConfig
from tubelet.models.polyvit import PolyViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.errors import WeightsError
from tubelet.weights.initialize import Init, initialize_from
from tubelet.weights.lanes import best_source, lanes
from tubelet.weights.loaded import LoadedModel, build_model


def adapt_to_modality(loaded: LoadedModel, spec: InputSpec, *, frames: int = 4) -> LoadedModel:
    """A model without heads that looks at inputs of ``spec``, with the weights of ``loaded`` converted.

    It is a ViT for images, an AST for audio, ViViT's Model 1 for video; of a PolyViT it takes the modality's tokenizer,
    its adaptors and the shared layers, or, where it has no such modality, those of images, else of video, else of
    audio. A model of video stays the ViViT that it is.

    Between images and audio the patch embedding stays as it is; from video it is summed over its frames; for video it
    is repeated for each of ``frames`` frames (Table 7's 4), not divided. Positions are resized in space; from video
    they are averaged over the frames before, for video repeated for every one after. (The released code starts a
    video's embedding from the central frame instead; the paper's text is followed.) Where the modality stays, the model
    computes the same features as before.

    Raises WeightsError for a model that has nothing of the kind, and ValueError for an input smaller than one patch.
    """
    config = _single(loaded.config, spec, frames)
    model = build_model(config, {})
    source = str(loaded.provenance.get("source", "the model"))
    report = initialize_from(loaded, model, config, Init(source=source, kernel="repeat"))
    return LoadedModel(model, config, provenance=loaded.provenance, dropped=report.dropped)


def _single(config: ModelConfig, spec: InputSpec, frames: int) -> ModelConfig:
    """The config of the model that looks at ``spec``."""
    match config, spec:
        case ViTConfig(), ImageSpec():
            return replace(config, image=spec)
        case ViViTConfig(), VideoSpec():
            return replace(config, video=spec)
        case ViTConfig() | ASTConfig() | ViViTConfig() | PolyViTConfig(), _:
            lane = best_source(lanes(config), spec)
            t, h, w = lane.patch
        case _:
            raise WeightsError(f"{type(config).__name__.removesuffix('Config')} has no single path for one modality")
    match spec:
        case ImageSpec():
            return ViTConfig(backbone=config.backbone, patch=(h, w), image=spec, pool=config.pool)
        case SpectrogramSpec():
            return ASTConfig(backbone=config.backbone, patch=(h, w), audio=spec, pool=config.pool)
        case VideoSpec():
            t = t if lane.spec.modality == "video" else frames
            return ViViTConfig(backbone=config.backbone, tubelet=(t, h, w), video=spec, pool=config.pool)
        case _:
            raise WeightsError(f"no model has a single path for inputs of {type(spec).__name__}")
