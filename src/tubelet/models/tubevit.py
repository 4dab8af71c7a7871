"""TubeViT: one ViT for images and, by sparse tubes, for video (Piergiovanni et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.family import PATCH_NAME, SIZES, ModelConfig, Tower, block_modules, matched, size_letters
from tubelet.models.model import Encoder
from tubelet.models.rollout import Maps, Shares, over_places, sequence
from tubelet.nn.attention import Attention
from tubelet.nn.blocks import BiasedBlock, Block, Stack, Transformer, TransformerConfig
from tubelet.nn.encoding import Pool
from tubelet.nn.features import Features
from tubelet.nn.inflation import Inflation, resample_kernel
from tubelet.nn.initializers import init_dense_
from tubelet.nn.positions import Grid, LearnedPositions
from tubelet.nn.relative_bias import RelativeBias
from tubelet.nn.tokenizers import Tubelet, TubeletTokenizer, as_video
from tubelet.specs import ImageSpec, InputSpec, RasterSpec, VideoSpec

Extent = tuple[int, int, int]
_MOST_NUMBERS = 2**25  # in the table of positions, which is no parameter

Places = Literal["fixed", "fixed-no-stride", "learned", "relative", "none"]
"""The positions of Table 7a: sinusoids of the tokens' centers in the clip, or of their numbers along the axes of their
tube; a learned vector per token; a learned bias of attention by the distance of two tokens in the sequence; none."""


@dataclass(frozen=True, kw_only=True)
class Tube:
    """A kernel of (t, h, w) frames and pixels, applied every ``stride`` from ``offset`` on, where it fits (valid).

    ``neighbors``: space-to-depth (Sec. 3.4). The stride is divided by it along each axis, and so many neighboring
    results are concatenated along the channels: a token sees more at the cost of a thinner kernel. Where it does not
    divide the stride, the neighbors begin at the multiples of the quotient, rounded down. ``channels``: those of one
    result; 0 stands for the model's width divided by the neighbors. Of a concatenation that is wider than the model,
    the first channels are taken.
    """

    kernel: Tubelet
    stride: Tubelet
    offset: Tubelet = (0, 0, 0)
    neighbors: Tubelet = (1, 1, 1)
    channels: int = 0

    def __post_init__(self) -> None:
        if min(*self.kernel, *self.stride, *self.neighbors) < 1 or min(*self.offset, self.channels) < 0:
            raise ValueError(f"{self} must have positive kernel, stride and neighbors, and no negative number")
        if any(n > s for s, n in zip(self.stride, self.neighbors, strict=True)):
            raise ValueError(f"{self.neighbors=} must be at most {self.stride=}, axis by axis: they would coincide")

    @property
    def step(self) -> Tubelet:
        """From one application of the kernel to the next; the shorter of two steps where they differ."""
        (t, h, w), (a, b, c) = self.stride, self.neighbors
        return t // a, h // b, w // c

    @property
    def shifts(self) -> tuple[list[int], list[int], list[int]]:
        """Where the neighbors of a token begin, along each axis, counted from where the token does."""
        (t, h, w), (a, b, c) = self.stride, self.neighbors
        return [i * t // a for i in range(a)], [i * h // b for i in range(b)], [i * w // c for i in range(c)]

    @property
    def reach(self) -> Tubelet:
        """How many frames, rows and columns a token's box spans."""
        (t, h, w), (a, b, c) = self.kernel, self.shifts
        return t + a[-1], h + b[-1], w + c[-1]

    def grid(self, extent: Extent) -> Grid:
        """How many tokens (n_t, n_h, n_w) a clip of (frames, height, width) gives."""
        axes = zip(extent, self.offset, self.reach, self.stride, strict=True)
        n_t, n_h, n_w = ((size - o - span) // s + 1 for size, o, span, s in axes)
        if min(n_t, n_h, n_w) < 1:
            raise ValueError(f"a clip of (frames, height, width) {extent} is too small for one token of {self}")
        return n_t, n_h, n_w

    def result_width(self, width: int) -> int:
        """The channels of one result in a model of ``width``."""
        count = math.prod(self.neighbors)
        if not self.channels and width % count:
            raise ValueError(f"{width=} must be a multiple of the {count} neighbors of {self}, or channels be given")
        channels = self.channels or width // count
        if channels * count < width:
            raise ValueError(f"{count} neighbors of {channels} channels do not fill {width=}: {self}")
        return channels

    def boxes(self, extent: Extent) -> Float[Tensor, "N 3 2"]:
        """The [start, end) of every token in frames, rows and columns: of all its neighbors together."""
        starts = torch.tensor(self.offset) + torch.tensor(self.stride) * self.numbers(extent)
        return torch.stack([starts, starts + torch.tensor(self.reach, dtype=torch.float32)], dim=-1)

    def numbers(self, extent: Extent) -> Float[Tensor, "N 3"]:
        """The number of every token along the axes of the tube's own grid (t, h, w)."""
        axes = [torch.arange(n, dtype=torch.float32) for n in self.grid(extent)]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)

    def cut(self, video: Float[Tensor, "B T C H W"]) -> Float[Tensor, "B N n values"]:
        """The pixels of the n neighbors of every token; those that lie under none are never read."""
        grid = self.grid(extent_of(video))
        if not any(s % n for s, n in zip(self.stride, self.neighbors, strict=True)):
            return _blocks(video, self.kernel, self.offset, self.step, self.neighbors, grid)
        o_t, o_h, o_w = self.offset
        starts = [(o_t + t, o_h + h, o_w + w) for t, h, w in product(*self.shifts)]
        return torch.cat([_blocks(video, self.kernel, o, self.stride, (1, 1, 1), grid) for o in starts], dim=2)


def _blocks(
    video: Float[Tensor, "B T C H W"], kernel: Tubelet, offset: Tubelet, step: Tubelet, neighbors: Tubelet, grid: Grid
) -> Float[Tensor, "B N n values"]:
    """The pixels of a kernel every ``step`` from ``offset`` on, ``neighbors`` at each place of ``grid``."""
    (t, h, w), (s_t, s_h, s_w), (a, b, c) = kernel, step, neighbors
    axes = zip(offset, kernel, step, neighbors, grid, strict=True)
    frames, rows, columns = [slice(o, o + (n * m - 1) * s + k) for o, k, s, m, n in axes]
    blocks = video[:, frames, :, rows, columns].unfold(1, t, s_t).unfold(3, h, s_h).unfold(4, w, s_w)
    return rearrange(blocks, "B (T a) C (H b) (W c) t h w -> B (T H W) (a b c) (C t h w)", a=a, b=b, c=c)


class TubeKernel(nn.Module):
    """A kernel learned in one shape and applied in any (interpolated kernels, Sec. 3.4)."""

    def __init__(self, tubelet: Tubelet, channels: int, width: int) -> None:
        super().__init__()
        self.tubelet = tubelet
        self.projection = nn.Linear(channels * math.prod(tubelet), width)
        init_dense_(self.projection)

    def weight(self, shape: Tubelet) -> Float[Tensor, "D values"]:
        """The kernel in ``shape``: trilinear, times the ratio of the volumes.

        The paper does not say that it rescales. Without it a larger kernel answers louder; with it, and with the
        kernel's mean kept, every shape answers a constant block alike.
        """
        weight = self.projection.weight
        if shape == self.tubelet:
            return weight
        t, h, w = self.tubelet
        learned = rearrange(weight, "D (C t h w) -> D C t h w", t=t, h=h, w=w)
        kernel = F.interpolate(learned, size=shape, mode="trilinear", align_corners=False)
        axes = (2, 3, 4)
        kernel = kernel - kernel.mean(axes, keepdim=True) + learned.mean(axes, keepdim=True)
        return kernel.flatten(1) * (math.prod(self.tubelet) / math.prod(shape))

    def resample(self, name: str, value: Tensor, theirs: nn.Module, how: Inflation) -> Tensor:
        """``value``, a parameter of a tokenizer of patches or tubelets, for this kernel's shape."""
        if name != "projection.weight" or not isinstance(theirs, TubeletTokenizer):
            return value
        return resample_kernel(value, theirs.tubelet, self.tubelet, how)

    def forward(
        self, video: Float[Tensor, "B T C H W"], tube: Tube, channels: int | None = None
    ) -> Float[Tensor, "B N D"]:
        """The tokens of ``tube``: the results of its neighbors, side by side, of which each has the first ``channels``
        of the kernel's; all of them, if None."""
        weight, bias = self.weight(tube.kernel)[:channels], self.projection.bias[:channels]
        return F.linear(tube.cut(video), weight, bias).flatten(2)


class SparseTubes(nn.Module):
    """Tokens of several tubes, one tube after the other.

    ``learned``: the shapes that the kernels are learned in, one per tube, or one for a single kernel that all tubes
    share, each taking as many of its first channels as it needs; empty: each in its tube's own.
    """

    def __init__(self, tubes: Sequence[Tube], width: int, channels: int, learned: Sequence[Tubelet] = ()) -> None:
        super().__init__()
        self.tubes, self.width = tuple(tubes), width
        self.result_widths = [tube.result_width(width) for tube in tubes]
        widths = kernel_widths(tubes, width, learned)
        shapes = learned or [tube.kernel for tube in tubes]
        self.kernels = nn.ModuleList(TubeKernel(s, channels, n) for s, n in zip(shapes, widths, strict=True))

    def forward(self, video: Float[Tensor, "B T C H W"]) -> Float[Tensor, "B N D"]:
        kernels = [*self.kernels] * (len(self.tubes) // len(self.kernels))
        parts = zip(kernels, self.tubes, self.result_widths, strict=True)
        return torch.cat([kernel(video, tube, channels)[..., : self.width] for kernel, tube, channels in parts], dim=1)


def kernel_widths(tubes: Sequence[Tube], width: int, learned: Sequence[Tubelet] = ()) -> list[int]:
    """The width of every kernel of :class:`SparseTubes`; raises ValueError where ``learned`` does not fit the tubes."""
    widths = [tube.result_width(width) for tube in tubes]
    if len(learned) == 1 < len(tubes):
        return [max(widths)]
    if learned and len(learned) != len(tubes):
        raise ValueError(f"{len(learned)} shapes of learned kernels for {len(tubes)} tubes: give one per tube, or one")
    return widths


class TubePositions(nn.Module):
    """Fixed sinusoids of the centers of tubes (Sec. 3.3), and the boxes of the tubes, for clips of any extent.

    ``strides``: whether centers are those in the clip; otherwise they are the tokens' numbers along the axes of their
    tube, whatever its kernel, stride and offset ("no stride" of Table 7a).
    """

    table: Tensor
    boxes: Tensor

    def __init__(self, tubes: Sequence[Tube], width: int, extent: Extent, strides: bool = True) -> None:
        super().__init__()
        self.tubes, self.width, self.extent, self.strides = tuple(tubes), width, extent, strides
        table, boxes = self._places(extent)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("boxes", boxes, persistent=False)

    def forward(self, extent: Extent) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N 3 2"]]:
        """The positions of all tokens, and their boxes as fractions of the clip."""
        if extent == self.extent:
            return self.table, self.boxes
        table, boxes = self._places(extent)
        return table.to(self.table), boxes.to(self.boxes)

    def _places(self, extent: Extent) -> tuple[Tensor, Tensor]:
        boxes = torch.cat([tube.boxes(extent) for tube in self.tubes])
        places = boxes.mean(-1) if self.strides else torch.cat([tube.numbers(extent) for tube in self.tubes])
        return center_sinusoids(places[:, [0, 2, 1]], self.width), boxes / torch.tensor(extent, dtype=torch.float32)[
            :, None
        ]


def center_sinusoids(centers: Float[Tensor, "N 3"], width: int, tau: float = 10_000.0) -> Float[Tensor, "N D"]:
    """Sine and cosine of t, x and y, in turn for each of D // 6 frequencies (Eq. 3-7); channels left over are zero.

    The frequencies are tau^(-j / (D // 6)), as in the transformer that the paper cites: the printed 1 / tau^j would
    leave nothing from j = 2 on.
    """
    count = width // 6
    if not count:
        raise ValueError(f"{width=} must be at least 6, for a sine and a cosine of t, x and y")
    angles = centers[:, None, :] * (tau ** (-torch.arange(count) / count))[:, None]
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return F.pad(waves, (0, width - waves.shape[1]))


def extent_of(video: Float[Tensor, "B T C H W"]) -> Extent:
    return video.shape[1], video.shape[3], video.shape[4]


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

    Without ``tubes``, videos go through the patch alone (Table 5); without ``patch_videos``, through the tubes alone
    (Table 14). ``positions``: those of Table 7a. ``added``: layers of attention, x + MSA(LN(x)), that follow the last
    block and that no image model has (Table 8).

    ``learned``: the shapes that the tubes' kernels are learned in, where those are interpolated to the shapes that
    ``tubes`` say (Sec. 3.4): one per tube, or one for a single kernel that all share. ``gate``: after so many layers
    the tokens that entered the first one are added again, times tanh of a number that starts at 0 (Eq. 8); 0: nowhere.
    """

    examples = ("tubevit-b/16",)
    own = ("tubes.*", "sequence.learned.*", "relative.*", "transformer.added.*")

    backbone: TransformerConfig
    image: ImageSpec = ImageSpec()
    video: VideoSpec = VideoSpec()
    patch: Tube = PATCH
    tubes: tuple[Tube, ...] = TUBES
    learned: tuple[Tubelet, ...] = ()
    gate: int = 0
    pool: Pool = "token"
    patch_videos: bool = True
    positions: Places = "fixed"
    added: int = 0

    def __post_init__(self) -> None:
        if self.image.channels != self.video.channels:
            raise ValueError(f"{self.image.channels=} and {self.video.channels=} share a patch embedding: give as many")
        if not self.video_tubes:
            raise ValueError("videos need tubes, or the patch: give tubes, or patch_videos=True")
        if self.added < 0:
            raise ValueError(f"{self.added=} must be at least 0")
        if not 0 <= self.gate < self.backbone.depth:
            raise ValueError(f"{self.gate=} must be a number of layers below {self.backbone.depth=}")
        video = sum(math.prod(tube.grid(self.video.extent)) for tube in self.video_tubes)
        tokens = max(math.prod(self.patch.grid(self.image.extent)), video)
        if tokens * self.backbone.width > _MOST_NUMBERS:
            raise ValueError(f"{tokens:,} tokens of {self.backbone.width=} are too many: their positions are a table")
        kernel_widths((self.patch,), self.backbone.width)
        kernel_widths(self.tubes, self.backbone.width, self.learned)

    @property
    def video_tubes(self) -> tuple[Tube, ...]:
        """All that cuts videos, in the order of their tokens."""
        return (self.patch, *self.tubes) if self.patch_videos else self.tubes

    @property
    def inputs(self) -> Mapping[str, RasterSpec]:
        return {"image": self.image, "video": self.video}

    @property
    def input_sets(self) -> tuple[tuple[str, ...], ...]:
        return ("image",), ("video",)

    def build(self) -> TubeViT:
        return TubeViT(self)

    @classmethod
    def parse(cls, name: str, *, frames: int = 0, size: int = 0) -> TubeViTConfig | None:
        """``tubevit-b/16``: patches of 16x16 pixels, and of videos the tubes of Table 12, too."""
        if (match := matched(rf"tubevit-{PATCH_NAME}", name)) is None:
            return None
        patch = int(match["patch"])
        cut = replace(PATCH, kernel=(1, patch, patch), stride=(PATCH.stride[0], patch, patch))
        image, video = ImageSpec.square(size), VideoSpec.square(frames, size)
        return cls(backbone=SIZES[match["size"]], image=image, video=video, patch=cut)

    def spelled(self) -> str | None:
        return f"tubevit-{size_letters(self.backbone)}/{self.patch.kernel[1]}"

    def with_inputs(self, specs: Mapping[str, InputSpec]) -> TubeViTConfig:
        return replace(self, image=specs["image"], video=specs["video"])

    def towers(self) -> tuple[Tower, ...]:
        """All that images go through, and videos too; only the tubes are the videos' own."""
        modules = {
            "tokenizer": "patches.kernels.0",
            "cls": "sequence.cls",
            **({"positions": "sequence.learned.0"} if self.positions == "learned" else {}),
            **block_modules("before.blocks", self.gate),
            **block_modules("transformer.blocks", self.backbone.depth, first=self.gate),
            "norm": "transformer.norm",
        }
        image = Tower("image", self.image, self.patch.kernel, self.backbone, modules)
        return image, Tower("video", self.video, self.patch.kernel, self.backbone, {"tubes": "tubes"})

    def fresh_from(self, source: ModelConfig) -> tuple[str, ...]:
        """Of another TubeViT: what this one alone has."""
        if not isinstance(source, TubeViTConfig):
            return super().fresh_from(source)
        tubes, learned, relative, added = self.own
        lacking = {
            tubes: not source.tubes,
            learned: source.positions != "learned",
            relative: source.positions != "relative",
            added: not source.added,
        }
        return tuple(pattern for pattern, lacks in lacking.items() if lacks)

    def rollout(self, maps: Maps, input: str, given: tuple[str, ...] = ()) -> Shares:
        """The grid is that of single frames and of patches: every token's share is spread evenly over what it reads.
        What a gate adds is left out."""
        tubes = self.video_tubes if input == "video" else (self.patch,)
        extent = self.inputs[input].extent
        boxes = torch.cat([tube.boxes(extent) for tube in tubes])
        return over_places(sequence(list(maps.values()), len(boxes)), boxes, extent, self.patch.kernel)


class TubeViT(Encoder):
    """Patches of an image, or patches and tubes of a video; the positions of their centers; one transformer.

    A forward pass takes images or videos. The first ``gate`` layers are ``before``, the others ``transformer``:
    training only ``encoder.transformer.*`` and ``encoder.gate.*`` is the scaling method of Sec. 3.6.
    """

    def __init__(self, config: TubeViTConfig) -> None:
        super().__init__(config, config.backbone.width)
        size, channels = config.backbone, config.image.channels
        self.patches = SparseTubes((config.patch,), size.width, channels)
        self.tubes = SparseTubes(config.tubes, size.width, channels, config.learned)
        self.sequence = TubeSequence(config)
        self.relative = RelativeBias(size.heads) if config.positions == "relative" else None
        block = Block if self.relative is None else BiasedBlock
        self.before = Stack(size, block, end=config.gate)
        self.gate = Gate() if config.gate else None
        self.transformer = _Transformer(size, block, first=config.gate, added=config.added)
        self.patch_videos = config.patch_videos

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        if len(inputs) != 1:
            raise ValueError(f"TubeViT takes images or videos at a time, not {' and '.join(inputs) or 'none'}")
        ((name, x),) = inputs.items()
        video = as_video(x, x.shape[-3])
        tokens: list[Tensor] = []
        if name == "image" or self.patch_videos:
            tokens.append(self.patches(video))
        if name == "video" and self.tubes.tubes:
            tokens.append(self.tubes(video))
        z_0, boxes = self.sequence(torch.cat(tokens, dim=1), name, extent_of(video))
        bias = () if self.relative is None else (self.relative(z_0.shape[1]),)
        z = self.before(z_0, *bias)
        if self.gate is not None:
            z = self.gate(z, z_0)
        z = self.transformer(z, *bias)
        if self.sequence.cls is None:
            return Features(z, z.mean(1), boxes)
        return Features(z[:, 1:], z[:, 0], boxes)


class _Transformer(Transformer):
    """The blocks, the layers of attention that are added to them (Table 8), and the final norm."""

    def __init__(
        self,
        config: TransformerConfig,
        block: Callable[[TransformerConfig, float], Block],
        *,
        first: int,
        added: int,
    ) -> None:
        super().__init__(config, block, first=first)
        self.added = nn.Sequential(*(AttentionLayer(config) for _ in range(added)))

    def forward(self, x: Tensor, *bias: Tensor) -> Tensor:
        return self.norm(self.added(Stack.forward(self, x, *bias)))


class AttentionLayer(nn.Module):
    """x + MSA(LN(x))."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm_attention = config.norm()
        self.attention = Attention(config.width, config.heads, config.attention_dropout, inner=config.inner)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return x + self.attention(self.norm_attention(x))


class TubeSequence(nn.Module):
    """z^0: a class token, which has no place, and the tokens with their positions.

    Learned positions are a table for the patch, which images share (they are as the first frame that it cuts), and one
    for each tube.
    """

    def __init__(self, config: TubeViTConfig) -> None:
        super().__init__()
        width, image, video = config.backbone.width, config.image.extent, config.video.extent
        strides = config.positions != "fixed-no-stride"
        self.fixed = config.positions in ("fixed", "fixed-no-stride")
        self.cls = nn.Parameter(torch.zeros(1, width)) if config.pool == "token" else None
        self.positions = nn.ModuleDict(
            {
                "image": TubePositions((config.patch,), width, image, strides),
                "video": TubePositions(config.video_tubes, width, video, strides),
            }
        )
        tables = [config.patch.grid(video if config.patch_videos else image), *(t.grid(video) for t in config.tubes)]
        self.learned = nn.ModuleList(
            LearnedPositions(grid, width) for grid in (tables if config.positions == "learned" else [])
        )
        self.tubes = {"image": (config.patch,), "video": config.video_tubes}
        self.dropout = nn.Dropout(config.backbone.dropout)

    def forward(
        self, tokens: Float[Tensor, "B N D"], name: str, extent: Extent
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "N 3 2"]]:
        positions, boxes = self.positions[name](extent)
        z = tokens + positions if self.fixed else tokens
        if self.learned:
            tubes = self.tubes[name]
            tables = [*self.learned][:1] if name == "image" else [*self.learned][-len(tubes) :]
            z = z + torch.cat([table(tube.grid(extent)) for table, tube in zip(tables, tubes, strict=True)])
        if self.cls is not None:
            z = torch.cat([self.cls.expand(z.shape[0], 1, -1).to(z.dtype), z], dim=1)
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
