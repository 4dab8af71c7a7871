"""Where the parts of an encoder are: what models have in common, so that one can start from another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tubelet.models.ast import ASTConfig
from tubelet.models.mbt import MBTConfig
from tubelet.models.model import ModelConfig
from tubelet.models.mtv import MTVConfig
from tubelet.models.polyvit import PolyViTConfig
from tubelet.models.token_learner import TokenLearnerConfig
from tubelet.models.tubevit import TubeViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.tokenizers import Tubelet
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, VideoSpec

_ORDER = (ImageSpec, VideoSpec, SpectrogramSpec)  # what an input starts from that has nothing of its own kind


@dataclass(frozen=True)
class Tower:
    """One path through an encoder, from an input to the pooled features, or to where a stream meets the others.

    ``modules``: by the name of a part (tokenizer, cls, positions, blocks.0 to blocks.L-1, norm), the module or the
    parameter that it is in this encoder. Lanes may share modules.
    """

    name: str
    spec: InputSpec
    patch: Tubelet
    backbone: TransformerConfig
    modules: Mapping[str, str]

    def places(self, parameters: Iterable[str]) -> dict[str, str]:
        """Those of ``parameters`` that lie on the lane, by a name that is the same in every encoder."""
        found: dict[str, str] = {}
        for name in parameters:
            for part, module in self.modules.items():
                if name == module or name.startswith(f"{module}."):
                    found[part + name.removeprefix(module)] = name
        return found


def lanes(config: ModelConfig) -> tuple[Tower, ...]:
    """One lane, or one per modality or stream; Model 2's is that of its spatial encoder."""
    match config:
        case ViTConfig():
            modules = _modules(config.backbone.depth, "encoder.")
            return (Tower("image", config.image, (1, *config.patch), config.backbone, modules),)
        case ASTConfig():
            modules = _modules(config.backbone.depth, "encoder.")
            return (Tower("audio", config.audio, (1, *config.patch), config.backbone, modules),)
        case ViViTConfig():
            is_factorized = config.attention_type == "factorized_encoder"
            modules = _modules(config.backbone.depth, "encoder.spatial." if is_factorized else "encoder.")
            return (Tower("video", config.video, config.tubelet, config.backbone, modules),)
        case PolyViTConfig():
            return tuple(
                Tower(name, m.spec, m.patch, config.backbone, _polyvit(config, f"modalities.{name}."))
                for name, m in config.modalities.items()
            )
        case MBTConfig():
            return tuple(
                Tower(name, m.spec, m.patch, config.backbone, _mbt(config, f"modalities.{name}."))
                for name, m in config.modalities.items()
            )
        case MTVConfig():
            return tuple(
                Tower(name, config.media[s.input], s.tubelet, s.backbone, _stream(s.backbone.depth, f"streams.{name}."))
                for name, s in config.streams.items()
            )
        case TubeViTConfig():
            image = Tower("image", config.image, config.patch.kernel, config.backbone, _tubevit(config))
            return image, Tower("video", config.video, config.patch.kernel, config.backbone, {"tubes": "tubes"})
        case TokenLearnerConfig():
            return (Tower(config.input, config.spec, config.patch, config.backbone, _token_learner(config)),)
        case _:
            return ()


def _modules(depth: int, prefix: str) -> dict[str, str]:
    blocks = {f"blocks.{i}": f"{prefix}transformer.blocks.{i}" for i in range(depth)}
    return {**_before("tokenizer", prefix), **blocks, "norm": f"{prefix}transformer.norm"}


def _polyvit(config: PolyViTConfig, prefix: str) -> dict[str, str]:
    depth, own = config.backbone.depth, config.adaptor_depth
    adaptors = {f"blocks.{i}": f"{prefix}adaptor.blocks.{i}" for i in range(own)}
    shared = {f"blocks.{i}": f"transformer.blocks.{i - own}" for i in range(own, depth)}
    return {**_before(f"{prefix}tokenizer", prefix), **adaptors, **shared, "norm": "transformer.norm"}


def _mbt(config: MBTConfig, prefix: str) -> dict[str, str]:
    stack = "shared" if config.shared else f"{prefix}stack"
    blocks = {f"blocks.{i}": f"{stack}.blocks.{i}" for i in range(config.backbone.depth)}
    return {**_before(f"{prefix}tokenizer", prefix), **blocks, "norm": "norm"}


def _stream(depth: int, prefix: str) -> dict[str, str]:
    """An MTV's stream has a class token per time index, and no final norm."""
    blocks = {f"blocks.{i}": f"{prefix}stack.blocks.{i}" for i in range(depth)}
    return {**_before(f"{prefix}tokenizer", prefix), "cls": f"{prefix}cls.table", **blocks}


def _tubevit(config: TubeViTConfig) -> dict[str, str]:
    """All that images go through, and videos too; only the tubes are the videos' own. Positions are not learned."""
    gate, depth = config.gate, config.backbone.depth
    before = {f"blocks.{i}": f"before.blocks.{i}" for i in range(gate)}
    after = {f"blocks.{i}": f"transformer.blocks.{i - gate}" for i in range(gate, depth)}
    return {"tokenizer": "patches.kernels.0", "cls": "sequence.cls", **before, **after, "norm": "transformer.norm"}


def _token_learner(config: TokenLearnerConfig) -> dict[str, str]:
    before = {f"blocks.{i}": f"before.blocks.{i}" for i in range(config.layer)}
    after = {
        f"blocks.{i}": f"after.transformer.blocks.{i - config.layer}"
        for i in range(config.layer, config.backbone.depth)
    }
    return {**_before("tokenizer", ""), **before, **after, "norm": "after.transformer.norm"}


def _before(tokenizer: str, prefix: str) -> dict[str, str]:
    return {"tokenizer": tokenizer, "cls": f"{prefix}cls", "positions": f"{prefix}positions"}


def best_source(sources: Sequence[Tower], spec: InputSpec, name: str = "") -> Tower:
    """The lane that an input of ``spec`` starts from: one of its kind, best that of its ``name``; else the image's, the
    video's or the audio's, in this order."""

    def distance(lane: Tower) -> tuple[bool, bool, int]:
        return type(lane.spec) is not type(spec), lane.name != name, _ORDER.index(type(lane.spec))

    return min(sources, key=distance)
