"""One space for video, sound and captions, an alternative of the released code to the common spaces of VATT."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tubelet.nn.batch_norm import BatchNorm
from tubelet.nn.features import Features

_PAIRS = {"video": ("video_audio", "video_text"), "audio": ("audio_video",), "text": ("text_video",)}


class JointSpace(nn.Module):
    """BN(W relu(x)) of the pooled features of every modality, all of one ``width``; not brought to length 1.

    VATT itself has :class:`~tubelet.nn.common_space.CommonSpace`; what is returned has the same names.
    """

    def __init__(self, widths: Mapping[str, int], width: int = 512) -> None:
        super().__init__()
        self.maps = nn.ModuleDict({name: nn.Linear(source, width, bias=False) for name, source in widths.items()})
        self.norms = nn.ModuleDict({name: BatchNorm(width) for name in widths})
        for linear in self.maps.values():
            nn.init.xavier_uniform_(linear.get_parameter("weight"))

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Vectors called "video_audio", "video_text", "audio_video" (B, C) and "text_video" (B, P, C)."""
        found: dict[str, Tensor] = {}
        for name, linear in self.maps.items():
            if name in features.parts:
                vector: Tensor = self.norms[name](linear(features.parts[name].pooled.relu()))
                found |= dict.fromkeys(_PAIRS[name], vector)
        return found
