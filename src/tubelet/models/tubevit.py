"""TubeViT: one ViT for images and, by sparse tubes, for video (Piergiovanni et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.model import Encoder, ModelConfig
from tubelet.nn.blocks import Stack, Transformer, TransformerConfig
from tubelet.nn.encoding import Pool
from tubelet.nn.features import Features
from tubelet.nn.tokenizers import Tubelet, as_video
from tubelet.nn.tubes import Extent, SparseTubes, Tube, TubePositions, extent_of, kernel_widths
from tubelet.specs import ImageSpec, RasterSpec, VideoSpec

PATCH = Tube(kernel=(1, 16, 16), stride=(32, 16, 16))

# Table 12; "2x temporal" and "4x spatial" are the neighbors.
TUBES = (
    Tube(kernel=(8, 8, 8), stride=(16, 32, 32), neighbors=(2, 1, 1)),
    Tube(kernel=(16, 4, 4), stride=(6, 32, 32), offset=(4, 8, 8), neighbors=(1, 2, 2)),
    Tube(kernel=(4, 12, 12), stride=(16, 32, 32), offset=(0, 16, 16)),
)

# Charades (App. B): the kernels learned for TUBES, enlarged in this order. The strides stay.
CHARADES_KERNELS: tuple[Tubelet, ...] = ((16, 16, 16), (32, 8, 8), (4, 32, 32))
CHARADES_TUBES = tuple(replace(tube, kernel=kernel) for tube, kernel in zip(TUBES, CHARADES_KERNELS, strict=True))


@dataclass(frozen=True, kw_only=True)
class TubeViTConfig(ModelConfig):
    """``patch`` cuts images, and a few frames of videos; ``tubes`` cut videos alone (Sec. 3.2).

    ``learned``: the shapes that the tubes' kernels are learned in, where those are interpolated to the shapes that
    ``tubes`` say (Sec. 3.4): one per tube, or one for a single kernel that all share. ``gate``: after so many layers
    the tokens that entered the first one are added again, times tanh of a number that starts at 0 (Eq. 8); 0: nowhere.
    """

    backbone: TransformerConfig
    image: ImageSpec = ImageSpec()
    video: VideoSpec = VideoSpec()
    patch: Tube = PATCH
    tubes: tuple[Tube, ...] = TUBES
    learned: tuple[Tubelet, ...] = ()
    gate: int = 0
    pool: Pool = "token"

    def __post_init__(self) -> None:
        if self.image.channels != self.video.channels:
            raise ValueError(f"{self.image.channels=} and {self.video.channels=} share a patch embedding: give as many")
        if not self.tubes:
            raise ValueError("tubes must be at least one")
        if not 0 <= self.gate < self.backbone.depth:
            raise ValueError(f"{self.gate=} must be a number of layers below {self.backbone.depth=}")
        self.patch.grid(self.image.extent)
        for tube in (self.patch, *self.tubes):
            tube.grid(self.video.extent)
        kernel_widths((self.patch,), self.backbone.width)
        kernel_widths(self.tubes, self.backbone.width, self.learned)

    @property
    def inputs(self) -> Mapping[str, RasterSpec]:
        return {"image": self.image, "video": self.video}

    @property
    def input_sets(self) -> tuple[tuple[str, ...], ...]:
        return ("image",), ("video",)

    def build(self) -> TubeViT:
        return TubeViT(self)


class TubeViT(Encoder):
    """Patches of an image, or patches and tubes of a video; the positions of their centers; one transformer.

    A forward pass takes images or videos. The first ``gate`` layers are ``before``, the others ``transformer``:
    training only ``encoder.transformer.*`` and ``encoder.gate.*`` is the scaling method of Sec. 3.6.
    """

    def __init__(self, config: TubeViTConfig) -> None:
        super().__init__()
        size, channels = config.backbone, config.image.channels
        self.inputs, self.width = config.inputs, size.width
        self.patches = SparseTubes((config.patch,), size.width, channels)
        self.tubes = SparseTubes(config.tubes, size.width, channels, config.learned)
        self.sequence = TubeSequence(config)
        self.before = Stack(size, end=config.gate)
        self.gate = Gate() if config.gate else None
        self.transformer = Transformer(size, first=config.gate)

    def forward(self, inputs: Mapping[str, Tensor], attention: bool = False) -> Features:
        if len(inputs) != 1:
            raise ValueError(f"TubeViT takes images or videos at a time, not {' and '.join(inputs) or 'none'}")
        ((name, x),) = inputs.items()
        video = as_video(x, x.shape[-3])
        maps: dict[str, Tensor] | None = {} if attention else None
        tokens = self.patches(video)
        if name == "video":
            tokens = torch.cat([tokens, self.tubes(video)], dim=1)
        z_0, boxes = self.sequence(tokens, name, extent_of(video))
        z = self.before(z_0, maps)
        if self.gate is not None:
            z = self.gate(z, z_0)
        z = self.transformer(z, maps)
        if self.sequence.cls is None:
            return Features(z, z.mean(1), boxes, attention=maps or {})
        return Features(z[:, 1:], z[:, 0], boxes, attention=maps or {})


class TubeSequence(nn.Module):
    """z^0: a class token, which has no place, and the tokens with the fixed positions of their centers."""

    def __init__(self, config: TubeViTConfig) -> None:
        super().__init__()
        width = config.backbone.width
        self.cls = nn.Parameter(torch.zeros(1, width)) if config.pool == "token" else None
        self.positions = nn.ModuleDict(
            {
                "image": TubePositions((config.patch,), width, config.image.extent),
                "video": TubePositions((config.patch, *config.tubes), width, config.video.extent),
            }
        )
        self.dropout = nn.Dropout(config.backbone.dropout)

    def forward(
        self, tokens: Float[Tensor, "B N D"], name: str, extent: Extent
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "N 3 2"]]:
        positions, boxes = self.positions[name](extent)
        z = tokens + positions
        if self.cls is not None:
            z = torch.cat([self.cls.expand(len(z), 1, -1).to(z.dtype), z], dim=1)
        return self.dropout(z), boxes


class Gate(nn.Module):
    """z + tanh(alpha) z^0, alpha learned from 0 (Eq. 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, z: Float[Tensor, "B N D"], z_0: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return z + self.alpha.tanh() * z_0


def scaled(large: TubeViTConfig, small: TubeViTConfig, gate: int = 0) -> TubeViTConfig:
    """``large`` with the kernels of ``small``'s tubes (Sec. 3.6) and a gate; its patches and layers are its own.

    Space-to-depth brings the kernels' channels to the larger width. Which neighbors, and what is done where the widths
    do not divide, the paper does not say. The rule here: no fewer tokens on ``large``'s clip, if possible; then the
    fewest neighbors that fill the width, in time before height before width; of their concatenation the first channels
    are taken. Raises ValueError where no stride can be divided so.
    """
    extent, width = large.video.extent, small.backbone.width
    tubes = tuple(
        _widened(replace(tube, channels=tube.result_width(width)), large.backbone.width, extent) for tube in small.tubes
    )
    return replace(large, tubes=tubes, learned=small.learned, gate=gate)


def _widened(tube: Tube, width: int, extent: Extent) -> Tube:
    """``tube`` with as many more neighbors as its channels need to fill ``width``."""

    def cost(candidate: Tube) -> tuple[int, ...]:
        t, h, _ = candidate.neighbors
        return -math.prod(candidate.grid(extent)), math.prod(candidate.neighbors), -t, -h

    found = [c for c in _denser(tube) if c.channels * math.prod(c.neighbors) >= width and _fits(c, extent)]
    if not found:
        raise ValueError(f"no neighbors bring the {tube.channels} channels of {tube} to a {width=}")
    return min(found, key=cost)


def _denser(tube: Tube) -> Iterator[Tube]:
    """The tube with every number of neighbors that divides its strides further."""
    factors = [[f for f in range(1, s + 1) if s % f == 0] for s in tube.step]
    for a, b, c in product(*factors):
        t, h, w = tube.neighbors
        yield replace(tube, neighbors=(t * a, h * b, w * c))


def _fits(tube: Tube, extent: Extent) -> bool:
    try:
        tube.grid(extent)
    except ValueError:
        return False
    return True
