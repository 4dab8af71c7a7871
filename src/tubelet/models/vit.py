"""ViT: an image is a sequence of patches (Dosovitskiy et al. 2021; ViViT Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tubelet.models.family import PATCH_NAME, SIZES, ModelConfig, Tower, block_modules, matched, refuse, size_letters
from tubelet.models.model import Encoder
from tubelet.models.rollout import Maps, Shares, plain
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import ImagePool, TokenEncoder
from tubelet.nn.features import Features
from tubelet.nn.initializers import init_dense_
from tubelet.nn.positions import Resize
from tubelet.nn.rotary import RotaryPositions
from tubelet.nn.tokenizers import TubeletTokenizer, grid_of
from tubelet.specs import ImageSpec, InputSpec

MOST_REGISTERS, _ROWS = 64, 1000


@dataclass(frozen=True, kw_only=True)
class ViTConfig(ModelConfig):
    """``representation`` > 0 adds a dense layer of that width and a tanh after pooling, as some ViTs have.

    ``pool``, ``registers`` and ``pre_norm``: see :class:`~tubelet.nn.encoding.TokenSequence`. ``rotary``: the base of
    rotary positions (DINOv3's is 100), which take the place of learned ones; learned, if 0. ``position_grid``: the
    rows and columns of the table of positions, where it was learned at another size than ``image`` has; ``resize``:
    how it is interpolated. ``final_norm`` and ``norm_pooled``: as in
    :class:`~tubelet.models.vivit.ViViTConfig`.
    """

    examples = ("vit-b/16", "vit-l/16")

    backbone: TransformerConfig
    patch: tuple[int, int] = (16, 16)
    image: ImageSpec = ImageSpec()
    pool: ImagePool = "token"
    representation: int = 0
    registers: int = 0
    pre_norm: bool = False
    rotary: float = 0.0
    position_grid: tuple[int, int] | None = None
    resize: Resize = "linear"
    final_norm: bool = True
    norm_pooled: float = 0.0

    def __post_init__(self) -> None:
        grid_of(self.image.extent, (1, *self.patch))
        if not 0 <= self.registers <= MOST_REGISTERS:
            raise ValueError(f"{self.registers=} must be from 0 to {MOST_REGISTERS}")
        if self.rotary < 0:
            raise ValueError(f"{self.rotary=} must not be negative")
        if self.norm_pooled < 0:
            raise ValueError(f"{self.norm_pooled=} must not be negative")
        if self.position_grid is not None and not 1 <= min(self.position_grid) <= max(self.position_grid) <= _ROWS:
            raise ValueError(f"{self.position_grid=} must be from 1 to {_ROWS:,} rows and columns")

    @property
    def pooled_width(self) -> int:
        """The width of the pooled feature, before the representation."""
        parts = {"token+mean": 2, "tokens": 1 + self.registers}
        return self.backbone.width * parts.get(self.pool, 1)

    @property
    def inputs(self) -> Mapping[str, ImageSpec]:
        return {"image": self.image}

    def build(self) -> ViT:
        return ViT(self)

    @classmethod
    def parse(cls, name: str, *, frames: int = 0, size: int = 0) -> ViTConfig | None:
        """``vit-b/16``: patches of 16x16 pixels."""
        if (match := matched(rf"vit-{PATCH_NAME}", name)) is None:
            return None
        refuse(name, "a model of images", frames=frames)
        patch = int(match["patch"])
        return cls(backbone=SIZES[match["size"]], patch=(patch, patch), image=ImageSpec.square(size))

    def spelled(self) -> str | None:
        return f"vit-{size_letters(self.backbone)}/{self.patch[0]}"

    def with_inputs(self, specs: Mapping[str, InputSpec]) -> ViTConfig:
        return replace(self, image=specs["image"])

    def towers(self) -> tuple[Tower, ...]:
        modules = encoder_modules(self.backbone.depth)
        if self.rotary:
            del modules["positions"]
        if not self.final_norm:
            modules["norm"] = "representation.norm"
        token = self.pool not in ("mean", "attention")
        own = {"registers": self.registers, "norm_tokens": self.pre_norm, "attention_pool": self.pool == "attention"}
        modules |= {part: f"encoder.{part}" for part, there in own.items() if there}
        pool = "token" if token else "mean"
        return (Tower("image", self.image, (1, *self.patch), self.backbone, modules, pool=pool),)

    @property
    def is_plain(self) -> bool:
        return True

    def rollout(self, maps: Maps, input: str, given: tuple[str, ...] = ()) -> Shares:
        return plain(maps, grid_of(self.image.extent, (1, *self.patch)))


class ViT(Encoder):
    """Patches, a class token, learned positions and a transformer."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config, config.representation or config.pooled_width)
        patch = (1, *config.patch)
        self.tokenizer = TubeletTokenizer(patch, config.backbone.width, config.image.channels)
        grid = (1, *config.position_grid) if config.position_grid else grid_of(config.image.extent, patch)
        head_width = config.backbone.inner // config.backbone.heads
        self.encoder = TokenEncoder(
            config.backbone,
            grid,
            config.pool,
            registers=config.registers,
            pre_norm=config.pre_norm,
            rotary=RotaryPositions(head_width, theta=config.rotary) if config.rotary else None,
            resize=config.resize,
            norm=config.final_norm,
        )
        self.representation = Representation(config.pooled_width, config.representation, config.norm_pooled)

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        features = self.encoder(self.tokenizer(inputs["image"]))
        return replace(features, pooled=self.representation(features.pooled))


class Representation(nn.Module):
    """What comes after pooling: a layer norm, where its epsilon ``norm_eps`` is not 0; then tanh(W x + b) of ``width``,
    as the released code's ``pre_logits``, unless that is 0."""

    def __init__(self, source: int, width: int = 0, norm_eps: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(source, eps=norm_eps) if norm_eps else nn.Identity()
        self.dense = nn.Linear(source, width) if width else nn.Identity()
        if isinstance(self.dense, nn.Linear):
            init_dense_(self.dense)

    def forward(self, pooled: Tensor) -> Tensor:
        pooled = self.norm(pooled)
        return torch.tanh(self.dense(pooled)) if isinstance(self.dense, nn.Linear) else pooled


def encoder_modules(depth: int, encoder: str = "encoder", tokenizer: str = "tokenizer") -> dict[str, str]:
    """Where the parts of a tower are whose tokens go through the :class:`TokenEncoder` called ``encoder``."""
    return {
        "tokenizer": tokenizer,
        "cls": f"{encoder}.cls",
        "positions": f"{encoder}.positions",
        **block_modules(f"{encoder}.transformer.blocks", depth),
        "norm": f"{encoder}.transformer.norm",
    }
