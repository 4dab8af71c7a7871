"""AST: the image ViT on spectrograms (Gong et al. 2021; PolyViT Sec. 3.1; MBT's audio-only baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from tubelet.models.family import PATCH_NAME, SIZES, ModelConfig, Tower, matched, refuse, size_letters
from tubelet.models.model import Encoder
from tubelet.models.rollout import Maps, Shares, plain
from tubelet.models.vit import MOST_REGISTERS, Representation, encoder_modules
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import TokenEncoder
from tubelet.nn.features import Features
from tubelet.nn.positions import Grid
from tubelet.nn.tokenizers import Tubelet, TubeletTokenizer, grid_of
from tubelet.specs import InputSpec, SpectrogramSpec


@dataclass(frozen=True, kw_only=True)
class ASTConfig(ModelConfig):
    """``patch`` is (frames, mel bins). ``stride``: how far apart patches begin; with (0, 0) they do not overlap, as in
    MBT and PolyViT. ``pool`` and ``registers``: see :class:`~tubelet.nn.encoding.TokenSequence`. ``norm_pooled``: the
    epsilon of a layer norm of the pooled features, if not 0. Gong et al. have strides of 10, a distillation token,
    which is a register, the pool "tokens-mean", and that norm.
    """

    examples = ("ast-b/16",)

    backbone: TransformerConfig
    patch: tuple[int, int] = (16, 16)
    stride: tuple[int, int] = (0, 0)
    audio: SpectrogramSpec = SpectrogramSpec()
    pool: Literal["token", "mean", "tokens-mean"] = "token"
    registers: int = 0
    norm_pooled: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.registers <= MOST_REGISTERS:
            raise ValueError(f"{self.registers=} must be from 0 to {MOST_REGISTERS}")
        if self.norm_pooled < 0:
            raise ValueError(f"{self.norm_pooled=} must not be negative")
        _ = self.grid

    @property
    def steps(self) -> Tubelet:
        """How far apart patches begin: (1, frames, mel bins)."""
        return (1, *(self.stride if any(self.stride) else self.patch))

    @property
    def grid(self) -> Grid:
        """The patches (1, time, frequency) of a spectrogram."""
        return grid_of(self.audio.extent, (1, *self.patch), self.steps)

    @property
    def inputs(self) -> Mapping[str, SpectrogramSpec]:
        return {"audio": self.audio}

    def build(self) -> AST:
        return AST(self)

    @classmethod
    def parse(cls, name: str, *, frames: int = 0, size: int = 0) -> ASTConfig | None:
        """``ast-b/16``: patches of 16 windows and 16 mel bins."""
        if (match := matched(rf"ast-{PATCH_NAME}", name)) is None:
            return None
        refuse(name, "a model of spectrograms", frames=frames, size=size)
        patch = int(match["patch"])
        return cls(backbone=SIZES[match["size"]], patch=(patch, patch))

    def spelled(self) -> str | None:
        return f"ast-{size_letters(self.backbone)}/{self.patch[0]}"

    def with_inputs(self, specs: Mapping[str, InputSpec]) -> ASTConfig:
        return replace(self, audio=specs["audio"])

    def towers(self) -> tuple[Tower, ...]:
        modules = encoder_modules(self.backbone.depth)
        if self.registers:
            modules["registers"] = "encoder.registers"
        pool = "mean" if self.pool == "mean" else "token"
        return (Tower("audio", self.audio, (1, *self.patch), self.backbone, modules, pool=pool),)

    @property
    def is_plain(self) -> bool:
        return True

    def rollout(self, maps: Maps, input: str, given: tuple[str, ...] = ()) -> Shares:
        return plain(maps, self.grid)


class AST(Encoder):
    """Patches of a spectrogram, class tokens, learned positions and a transformer."""

    def __init__(self, config: ASTConfig) -> None:
        width = config.backbone.width
        super().__init__(config, width)
        self.tokenizer = TubeletTokenizer((1, *config.patch), width, config.audio.channels, config.steps)
        self.encoder = TokenEncoder(config.backbone, config.grid, config.pool, registers=config.registers)
        self.representation = Representation(width, norm_eps=config.norm_pooled)

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        features = self.encoder(self.tokenizer(inputs["audio"]))
        return replace(features, pooled=self.representation(features.pooled))
