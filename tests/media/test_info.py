"""What probing says of files whose headers lie, and of files that are no videos."""

from __future__ import annotations

import pickle
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from media_files import SOUND_RATE, cut_short, damage, encode, remux
from tubelet.media.errors import MediaError
from tubelet.media.info import probe


def test_a_video_with_sound(media: Path) -> None:
    info = probe(encode(media / "talk.mp4", 50, fps=25, size=(64, 48), sound=np.zeros((2, SOUND_RATE * 2))))
    assert (info.kind, info.frames, info.fps, info.duration) == ("video", 50, 25.0, 2.0)
    assert (info.width, info.height, info.rotation) == (64, 48, 0)
    assert (info.codec, info.pixel_format, info.audio_rate, info.audio_channels) == ("h264", "yuv420p", SOUND_RATE, 2)


def test_a_silent_video(media: Path) -> None:
    assert probe(encode(media / "mute.mp4", 3)).audio_channels == 0


def test_variable_rate_gives_the_true_average(media: Path) -> None:
    info = probe(encode(media / "slowing.mkv", 100, pts=[*range(50), *range(50, 200, 3)]))
    assert info.duration == pytest.approx(198 / 30, abs=0.05)
    assert info.fps == pytest.approx(100 / 6.6, rel=0.01)


def test_the_header_is_not_believed(media: Path) -> None:
    cut = remux(encode(media / "i_whole.mp4", 60), media / "i_cut.mp4", skip_packets=12, shift=-20)
    with av.open(str(cut)) as container:
        assert container.streams.video[0].frames == 48
    assert probe(cut).frames == 40

    whole = encode(media / "i_front.mp4", 60, mux={"movflags": "faststart"})
    part = probe(cut_short(whole, media / "i_part.mp4", 0.6))
    with av.open(str(part.path)) as container:
        assert container.streams.video[0].frames == 60
    assert part.frames < 50
    assert part.duration == pytest.approx(part.frames / 30, abs=0.1)


def test_a_damaged_first_frame_does_not_move_time_zero(media: Path) -> None:
    whole = encode(media / "i_plain.mp4", 60)
    assert probe(damage(whole, media / "i_damaged.mp4", 0)).duration == probe(whole).duration


def test_an_image(media: Path) -> None:
    path = media / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    info = probe(path)
    assert (info.kind, info.width, info.height, info.frames, info.duration) == ("image", 20, 40, 1, 0.0)
    assert info.codec == "jpeg"


def test_sound_alone_even_with_a_cover_picture(media: Path) -> None:
    path = media / "song.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 12_000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    info = probe(path)
    assert (info.kind, info.audio_rate, info.audio_channels, info.duration) == ("audio", 8000, 1, 1.5)


@pytest.mark.parametrize(
    "content", [b"", b"words and words", b"\0\0\0\x18ftypmp42" + bytes(500), bytes(range(256)) * 50]
)
def test_what_cannot_be_read(media: Path, content: bytes) -> None:
    path = media / "unreadable.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        probe(path)
    assert caught.value.path == str(path)
    assert "again" in caught.value.reason


def test_an_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(MediaError("a.mp4", 1.5, "why")))
    assert (error.path, error.time, error.reason) == ("a.mp4", 1.5, "why")
    assert str(error) == "a.mp4 at 1.500 s: why"


def test_an_ogg_file_whose_last_packet_has_a_negative_duration(media: Path) -> None:
    path = media / "vorbis.ogg"
    with av.open(str(path), "w") as container:
        track = container.add_stream("vorbis", rate=48_000, layout="stereo", options={"strict": "experimental"})
        frame = av.AudioFrame.from_ndarray(np.full((2, 24_000), 0.1, np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    with av.open(str(path)) as container:
        assert max(packet.duration or 0 for packet in container.demux(audio=0)) > 2**31
    assert probe(path).duration == pytest.approx(0.5, abs=0.03)
