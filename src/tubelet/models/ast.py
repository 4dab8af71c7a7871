"""AST: the image ViT on spectrograms (Gong et al. 2021; PolyViT Sec. 3.1; MBT's audio-only baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from tubelet.models.family import PATCH_NAME, SIZES, ModelConfig, Tower, matched, refuse, size_letters
from tubelet.models.model import Encoder
from tubelet.models.rollout import Maps, Shares, plain
from tubelet.models.vit import encoder_modules
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import Pool, TokenEncoder
from tubelet.nn.features import Features
from tubelet.nn.tokenizers import TubeletTokenizer, grid_of
from tubelet.specs import InputSpec, SpectrogramSpec


@dataclass(frozen=True, kw_only=True)
class ASTConfig(ModelConfig):
    """``patch`` is (frames, mel bins); patches do not overlap, as in MBT and PolyViT (Gong et al. let them)."""

    examples = ("ast-b/16",)

    backbone: TransformerConfig
    patch: tuple[int, int] = (16, 16)
    audio: SpectrogramSpec = SpectrogramSpec()
    pool: Pool = "token"

    def __post_init__(self) -> None:
        grid_of(self.audio.extent, (1, *self.patch))

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
        return (Tower("audio", self.audio, (1, *self.patch), self.backbone, modules, pool=self.pool),)

    @property
    def is_plain(self) -> bool:
        return True

    def rollout(self, maps: Maps, input: str, given: tuple[str, ...] = ()) -> Shares:
        return plain(maps, grid_of(self.audio.extent, (1, *self.patch)))


class AST(Encoder):
    """Patches of a spectrogram, a class token, learned positions and a transformer."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__(config, config.backbone.width)
        patch = (1, *config.patch)
        self.tokenizer = TubeletTokenizer(patch, config.backbone.width, config.audio.channels)
        self.encoder = TokenEncoder(config.backbone, grid_of(config.audio.extent, patch), config.pool)

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        return self.encoder(self.tokenizer(inputs["audio"]))
