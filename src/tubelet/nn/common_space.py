"""The spaces in which video, sound and captions are compared (VATT Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.batch_norm import BatchNorm
from tubelet.nn.features import Features


class CommonSpace(nn.Module):
    """Pooled features to vectors: video and sound in one space, video and captions in a coarser one made of it.

        z_v,va = BN(W2 relu(BN(W1 v)))        z_a,va = Wa a + ba
        z_v,vt = BN(W3 relu(z_v,va))          z_t,vt = Wt t + bt

    As the released code has it: the paper calls the map to z_v,vt linear, and has a batch norm in all of them. The
    vectors are not brought to length 1.
    """

    def __init__(self, widths: Mapping[str, int], video_audio: int = 512, video_text: int = 256) -> None:
        super().__init__()
        self.video_in = nn.Linear(widths["video"], video_audio, bias=False)
        self.video_in_norm = BatchNorm(video_audio)
        self.video_audio = nn.Linear(video_audio, video_audio, bias=False)
        self.video_audio_norm = BatchNorm(video_audio)
        self.video_text = nn.Linear(video_audio, video_text, bias=False)
        self.video_text_norm = BatchNorm(video_text)
        others = {"audio": video_audio, "text": video_text}
        self.others = nn.ModuleDict({n: nn.Linear(widths[n], width) for n, width in others.items() if n in widths})
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                    nn.init.zeros_(module.bias)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Vectors called "video_audio", "audio_video" (B, 512), "video_text" (B, 256) and "text_video" (B, P, 256)."""
        found: dict[str, Tensor] = {}
        if "video" in features.parts:
            hidden = self.video_in_norm(self.video_in(features.parts["video"].pooled)).relu()
            found["video_audio"] = self.video_audio_norm(self.video_audio(hidden))
            found["video_text"] = self.video_text_norm(self.video_text(found["video_audio"].relu()))
        for name, project in self.others.items():
            if name in features.parts:
                found[f"{name}_video"] = project(features.parts[name].pooled)
        return found


class NearestSentence(nn.Module):
    """Logits (B, K) of K classes: the cosine of a video with the sentence of each, divided by the temperature.

    ``sentences`` (K, C) are vectors of length 1 in the ``space`` of video and captions; zeros, until they are set.
    """

    sentences: Tensor

    def __init__(self, space: CommonSpace, classes: int, width: int, temperature: float = 0.07) -> None:
        super().__init__()
        self.space, self.temperature = space, temperature
        self.register_buffer("sentences", torch.zeros(classes, width))

    def forward(self, features: Features) -> Float[Tensor, "B K"]:
        video = F.normalize(self.space(features)["video_text"].float(), dim=-1)
        return video @ self.sentences.T / self.temperature
