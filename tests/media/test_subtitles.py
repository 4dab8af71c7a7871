"""Captions with times, of subtitle files and of tracks."""

from __future__ import annotations

import pytest

from media_files import encode, with_captions
from tubelet.media.errors import MediaError
from tubelet.media.subtitles import Caption, has_track, read_subtitles, read_track, subtitles_beside

SRT = """1
00:00:01,500 --> 00:00:03,000
Crack the <i>egg</i>
into a {\\an8}bowl

2
00:00:02,000 --> 01:00:04,5
1 < 2 &amp; 3 <3

3
00:00:05,000 --> 00:00:06,000


4
00:00:00,250 --> 00:00:01,000
First
"""
WANTED = (
    Caption(0.25, 1.0, "First"),
    Caption(1.5, 3.0, "Crack the egg into a bowl"),
    Caption(2.0, 3604.5, "1 < 2 & 3 <3"),
)


@pytest.mark.parametrize(
    "data",
    [
        SRT.encode(),
        b"\xef\xbb\xbf" + SRT.replace("\n", "\r\n").encode(),
        SRT.replace("\n", "\r").encode(),
        SRT.encode("utf-16"),
        SRT.replace("\n\n", "\n").encode(),
    ],
    ids=["plain", "BOM and CRLF", "CR", "UTF-16", "no empty lines"],
)
def test_srt(tmp_path, data):
    (tmp_path / "a.srt").write_bytes(data)
    found = read_subtitles(tmp_path / "a.srt")
    assert found.captions == WANTED
    assert found.skipped == ()


def test_webvtt(tmp_path):
    (tmp_path / "a.vtt").write_text(
        "WEBVTT Kind: captions\n\nNOTE\nnot a caption\n\nSTYLE\n::cue { color: red }\n\n"
        "intro\n00:01.500 --> 00:03.000 align:start position:0%\n<v Bob>Hello<00:02.000><c> there</c>\nyou&nbsp;all\n\n"
        "00:00:03.000 --> 00:00:04.000\nBye\n"
    )
    assert read_subtitles(tmp_path / "a.vtt").captions == (
        Caption(1.5, 3.0, "Hello there you all"),
        Caption(3.0, 4.0, "Bye"),
    )


@pytest.mark.parametrize("text", ["Ã\u2019é œufs", "né"])
def test_another_encoding(tmp_path, text):
    (tmp_path / "a.srt").write_bytes(b"00:01,0 --> 00:02,0\n" + text.encode("cp1252"))
    assert read_subtitles(tmp_path / "a.srt").captions[0].text == text
    (tmp_path / "b.srt").write_bytes(b"00:01,0 --> 00:02,0\nn\xe9 \x81")
    assert read_subtitles(tmp_path / "b.srt").captions[0].text.startswith("né")


def test_malformed_cues_are_left_out_and_told(tmp_path):
    path = tmp_path / "a.srt"
    path.write_text(
        "1\n00:00:0x,000 --> 00:00:02,000\nlost\n\n2\n00:03,0 --> 00:02,0\nlost\n\n00:04,0 --> 00:05,0\nkept\n"
    )
    found = read_subtitles(path)
    assert [caption.text for caption in found.captions] == ["kept"]
    assert [error.path for error in found.skipped] == [str(path)] * 2
    assert "line 2: '00:00:0x,000" in found.skipped[0].reason
    assert "line 6" in found.skipped[1].reason


@pytest.mark.parametrize(
    ("text", "words"),
    [("hello\n", "no cues"), ("00:03 --> 00:05\nhello\n", "line 1"), ("", "empty")],
)
def test_a_file_without_captions_is_an_error(tmp_path, text, words):
    (tmp_path / "a.vtt").write_text(text)
    with pytest.raises(MediaError, match=words):
        read_subtitles(tmp_path / "a.vtt")
    with pytest.raises(MediaError, match="no such file"):
        read_subtitles(tmp_path / "b.vtt")


@pytest.mark.parametrize("text", ["WEBVTT\n", "WEBVTT\n\n00:01.0 --> 00:02.0\n\n", "00:01,0 --> 00:02,0\n"])
def test_a_file_that_says_nothing_is_no_error(tmp_path, text):
    (tmp_path / "a.vtt").write_text(text)
    assert read_subtitles(tmp_path / "a.vtt").captions == ()


def test_the_file_beside_a_video(tmp_path):
    video = tmp_path / "a [1].b.mp4"
    assert subtitles_beside(video) is None
    for name in ("a [1].srt", "other.srt", "a [1].b.take2.srt", "a [1].b.de.srt"):
        (tmp_path / name).touch()
    assert subtitles_beside(video) == str(tmp_path / "a [1].b.de.srt")
    (tmp_path / "a [1].b.en-GB.vtt").touch()
    assert subtitles_beside(video) == str(tmp_path / "a [1].b.en-GB.vtt")
    (tmp_path / "a [1].b.vtt").touch()
    assert subtitles_beside(video) == str(tmp_path / "a [1].b.vtt")
    (tmp_path / "a [1].b.srt").touch()
    assert subtitles_beside(video) == str(tmp_path / "a [1].b.srt")
    assert subtitles_beside(tmp_path / "nowhere" / "a.mp4") is None


@pytest.mark.parametrize(
    ("codec", "suffix"), [("mov_text", "mp4"), ("subrip", "mkv"), ("webvtt", "mkv"), ("ass", "mkv")]
)
def test_a_track_in_the_video(media, tmp_path, codec, suffix):
    plain = encode(media / "uncaptioned.mp4", 90)
    cues = [Caption(0.2, 0.6, "Stir, {\\i1}the{\\i0} egg\\Nwell"), Caption(1.0, 1.5, "Add salt")]
    path = with_captions(plain, tmp_path / f"a.{suffix}", cues, codec)
    assert has_track(path)
    assert not has_track(plain)
    assert read_track(plain).captions == ()
    found = read_track(path).captions
    assert [caption.text for caption in found] == ["Stir, the egg well", "Add salt"]
    assert [(c.start, c.end) for c in found] == [pytest.approx((c.start, c.end), abs=0.002) for c in cues]
    with pytest.raises(MediaError, match="no such file"):
        has_track(tmp_path / "b.mp4")
