"""Names of models, as the papers write them, and the one parser that reads them.

``vit-b/16`` is an image ViT and ``ast-b/16`` the same on spectrograms; ``polyvit-b/16x4`` takes images, audio and, in
tubelets of 16x16 pixels and 4 frames, video; ``tubevit-b/16`` takes images in patches of 16x16 and videos in sparse
tubes, too. ``vivit-b/16x2`` is ViViT's Model 1 with tubelets of 16x16 pixels and 2 frames, and the suffixes ``-fe``,
``-fsa``, ``-fdp`` name Models 2 (factorized encoder), 3 (self-attention) and 4 (dot product). ``vit-l/16-tl16@12`` is
TokenLearner (v1.1): 16 tokens learned before layer 12, counted from 0; ``-tlf`` fuses them back, ``+11`` adds so many
layers, and ``vivit-b/16x2-tl8@6`` learns 8 tokens from every time index.

``mtv-b/2+s/4+ti/8`` is MTV with three streams, of tubelets of 2, 4 and 8 frames, and cross-view attention in the middle
and the last layer, as released; ``-late``, ``-mlp`` and ``-bottleneck`` name its other fusions. ``mbt-b/16x2`` takes
video and its sound, which meet in bottleneck tokens from two thirds of the layers on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from tubelet.models.ast import ASTConfig
from tubelet.models.mbt import MBTConfig
from tubelet.models.model import ModelConfig
from tubelet.models.mtv import BottleneckFusion, CrossViewFusion, Fusion, MLPFusion, MTVConfig, Stream
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.models.token_learner import TokenLearnerConfig
from tubelet.models.tubevit import PATCH, TubeViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import AttentionType, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.tokenizers import Tubelet
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec

_Sized = ViTConfig | ASTConfig | ViViTConfig | PolyViTConfig | MBTConfig | TubeViTConfig | TokenLearnerConfig

BACKBONES = {
    "ti": TransformerConfig(width=192, depth=12, heads=3, mlp=768),
    "s": TransformerConfig(width=384, depth=12, heads=6, mlp=1536),
    "b": TransformerConfig(width=768, depth=12, heads=12, mlp=3072),
    "l": TransformerConfig(width=1024, depth=24, heads=16, mlp=4096),
    "h": TransformerConfig(width=1280, depth=32, heads=16, mlp=5120),
}

_VIVIT: dict[str, AttentionType] = {
    "": "joint",
    "-fe": "factorized_encoder",
    "-fsa": "factorized_self_attention",
    "-fdp": "factorized_dot_product",
}

_NAME = re.compile(
    r"(?P<family>vit|ast|vivit|polyvit|tubevit|mbt)-(?P<size>ti|s|b|l|h)/(?P<patch>\d+)(?:x(?P<t>\d+))?(?P<attends>-[a-z]+)?"
    r"(?:-tl(?P<fuse>f?)(?P<tokens>\d+)@(?P<layer>\d+)(?:\+(?P<more>\d+))?)?"
)

_SIZE = r"(?:ti|s|b|l|h)/[1-9]\d*"
_MTV_NAME = re.compile(rf"mtv-(?P<streams>{_SIZE}(?:\+{_SIZE})*)(?P<fusion>-[a-z]+)?")

_FUSIONS: dict[str, Callable[[tuple[int, ...]], Fusion | None]] = {
    "": lambda layers: CrossViewFusion(layers=layers),
    "-late": lambda layers: None,
    "-mlp": lambda layers: MLPFusion(),
    "-bottleneck": lambda layers: BottleneckFusion(layers=layers),
}

EXAMPLES = (
    "vit-b/16",
    "ast-b/16",
    "vivit-b/16x2",
    "vivit-b/16x2-fe",
    "vivit-b/16x2-fsa",
    "vivit-b/16x2-fdp",
    "vivit-l/16x2-fe",
    "polyvit-b/16x4",
    "tubevit-b/16",
    "mbt-b/16x2",
    "mtv-b/2+s/4+ti/8",
    "mtv-l/2+b/4+s/8+ti/16-late",
    "vit-l/14-tl16@18+11",
    "vivit-b/16x2-tlf8@6",
)


def model_config(name: str, *, frames: int = 0, size: int = 0) -> ModelConfig:
    """The config that ``name`` stands for; ``frames`` and ``size`` (pixels, square) replace the papers' 32 and 224.

    Raises ValueError, naming examples, for a name that no family has.
    """
    if match := _MTV_NAME.fullmatch(name.lower()):
        return _mtv(name, match["streams"], match["fusion"] or "", frames, size)
    match = _NAME.fullmatch(name.lower())
    if match is None:
        raise _unknown(name)
    backbone, patch, suffix = BACKBONES[match["size"]], int(match["patch"]), match["attends"] or ""
    t = int(match["t"] or 0)
    if match["tokens"]:
        return _token_learner(name, match, frames, size)
    match match["family"]:
        case "vit" if not t and not suffix:
            _refuse(name, "a model of images", frames=frames)
            return ViTConfig(backbone=backbone, patch=(patch, patch), image=_image(size))
        case "ast" if not t and not suffix:
            _refuse(name, "a model of spectrograms", frames=frames, size=size)
            return ASTConfig(backbone=backbone, patch=(patch, patch))
        case "polyvit" if t and not suffix:
            _refuse(name, "a model of several modalities", frames=frames, size=size)
            return _polyvit(backbone, t, patch)
        case "mbt" if t and not suffix:
            return _mbt(backbone, (t, patch, patch), _video(frames, size))
        case "tubevit" if not t and not suffix:
            return _tubevit(backbone, patch, frames, size)
        case "vivit" if t and suffix in _VIVIT:
            return _vivit(backbone, (t, patch, patch), _VIVIT[suffix], frames, size)
        case _:
            raise _unknown(name)


def _unknown(name: str) -> ValueError:
    return ValueError(f"no model is called {name!r}; names look like {', '.join(EXAMPLES)}")


def _refuse(name: str, kind: str, **given: int) -> None:
    if asked := [option for option, value in given.items() if value]:
        raise ValueError(f"{name!r} is {kind}: it has no {' or '.join(asked)} of a video to set")


def _vivit(
    backbone: TransformerConfig, tubelet: Tubelet, attends: AttentionType, frames: int, size: int
) -> ViViTConfig:
    video = _video(frames, size)
    pool = "token" if attends in ("joint", "factorized_encoder") else "mean"
    return ViViTConfig(backbone=backbone, tubelet=tubelet, video=video, attention_type=attends, pool=pool)


def _tubevit(backbone: TransformerConfig, patch: int, frames: int, size: int) -> TubeViTConfig:
    """The four tubes of Table 12, that of single frames with the image model's patch."""
    cut = replace(PATCH, kernel=(1, patch, patch), stride=(PATCH.stride[0], patch, patch))
    return TubeViTConfig(backbone=backbone, image=_image(size), video=_video(frames, size), patch=cut)


def _token_learner(name: str, match: re.Match[str], frames: int, size: int) -> TokenLearnerConfig:
    family, t, backbone = match["family"], int(match["t"] or 0), BACKBONES[match["size"]]
    if match["attends"] or (family, t > 0) not in (("vit", False), ("vivit", True)):
        raise _unknown(name)
    if family == "vit":
        _refuse(name, "a model of images", frames=frames)
    return TokenLearnerConfig(
        backbone=replace(backbone, depth=backbone.depth + int(match["more"] or 0)),
        spec=_video(frames, size) if t else _image(size),
        patch=(t or 1, int(match["patch"]), int(match["patch"])),
        tokens=int(match["tokens"]),
        layer=int(match["layer"]),
        fuse=bool(match["fuse"]),
    )


def _image(size: int) -> ImageSpec:
    return ImageSpec(size=(size, size), short_side=_short_side(size)) if size else ImageSpec()


def _video(frames: int, size: int) -> VideoSpec:
    video = VideoSpec(frames=frames or 32)
    return replace(video, size=(size, size), short_side=_short_side(size)) if size else video


def _polyvit(backbone: TransformerConfig, t: int, patch: int) -> PolyViTConfig:
    """The three modalities of PolyViT's Table 7."""
    return PolyViTConfig(
        backbone=backbone,
        modalities={
            "image": Modality(spec=ImageSpec(size=(384, 384), short_side=384), patch=(1, patch, patch)),
            "video": Modality(spec=VideoSpec(), patch=(t, patch, patch)),
            "audio": Modality(spec=SpectrogramSpec(), patch=(1, patch, patch)),
        },
    )


def _mbt(backbone: TransformerConfig, tubelet: Tubelet, video: VideoSpec) -> MBTConfig:
    """MBT's AudioSet model: 8 s of sound, fusion from layer 8 of 12 on."""
    modalities = {
        "video": Modality(spec=video, patch=tubelet),
        "audio": Modality(spec=SpectrogramSpec(), patch=(1, *tubelet[1:])),
    }
    return MBTConfig(backbone=backbone, modalities=modalities, fusion_layer=backbone.depth * 2 // 3)


def _mtv(name: str, streams: str, fusion: str, frames: int, size: int) -> MTVConfig:
    """Patches of 16 pixels (14 of Huge), and the released global encoder, whose MLP has 3072 units whatever its width.

    Fusion lies in the middle and last layer of the deepest stream: 5 and 11, or 11 and 23, as released.
    """
    pairs = sorted((pair.split("/") for pair in streams.split("+")), key=lambda pair: -int(pair[1]))
    if len({t for _, t in pairs}) < len(pairs):
        raise ValueError(f"{name!r}: two streams have one tubelet length; give each its own")
    if fusion not in _FUSIONS or (fusion and len(pairs) == 1):
        raise _unknown(name)
    chosen = {f"{letters}{t}": _stream(letters, int(t)) for letters, t in pairs}
    depth = max(stream.backbone.depth for stream in chosen.values())
    return MTVConfig(
        streams=chosen,
        media={"video": _video(frames, size)},
        global_encoder=TransformerConfig(
            width=sum(s.backbone.width for s in chosen.values()), depth=12, heads=8, mlp=3072
        ),
        fusion=_FUSIONS[fusion]((depth // 2 - 1, depth - 1)) if len(pairs) > 1 else None,
    )


def _stream(size: str, t: int) -> Stream:
    side = 14 if size == "h" else 16
    return Stream(backbone=BACKBONES[size], tubelet=(t, side, side))


def model_name(config: ModelConfig) -> str | None:
    """The name whose config is ``config``, up to the input's size and the regularizers; None where no name says it."""
    if isinstance(config, MTVConfig):
        return _mtv_name(config)
    if not isinstance(config, _Sized):
        return None
    plain = _plain(config.backbone)
    name = (size := _size_of(plain)) and _name(config, size)
    return name if name and _same(replace(config, backbone=plain), model_config(name)) else None


def _size_of(backbone: TransformerConfig) -> str | None:
    return next((size for size, named in BACKBONES.items() if replace(named, depth=backbone.depth) == backbone), None)


def _mtv_name(config: MTVConfig) -> str | None:
    """The largest streams first, and of one size the finest."""
    streams = {n: replace(stream, backbone=_plain(stream.backbone)) for n, stream in config.streams.items()}
    sizes = {n: _size_of(stream.backbone) for n, stream in streams.items()}
    fusion = next((suffix for suffix, kind in _FUSIONS.items() if type(kind((0,))) is type(config.fusion)), "")
    parts = sorted((-stream.backbone.width, stream.tubelet[0], sizes[n]) for n, stream in streams.items())
    joined = "+".join(f"{size}/{t}" for _, t, size in parts)
    name = f"mtv-{joined}{fusion if len(streams) > 1 else ''}"
    if _MTV_NAME.fullmatch(name) is None or len({t for _, t, _ in parts}) < len(parts):
        return None
    named = model_config(name)
    plain = replace(config, streams=streams, global_encoder=_plain(config.global_encoder))
    return name if _same(plain, named) else None


def _same(config: ModelConfig, named: ModelConfig) -> bool:
    """Whether the two are one model, for inputs of any size."""
    match config, named:
        case ViTConfig(), ViTConfig():
            return replace(config, image=named.image) == named
        case ASTConfig(), ASTConfig():
            return replace(config, audio=named.audio) == named
        case ViViTConfig(), ViViTConfig():
            return replace(config, video=named.video) == named
        case (PolyViTConfig(), PolyViTConfig()) | (MBTConfig(), MBTConfig()):
            ours = {name: (type(m.spec), m.patch) for name, m in config.modalities.items()}
            theirs = {name: (type(m.spec), m.patch) for name, m in named.modalities.items()}
            return ours == theirs and replace(config, modalities=named.modalities) == named
        case MTVConfig(), MTVConfig():
            same_media = {n: type(spec) for n, spec in config.media.items()} == {"video": VideoSpec}
            return (
                same_media
                and list(config.streams) == list(named.streams)
                and replace(config, media=named.media) == named
            )
        case TubeViTConfig(), TubeViTConfig():
            parts = (config.tubes, config.learned, config.gate, config.pool, config.patch, config.backbone)
            return parts == (named.tubes, named.learned, named.gate, named.pool, named.patch, named.backbone)
        case TokenLearnerConfig(), TokenLearnerConfig():
            return config.input == named.input and replace(config, spec=named.spec) == named
        case _:
            return False


def _name(config: _Sized, size: str) -> str | None:
    match config:
        case ViTConfig():
            return f"vit-{size}/{config.patch[0]}"
        case ASTConfig():
            return f"ast-{size}/{config.patch[0]}"
        case ViViTConfig():
            suffix = next(suffix for suffix, attends in _VIVIT.items() if attends == config.attention_type)
            return f"vivit-{size}/{config.tubelet[1]}x{config.tubelet[0]}{suffix}"
        case PolyViTConfig():
            video = config.modalities.get("video")
            return f"polyvit-{size}/{video.patch[1]}x{video.patch[0]}" if video else None
        case MBTConfig():
            video = config.modalities.get("video")
            return f"mbt-{size}/{video.patch[1]}x{video.patch[0]}" if video else None
        case TubeViTConfig():
            return f"tubevit-{size}/{config.patch.kernel[1]}"
        case TokenLearnerConfig():
            t, patch, _ = config.patch
            base = f"vivit-{size}/{patch}x{t}" if config.input == "video" else f"vit-{size}/{patch}"
            more = config.backbone.depth - BACKBONES[size].depth
            return f"{base}-tl{'f' * config.fuse}{config.tokens}@{config.layer}{f'+{more}' if more > 0 else ''}"


def _plain(backbone: TransformerConfig) -> TransformerConfig:
    return replace(backbone, dropout=0.0, attention_dropout=0.0, stochastic_depth=0.0, rescale_depth=False)


def _short_side(size: int) -> int:
    """The papers resize to 256 for crops of 224: the same proportion, rounded."""
    return round(size * 256 / 224)
