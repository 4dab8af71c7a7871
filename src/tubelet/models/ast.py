"""AST: the image ViT on spectrograms (Gong et al. 2021; PolyViT Sec. 3.1; MBT's audio-only baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from tubelet.models.model import Encoder, ModelConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import Pool, TokenEncoder
from tubelet.nn.features import Features
from tubelet.nn.tokenizers import TubeletTokenizer, grid_of
from tubelet.specs import SpectrogramSpec


@dataclass(frozen=True, kw_only=True)
class ASTConfig(ModelConfig):
    """``patch`` is (frames, mel bins); patches do not overlap, as in MBT and PolyViT (Gong et al. let them)."""

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


class AST(Encoder):
    """Patches of a spectrogram, a class token, learned positions and a transformer."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        self.inputs, self.width = config.inputs, config.backbone.width
        patch = (1, *config.patch)
        self.tokenizer = TubeletTokenizer(patch, config.backbone.width, config.audio.channels)
        self.encoder = TokenEncoder(config.backbone, grid_of(config.audio.extent, patch), config.pool)

    def forward(self, inputs: Mapping[str, Tensor], attention: bool = False) -> Features:
        maps: dict[str, Tensor] | None = {} if attention else None
        return replace(self.encoder(self.tokenizer(inputs["audio"]), maps), attention=maps or {})
