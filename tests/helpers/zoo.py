"""Every kind of model that the library names, small enough to run in a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.configs import registered
from tubelet.models import (
    ASTConfig,
    MBTConfig,
    Modality,
    Model,
    ModelConfig,
    MTVConfig,
    PolyViTConfig,
    TimeSformerConfig,
    TokenLearnerConfig,
    TubeViTConfig,
    VattConfig,
    ViTConfig,
    ViViTConfig,
)
from tubelet.models.family import map_transformers
from tubelet.models.mtv import BottleneckFusion, CrossViewFusion, MLPFusion, Stream
from tubelet.models.tubevit import Tube
from tubelet.models.vatt import Sense, Words
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.features import Features
from tubelet.nn.heads import LinearHead
from tubelet.plugins import load_plugin
from tubelet.specs import ImageSpec, SpectrogramSpec, TextSpec, VideoSpec, WaveformSpec

SMALL = TransformerConfig(width=16, depth=2, heads=2, mlp=32)
IMAGE = ImageSpec(size=(16, 24), short_side=24)
VIDEO = VideoSpec(frames=6, size=(16, 24), short_side=24)
AUDIO = SpectrogramSpec(frames=24, bins=16)
SOUND = WaveformSpec(samples=100, rate=1000)
TEXT = TextSpec(captions=3, words=5, ids=40)
_MODALITIES = {
    "image": Modality(spec=IMAGE, patch=(1, 8, 8)),
    "video": Modality(spec=VIDEO, patch=(2, 8, 8)),
    "audio": Modality(spec=AUDIO, patch=(1, 8, 8)),
}

_LEARNER = TokenLearnerConfig(backbone=SMALL, spec=IMAGE, patch=(1, 8, 8), tokens=3, layer=1)
_VIDEO_LEARNER = replace(_LEARNER, spec=VIDEO, patch=(2, 8, 8))
_VIVIT = ViViTConfig(backbone=SMALL, tubelet=(2, 8, 8), video=VIDEO)
_TUBEVIT = TubeViTConfig(
    backbone=SMALL,
    image=IMAGE,
    video=VIDEO,
    patch=Tube(kernel=(1, 8, 8), stride=(4, 8, 8)),
    tubes=(
        Tube(kernel=(2, 4, 4), stride=(4, 8, 8), neighbors=(2, 1, 1)),
        Tube(kernel=(4, 2, 2), stride=(2, 8, 8), offset=(0, 2, 2), neighbors=(1, 2, 2)),
    ),
)

_MTV = MTVConfig(
    streams={
        "coarse": Stream(backbone=SMALL, tubelet=(6, 8, 8)),
        "middle": Stream(backbone=TransformerConfig(width=8, depth=1, heads=2, mlp=16), tubelet=(2, 8, 8)),
        "fine": Stream(backbone=SMALL, tubelet=(1, 8, 8)),
    },
    media={"video": replace(VIDEO, frames=6)},
    global_encoder=TransformerConfig(width=40, depth=1, heads=2, mlp=32),
    fusion=CrossViewFusion(layers=(0, 1)),
)
_TWO = replace(
    _MTV,
    streams={name: _MTV.streams[name] for name in ("coarse", "fine")},
    global_encoder=TransformerConfig(width=32, depth=1, heads=2, mlp=32),
)
_MBT = MBTConfig(
    backbone=SMALL,
    modalities={name: _MODALITIES[name] for name in ("video", "audio")},
    fusion_layer=1,
    bottlenecks=2,
)

# Its sound leaves a ragged tail, its captions have pads.
_VATT = VattConfig(
    modalities={
        "video": Sense(spec=VIDEO, patch=(2, 8, 8), backbone=SMALL),
        "audio": Sense(spec=SOUND, patch=(1, 1, 16), backbone=replace(SMALL, width=8, head_width=6)),
        "text": Words(spec=TEXT, backbone=replace(SMALL, width=24), vectors=10, learned=True),
    }
)
_AGNOSTIC = VattConfig(
    modalities={
        "video": Sense(spec=VIDEO, patch=(2, 8, 8), backbone=SMALL),
        "audio": Sense(spec=SOUND, patch=(1, 1, 16), backbone=SMALL),
        "text": Words(spec=TEXT, backbone=SMALL, vectors=10),
    },
    projection=12,
    kept=0.5,
)

ZOO: dict[str, ModelConfig] = {
    "vit": ViTConfig(backbone=SMALL, patch=(8, 8), image=IMAGE),
    "vit-mean": ViTConfig(backbone=SMALL, patch=(8, 8), image=IMAGE, pool="mean"),
    "vit-representation": ViTConfig(backbone=SMALL, patch=(8, 8), image=IMAGE, representation=12),
    "model1": _VIVIT,
    "model1-mean": replace(_VIVIT, pool="mean"),
    "model1-sampling": replace(_VIVIT, tubelet=(1, 8, 8), sampled_frames=3),
    "model2": replace(_VIVIT, attention_type="factorized_encoder", temporal_depth=2),
    "model2-mean": replace(_VIVIT, attention_type="factorized_encoder", temporal_depth=1, pool="mean"),
    "model2-average": replace(_VIVIT, attention_type="factorized_encoder", temporal_depth=0),
    "model3": replace(_VIVIT, attention_type="factorized_self_attention", pool="mean"),
    "model3-time-space": replace(_VIVIT, attention_type="factorized_self_attention", pool="mean", order="time_space"),
    "model1-fixed": replace(_VIVIT, pool="mean", positions="sinusoids", final_norm=False, norm_pooled=1e-5),
    "ast": ASTConfig(backbone=SMALL, patch=(8, 8), audio=AUDIO),
    "ast-overlapping": ASTConfig(
        backbone=SMALL,
        patch=(8, 8),
        stride=(5, 4),
        audio=replace(AUDIO, channels=1),
        pool="tokens-mean",
        registers=1,
        norm_pooled=1e-6,
    ),
    **{
        f"polyvit-{name}": PolyViTConfig(backbone=SMALL, modalities={name: modality}, adaptor_depth=depth)
        for depth, (name, modality) in enumerate(_MODALITIES.items())
    },
    "model4": replace(_VIVIT, attention_type="factorized_dot_product", pool="mean"),
    "tubevit": _TUBEVIT,
    "tubevit-mean-gated": replace(_TUBEVIT, pool="mean", gate=1),
    "tubevit-learned": replace(_TUBEVIT, positions="learned", added=1),
    "tubevit-relative": replace(_TUBEVIT, positions="relative"),
    "tubevit-patches": replace(_TUBEVIT, tubes=(), positions="fixed-no-stride"),
    "tubevit-interpolated": replace(_TUBEVIT, learned=((2, 2, 2), (2, 4, 4))),
    "timesformer": TimeSformerConfig(backbone=SMALL, patch=(8, 8), video=VIDEO),
    "mtv": _MTV,
    "mtv-source-fine": replace(_TWO, fusion=CrossViewFusion(layers=(1,), width="source", towards="fine")),
    "mtv-bottleneck": replace(_MTV, fusion=BottleneckFusion(layers=(0, 1), tokens=2)),
    "mtv-mlp": replace(_TWO, fusion=MLPFusion()),
    "mtv-late-time": replace(_TWO, fusion=None, merge="time", pool="mean", keep_space=True),
    "mtv-sound": replace(
        _TWO,
        media=_TWO.media | {"audio": AUDIO},
        streams=_TWO.streams | {"sound": Stream(backbone=SMALL, tubelet=(1, 4, 8), input="audio", segments=6)},
        global_encoder=TransformerConfig(width=48, depth=1, heads=2, mlp=32),
    ),
    "mbt": _MBT,
    "mbt-shared-late": replace(_MBT, shared=True, fusion_layer=2),
    "mbt-concatenated": replace(_MBT, fusion="concatenate", pool="mean"),
    "mbt-concatenated-shared": replace(_MBT, fusion="concatenate", shared=True, fusion_layer=0, representation=12),
    "token-learner": _LEARNER,
    "token-learner-conv": replace(_LEARNER, form="conv", layer=0),
    "token-learner-attention": replace(_LEARNER, form="attention", representation=12),
    "token-learner-fused": replace(_LEARNER, fuse=True),
    "token-learner-video": _VIDEO_LEARNER,
    "token-learner-video-fused": replace(_VIDEO_LEARNER, fuse=True, layer=0),
    "token-learner-clip": replace(_VIDEO_LEARNER, over="clip", form="conv"),
    "token-learner-clip-fused": replace(_VIDEO_LEARNER, over="clip", form="attention", fuse=True),
    "vatt": _VATT,
    "vatt-agnostic": _AGNOSTIC,
    "vatt-video": _VATT.with_only(["video"]),
    "vatt-image": _VATT.for_images(IMAGE),
    "vatt-sound-agnostic": _AGNOSTIC.with_only(["audio"]),
    "vatt-spectrogram": VattConfig(modalities={"audio": Sense(spec=AUDIO, patch=(1, 8, 8), backbone=SMALL)}),
    "vatt-text": _VATT.with_only(["text"]),
}


# A family from outside the library: the example of docs and CONTRIBUTING, in one file.
load_plugin(Path(__file__).parents[2] / "examples" / "add_a_paper" / "xvit.py")
ZOO["xvit"] = registered(ModelConfig)["xvit"](backbone=SMALL, patch=(8, 8), video=VIDEO)


class EveryPart(nn.Module):
    """A linear head on the features of every modality, each of which answers for itself."""

    def __init__(self, widths: dict[str, int], classes: int) -> None:
        super().__init__()
        self.projection = nn.Linear(sum(widths.values()), classes)

    def forward(self, features: Features) -> Tensor:
        pooled = [part.pooled.unflatten(0, (-1, 1)).flatten(1, -2).mean(1) for part in features.parts.values()]
        return self.projection(torch.cat(pooled, dim=1))


def build(config: ModelConfig, classes: int = 5) -> Model:
    """A model whose every parameter is random, heads included, so that gradients reach all of it."""
    torch.manual_seed(0)
    encoder = config.build()
    if isinstance(config, VattConfig) and len(config.inputs) > 1:
        head: nn.Module = EveryPart(encoder.widths, classes)
    else:
        head = LinearHead(encoder.width, classes, init="lecun")
    model = Model(encoder, {"task": head})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def example(config: ModelConfig, batch: int = 2) -> dict[str, Tensor]:
    """Inputs for one forward pass that goes through all of the model."""
    generator = torch.Generator().manual_seed(1)
    made: dict[str, Tensor] = {}
    for name in whole(config):
        spec = config.inputs[name]
        if isinstance(spec, TextSpec):
            made[name] = torch.randint(spec.ids, (batch, *spec.shape), generator=generator)
        else:
            made[name] = torch.randn(batch, *spec.shape, generator=generator)
    return made


def larger(config: ModelConfig) -> dict[str, Tensor]:
    """The example with more pixels, frames, windows or samples; captions stay as they are."""
    x = example(config)
    for name, value in x.items():
        match config.inputs[name]:
            case TextSpec():
                pass
            case WaveformSpec():
                x[name] = F.pad(value, (0, 40))
            case VideoSpec():
                x[name] = torch.cat([F.pad(value, (0, 8, 0, 16))] * 2, dim=1)
            case _:
                x[name] = F.pad(value, (0, 8, 0, 16))
    return x


def whole(config: ModelConfig) -> tuple[str, ...]:
    """The inputs that use all of the model: of images or videos, the videos; of video and sound, both."""
    return max(reversed(config.input_sets), key=len)


def noisy(config: ModelConfig, rate: float = 0.4) -> ModelConfig:
    """The config with dropout of every kind."""
    drops = {"dropout": rate, "attention_dropout": rate, "stochastic_depth": rate}
    return map_transformers(config, lambda backbone: replace(backbone, **drops))
