"""Whatever goes wrong with a file is that file's error; what is no fault of a file is not."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.container import InputContainer

from media_files import encode, record_sound
from tubelet.media import audio, info, pyav_decoder
from tubelet.media.audio import SoundTrack, read_audio
from tubelet.media.containers import reading
from tubelet.media.errors import MediaError
from tubelet.media.info import probe
from tubelet.media.subtitles import has_track, read_subtitles, read_track
from tubelet.media.video import open_video


def hear(path: str | Path) -> None:
    read_audio(path, 0.0, 0.2, 16_000)


READERS = (probe, open_video, hear, read_track, has_track, read_subtitles)


@pytest.fixture(scope="module")
def talk(media: Path) -> Path:
    return encode(media / "errors.mp4", 12, sound=np.zeros((2, 44_100)))


@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "a\0b.mp4", "errors.mp4/inside.mp4", "missing.mp4"])
@pytest.mark.parametrize("read", READERS)
def test_names_that_no_file_has(talk: Path, media: Path, read, name: str) -> None:
    with pytest.raises(MediaError) as caught:
        read(f"{media}/{name}")
    assert caught.value.path == f"{media}/{name}"


@pytest.mark.parametrize("read", READERS)
def test_a_folder_that_may_not_be_entered(talk: Path, monkeypatch: pytest.MonkeyPatch, read) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("tubelet.media.containers.os.stat", refuse)
    with pytest.raises(MediaError, match="Permission denied"):
        read(talk)


FAULTS = (AttributeError("a bug"), ZeroDivisionError("zero"), UnicodeDecodeError("ascii", b"", 0, 1, "odd"), KeyError())


@pytest.mark.parametrize("fault", [*FAULTS, av.error.MemoryError(12, "Cannot allocate memory")])
def test_any_fault_while_a_file_is_read_is_its_error(talk: Path, monkeypatch: pytest.MonkeyPatch, fault) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    video, track = open_video(talk), SoundTrack(talk)
    monkeypatch.setattr(info, "display_size", fail)
    monkeypatch.setattr(pyav_decoder.PyAVDecoder, "_upright_rgb", fail)
    monkeypatch.setattr(audio, "mono", fail)
    for read in (lambda: probe(talk), lambda: video.frames_at([0.1]), lambda: track.span(0.0, 0.1, 16_000)):
        with pytest.raises(MediaError) as caught:
            read()
        assert caught.value.path == str(talk)
        assert caught.value.__cause__ is fault
    video.close()
    track.close()


@pytest.mark.parametrize("passes", [KeyboardInterrupt(), MemoryError(), SystemExit(1)])
def test_what_is_no_fault_of_the_file_passes(passes: BaseException) -> None:
    with pytest.raises(type(passes)), reading("a.mp4"):
        raise passes


def test_arguments_that_make_no_sense_are_the_callers_fault(talk: Path) -> None:
    with pytest.raises(ValueError, match="start"):
        read_audio(talk, 1.0, 0.5, 16_000)
    with open_video(talk) as video, pytest.raises(ValueError, match="at least one time"):
        video.frames_at([])


def test_times_that_no_recording_has_are_damaged(media: Path) -> None:
    path = media / "far.mkv"
    with av.open(str(encode(media / "near.mkv", 5))) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            if number == 4:
                packet.pts = packet.dts = 10**11  # milliseconds
            packet.stream = stream
            new.mux(packet)
    with pytest.raises(MediaError, match="times reach"):
        probe(path)


def test_a_seek_that_fails_reads_from_the_beginning(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record_sound(media / "unseekable.wav", np.linspace(-1, 1, 160_000))
    wanted = read_audio(path, 6.0, 7.0, 16_000)

    class Unseekable:
        __class__ = InputContainer  # pyright: ignore[reportAssignmentType]

        def __init__(self, container: object) -> None:
            self.container = container

        def __getattr__(self, name: str) -> object:
            return getattr(self.container, name)

        def seek(self, *_: object, **__: object) -> None:
            raise av.error.PermissionError(1, "Operation not permitted")

    opened = audio.open_input
    monkeypatch.setattr(audio, "open_input", lambda path: Unseekable(opened(path)))
    assert read_audio(path, 6.0, 7.0, 16_000).equal(wanted)
