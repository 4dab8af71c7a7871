"""Writing videos and sounds that a browser plays."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8
from torch import Tensor

# zerolatency: without it, x264's look-ahead may encode the same small pictures differently from one time to the next.
_ENCODER = {"crf": "18", "preset": "veryfast", "tune": "zerolatency"}
_SOUND_ENCODER = {"aac_coder": "fast"}  # the default takes three times as long as the video of a small clip


def write_video(
    path: str | Path,
    frames: UInt8[Tensor, "T 3 H W"],
    fps: float,
    audio: Float[Tensor, " S"] | None = None,
    audio_rate: int = 16_000,
    keyframe_every: int = 250,
) -> None:
    """Write an MP4 file: H.264 in yuv420p and, with ``audio`` (mono, in [-1, 1]), AAC; the index comes first.

    ``keyframe_every`` frames one is coded by itself; with 1 all are, and none carries faint traces of those before it.
    Both sides must be even, as yuv420p halves them for color. One version of PyAV always writes the same
    bytes for the same input.
    """
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3 or not len(frames):
        raise ValueError(f"frames must be (T, 3, H, W) uint8, not {tuple(frames.shape)} {frames.dtype}")
    if frames.shape[2] % 2 or frames.shape[3] % 2:
        raise ValueError(f"height and width must be even, not {frames.shape[2]}x{frames.shape[3]}; crop or pad a pixel")
    if fps <= 0:
        raise ValueError(f"{fps=} must be positive")
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = _video_stream(container, fps, *frames.shape[2:])
        video.codec_context.gop_size = keyframe_every
        sound = None
        if audio is not None:
            sound = container.add_stream("aac", rate=audio_rate, layout="mono", options=_SOUND_ENCODER)
        _write_frames(container, video, frames)
        if sound is not None and audio is not None:
            _write_sound(container, sound, audio)


def write_sound(path: str | Path, audio: Float[Tensor, " S"], rate: int = 16_000) -> None:
    """Write AAC in an MP4 container (.m4a), from mono samples in [-1, 1]."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        _write_sound(container, container.add_stream("aac", rate=rate, layout="mono", options=_SOUND_ENCODER), audio)


def _video_stream(container: OutputContainer, fps: float, height: int, width: int) -> VideoStream:
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=_ENCODER)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 1
    return stream


def _write_frames(container: OutputContainer, stream: VideoStream, frames: UInt8[Tensor, "T 3 H W"]) -> None:
    for pixels in frames.permute(0, 2, 3, 1).contiguous().numpy():
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    container.mux(stream.encode(None))


def _write_sound(container: OutputContainer, stream: AudioStream, audio: Float[Tensor, " S"]) -> None:
    samples = np.ascontiguousarray(audio.to(torch.float32).numpy()[None])
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = stream.rate, 0, Fraction(1, stream.rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
