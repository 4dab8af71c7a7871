"""What the readers of inputs give: waveforms, and optical flow from a second file of an example."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from media_files import record_sound
from tubelet.configs import from_json, to_json
from tubelet.data.augment import Augmentation
from tubelet.data.dataset import Example, TrainSet, VideoViews, ViewSet
from tubelet.data.manifest import ManifestError, Record, read_manifest, write_manifest
from tubelet.data.readers import reader_of
from tubelet.data.views import Views
from tubelet.data.windows import plan_windows
from tubelet.media.write import write_video
from tubelet.specs import InputSpec, SpectrogramSpec, VideoSpec, WaveformSpec

PLAIN = Augmentation(crop=0.0, flip=0.0, scale_jitter=0.0, color=0.0, grayscale=0.0)
VIDEO = VideoSpec(frames=4, stride=1, size=(16, 16), short_side=16)
FLOW = VideoSpec(
    frames=4, stride=1, size=(16, 16), short_side=16, mean=(0.5,) * 2, std=(0.5,) * 2, values="flow", column="path.flow"
)
WAVE = WaveformSpec(samples=4800, rate=24_000)


@pytest.fixture(scope="module")
def sound(media):
    """Half a second of silence, then half a second of noise, at 24 kHz."""
    noise = np.random.default_rng(0).standard_normal(12_000) * 0.1
    return str(record_sound(media / "wave.wav", np.concatenate([np.zeros(12_000), noise]), rate=24_000))


@pytest.fixture(scope="module")
def pair(media):
    """A gray video whose frames get brighter, and its flow: one frame less, moving right by as much as that."""
    levels = torch.arange(20, dtype=torch.uint8) * 10 + 20
    video = levels[:, None, None, None].expand(-1, 3, 16, 16).contiguous()
    write_video(media / "seen.mp4", video, fps=10.0)
    flow = video[:19].clone()
    flow[:, :, :, 8:] = 128
    write_video(media / "flow.mp4", flow, fps=10.0)
    return Record(path=str(media / "seen.mp4"), paths={"flow": str(media / "flow.mp4")}, key="seen.mp4")


def inputs_of(example: object) -> dict[str, torch.Tensor]:
    assert isinstance(example, Example | VideoViews), example
    return example.inputs


@pytest.mark.parametrize("spec", [WAVE, FLOW, SpectrogramSpec()])
def test_a_spec_is_saved_by_its_registered_name_and_read_by_its_class_name_too(spec):
    saved = to_json(spec, InputSpec)
    assert saved["kind"] in ("waveform", "video", "spectrogram")
    assert from_json(InputSpec, saved) == spec
    assert from_json(InputSpec, {**saved, "kind": type(spec).__name__}) == spec


def test_a_spec_without_a_reader_is_named():
    class Smell(VideoSpec):
        pass

    with pytest.raises(TypeError, match="no reader of Smell"):
        reader_of(Smell())


def test_test_views_of_a_waveform_are_its_samples_and_silence_is_told(sound):
    views = ViewSet([Record(sound)], None, {"audio": WAVE}, Views(clips=2)).example(0)
    assert isinstance(views, VideoViews)
    assert views.inputs["audio"].shape == (2, 4800)
    assert views.silent == ()
    assert [bool(clip.any()) for clip in views.inputs["audio"]] == [False, True]
    assert views.inputs["audio"].abs().max() <= 1
    quiet = ViewSet([Record(sound, end=0.4)], None, {"audio": WAVE}).example(0)
    assert isinstance(quiet, VideoViews)
    assert quiet.silent == ("audio",)


def test_a_waveform_in_training_is_the_span_that_a_spectrogram_of_its_length_is_made_of(sound):
    spectrogram = SpectrogramSpec(frames=20, rate=24_000, bins=24, fft=1024, stretch=0.2)
    both = TrainSet([Record(sound)], None, {"wave": WAVE, "audio": spectrogram}, PLAIN)
    for pass_ in range(5):
        wave = inputs_of(both.example(0, pass_))["wave"]
        assert (wave.shape, wave.dtype) == ((4800,), torch.float32)
        assert both.times(0, pass_, "wave")[0] == pytest.approx(both.times(0, pass_, "audio")[0])


def test_a_waveform_has_one_loudness_where_that_is_asked_for(sound):
    spec = WaveformSpec(samples=4800, rate=24_000, loudness=-25)
    wave = inputs_of(ViewSet([Record(sound, start=0.6)], None, {"audio": spec}).example(0))["audio"]
    assert 20 * wave.square().mean().sqrt().log10() == pytest.approx(-25, abs=0.1)


def test_a_timeline_of_a_waveform(sound):
    reader = reader_of(WAVE)
    plan = plan_windows(reader.grid(0.0), 1.0)
    assert [(w.start, w.end) for w in plan.windows] == [
        (pytest.approx(i / 5), pytest.approx((i + 1) / 5)) for i in range(5)
    ]
    found = list(reader.windows(Record(sound), plan))
    assert [x.shape for x, _ in found] == [(1, 4800)] * 5
    assert [silent for _, silent in found] == [True, True, False, False, False]


def test_flow_is_read_at_the_times_of_the_video_beside_it(pair):
    both = TrainSet([pair], None, {"video": VIDEO, "flow": FLOW}, PLAIN)
    for pass_ in range(8):
        found = inputs_of(both.example(0, pass_))
        assert found["flow"].shape == (4, 2, 16, 16)
        assert both.times(0, pass_, "flow") == both.times(0, pass_, "video")
        seen, moved = (found[name][:, 0, :, 0].float().mean(1) for name in ("video", "flow"))
        torch.testing.assert_close(moved, seen.clamp(max=200.0), atol=4.0, rtol=0)  # the last frame stands for the next
    views = inputs_of(ViewSet([pair], None, {"video": VIDEO, "flow": FLOW}, Views(clips=3)).example(0))
    assert (views["video"].shape, views["flow"].shape) == ((3, 4, 3, 16, 16), (3, 4, 2, 16, 16))


def test_a_mirrored_clip_moves_the_other_way(pair):
    plain, turned = (
        inputs_of(TrainSet([pair], None, {"flow": FLOW}, Augmentation(crop=0.0, flip=flip)).example(0, 0))["flow"]
        for flip in (0.0, 1.0)
    )
    assert torch.equal(turned[:, 0], 255 - plain[:, 0].flip(-1))
    assert torch.equal(turned[:, 1], plain[:, 1].flip(-1))


def test_what_would_falsify_flow_is_refused(pair):
    with pytest.raises(ValueError, match=r"input 'flow' is optical flow.*rotate"):
        TrainSet([pair], None, {"flow": FLOW}, Augmentation(rotate=10.0))
    with pytest.raises(ValueError, match=r"wants 2 channels; media files give 3"):
        TrainSet([pair], None, {"video": VideoSpec(mean=(0.5,) * 2, std=(0.5,) * 2)})


def test_an_example_without_the_column_is_an_error_that_says_which(pair):
    with pytest.raises(ValueError, match=r"input 'flow' is read from the column 'path.flow', which .* does not have"):
        ViewSet([Record(pair.path)], None, {"flow": FLOW})


def test_a_column_of_second_files_is_relative_to_the_manifest_and_written_again(tmp_path):
    (tmp_path / "all.csv").write_text("path,path.flow,label\na.mp4,flow/a.mp4,x\n")
    (record,) = read_manifest(tmp_path / "all.csv").records
    assert record.paths == {"flow": str(tmp_path / "flow" / "a.mp4")}
    write_manifest(tmp_path / "again.csv", [record])
    assert read_manifest(tmp_path / "again.csv").records == (record,)
    (tmp_path / "empty.csv").write_text("path,path.flow,label\na.mp4,,x\n")
    with pytest.raises(ManifestError, match=r"'path.flow' is empty"):
        read_manifest(tmp_path / "empty.csv")
