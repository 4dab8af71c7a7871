"""Names of models, as the papers write them, and the one parser that reads them.

``vit-b/16`` is an image ViT; ``vivit-b/16x2`` is ViViT's Model 1 with tubelets of 16x16 pixels and 2 frames, and the
suffixes ``-fe``, ``-fsa``, ``-fdp`` name Models 2 (factorised encoder), 3 (self-attention) and 4 (dot product).
"""

from __future__ import annotations

import re
from dataclasses import replace

from tubelet.models.model import ModelConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import Attends, ViViTConfig
from tubelet.nn.blocks import Backbone
from tubelet.specs import ImageSpec, VideoSpec

BACKBONES = {
    "ti": Backbone(width=192, depth=12, heads=3, mlp=768),
    "s": Backbone(width=384, depth=12, heads=6, mlp=1536),
    "b": Backbone(width=768, depth=12, heads=12, mlp=3072),
    "l": Backbone(width=1024, depth=24, heads=16, mlp=4096),
    "h": Backbone(width=1280, depth=32, heads=16, mlp=5120),
}

_VIVIT: dict[str, Attends] = {
    "": "joint",
    "-fe": "factorized_encoder",
    "-fsa": "factorized_self_attention",
    "-fdp": "factorized_dot_product",
}

_NAME = re.compile(r"(?P<family>vit|vivit)-(?P<size>ti|s|b|l|h)/(?P<patch>\d+)(?:x(?P<t>\d+))?(?P<attends>-[a-z]+)?")

EXAMPLES = ("vit-b/16", "vivit-b/16x2", "vivit-b/16x2-fe", "vivit-b/16x2-fsa", "vivit-b/16x2-fdp", "vivit-l/16x2-fe")


def model_config(name: str, *, frames: int = 0, size: int = 0) -> ModelConfig:
    """The config that ``name`` stands for; ``frames`` and ``size`` (pixels, square) replace the papers' 32 and 224.

    Raises ValueError, naming examples, for a name that no family has.
    """
    match = _NAME.fullmatch(name.lower())
    if match is None or (match["family"] == "vit") != (match["t"] is None) or (match["attends"] or "") not in _VIVIT:
        raise ValueError(f"no model is called {name!r}; names look like {', '.join(EXAMPLES)}")
    backbone, patch = BACKBONES[match["size"]], int(match["patch"])
    if match["family"] == "vit":
        if frames or match["attends"]:
            raise ValueError(f"{name!r} is a model of images: it has neither frames nor a way to attend over them")
        image = ImageSpec() if not size else ImageSpec(size=(size, size), short_side=_short_side(size))
        return ViTConfig(backbone=backbone, patch=(patch, patch), image=image)
    video = VideoSpec(frames=frames or 32)
    if size:
        video = replace(video, size=(size, size), short_side=_short_side(size))
    attends = _VIVIT[match["attends"] or ""]
    pool = "token" if attends in ("joint", "factorized_encoder") else "mean"
    tubelet = (int(match["t"]), patch, patch)
    return ViViTConfig(backbone=backbone, tubelet=tubelet, video=video, attends=attends, pool=pool)


def model_name(config: ModelConfig) -> str | None:
    """The name whose config is ``config``, up to the input's size and the regularisers; None where no name says it."""
    if isinstance(config, ViTConfig | ViViTConfig):
        plain = _plain(config.backbone)
        size = next((size for size, backbone in BACKBONES.items() if backbone == plain), None)
        if size is not None:
            name = _name(config, size)
            named = model_config(name)
            if isinstance(config, ViTConfig) and isinstance(named, ViTConfig):
                return name if replace(config, image=named.image, backbone=plain) == named else None
            if isinstance(config, ViViTConfig) and isinstance(named, ViViTConfig):
                return name if replace(config, video=named.video, backbone=plain) == named else None
    return None


def _name(config: ViTConfig | ViViTConfig, size: str) -> str:
    if isinstance(config, ViTConfig):
        return f"vit-{size}/{config.patch[0]}"
    suffix = next(suffix for suffix, attends in _VIVIT.items() if attends == config.attends)
    return f"vivit-{size}/{config.tubelet[1]}x{config.tubelet[0]}{suffix}"


def _plain(backbone: Backbone) -> Backbone:
    return replace(backbone, dropout=0.0, attention_dropout=0.0, stochastic_depth=0.0, rescale_depth=False)


def _short_side(size: int) -> int:
    """The papers resize to 256 for crops of 224: the same proportion, rounded."""
    return round(size * 256 / 224)
