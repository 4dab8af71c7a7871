"""Models of one modality made to look at another (PolyViT App. D)."""

from __future__ import annotations

from tubelet.models import ModelConfig, plain_model
from tubelet.specs import InputSpec, VideoSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.loaded import LoadedModel, build_model
from tubelet.weights.transfer import Init, best_source, initialize_from


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
    ((name, own), *others) = config.inputs.items()
    if not others and type(own) is type(spec):
        return config.with_inputs({name: spec})
    if not config.is_plain:
        raise WeightsError(f"{config.kind} has no single path for one modality that could look at another")
    tower = best_source(config.towers(), spec)
    t, h, w = tower.patch
    frames = 1 if not isinstance(spec, VideoSpec) else t if isinstance(tower.spec, VideoSpec) else frames
    return plain_model(spec, (frames, h, w), tower.backbone, tower.pool)
