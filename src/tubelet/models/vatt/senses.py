"""Video and sound to tokens (VATT Sec. 3.1): a patch is a token, a sum of tables is its position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.vatt.config import Sense, VattConfig
from tubelet.nn.axial_positions import AxialPositions
from tubelet.nn.blocks import Transformer
from tubelet.nn.drop_token import DropToken
from tubelet.nn.features import Features
from tubelet.nn.initializers import init_aggregator_, init_kernel_
from tubelet.nn.positions import grid_boxes
from tubelet.nn.tokenizers import TubeletTokenizer
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, WaveformSpec

_AXES = ("time", "height", "width")


class SenseTower(nn.Module):
    """Patches, positions, DropToken, the token that aggregates, a transformer of its own or a shared one.

        x_n = Dropout(E patch_n + LN(p_n)),   z = [x_AGG, x_1, ..., x_N],   y = Dropout(LN(Transformer(z)))

    As the released code has it, x_AGG has neither a position (Eq. 2 gives it one) nor that first dropout.
    """

    def __init__(self, sense: Sense, config: VattConfig) -> None:
        super().__init__()
        self.spec, self.frames, width = sense.spec, sense.patch[0], sense.backbone.width
        self.tokenizer = TubeletTokenizer(sense.patch, width, sense.spec.channels)
        init_kernel_(self.tokenizer.projection, sense.spec.channels)
        self.before = dense_gelu(width, width) if config.shared else nn.Identity()
        axes = {name: sense.grid[_AXES.index(name)] for name in axes_of(sense.spec)}
        by_column = isinstance(sense.spec, SpectrogramSpec)
        self.positions = AxialPositions(axes, width, sense.backbone.norm_eps, by_column=by_column)
        self.position_dropout = nn.Dropout(config.position_dropout)
        self.drop_token = DropToken(config.kept, sense.grid[0] * sense.grid[1] * sense.grid[2])
        self.agg = init_aggregator_(nn.Parameter(torch.empty(1, width)))
        self.transformer = None if config.shared else Transformer(sense.backbone)
        self.dropout = nn.Dropout(sense.backbone.dropout)
        self.after = dense_gelu(width, config.projection) if config.shared else nn.Identity()

    def forward(self, x: Tensor, shared: Transformer | None) -> Features:
        """The features of a minibatch: the tokens that DropToken kept, and the output of AGG as pooled ones."""
        if isinstance(self.spec, ImageSpec):
            x = x[:, None].expand(-1, self.frames, -1, -1, -1)
        patches = self.tokenizer(x)
        _, t, h, w, _ = patches.shape
        places = [(t, h, w)[_AXES.index(name)] for name in axes_of(self.spec)]
        tokens = self.position_dropout(self.before(patches.flatten(1, 3)) + self.positions(places))
        boxes = grid_boxes((t, h, w))
        if (kept := self.drop_token(tokens)) is not None:
            tokens, boxes = tokens[:, kept], boxes.to(kept.device)[kept]
        z = with_aggregator(self.agg, tokens)
        y = self.after(self.dropout((self.transformer or shared)(z)))  # pyright: ignore[reportOptionalCall]
        return Features(y[:, 1:], y[:, 0], boxes)


def axes_of(spec: InputSpec) -> Sequence[str]:
    """The axes along which an input has positions: a waveform has one, a spectrogram two."""
    match spec:
        case WaveformSpec():
            return _AXES[2:]
        case SpectrogramSpec():
            return _AXES[1:]
        case _:
            return _AXES


def with_aggregator(agg: Float[Tensor, "1 D"], tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B M D"]:
    """The token that aggregates, before each sequence of tokens."""
    return torch.cat([agg.expand(tokens.shape[0], 1, -1).to(tokens.dtype), tokens], dim=1)


def dense_gelu(source: int, width: int, bias: bool = True) -> nn.Sequential:
    """A dense layer and a GELU, as before and after the transformer that modalities share."""
    dense = nn.Linear(source, width, bias=bias)
    nn.init.xavier_uniform_(dense.weight)
    return nn.Sequential(dense, nn.GELU())
