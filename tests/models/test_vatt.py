"""VATT: modalities that answer for themselves, DropToken, positions of other sizes, words, names, balanced losses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tubelet.models import VattConfig, VattEncoder, model_config
from tubelet.models.vatt import LinearWords, Sense, Words
from tubelet.nn.attention import capture_attention
from tubelet.nn.axial_positions import AxialPositions, resize_table
from tubelet.nn.common_space import CommonSpace
from tubelet.nn.joint_space import JointSpace
from tubelet.specs import ImageSpec, SpectrogramSpec, TextSpec, VideoSpec, WaveformSpec
from tubelet.training.classification import balanced_cross_entropy, sigmoid_cross_entropy
from tubelet.training.optimizers import choose_trainable
from zoo import AUDIO, IMAGE, SMALL, TEXT, ZOO, build, example


def config(name: str = "vatt") -> VattConfig:
    found = ZOO[name]
    assert isinstance(found, VattConfig)
    return found


def encoder(of: VattConfig) -> VattEncoder:
    made = build(of).eval().encoder
    assert isinstance(made, VattEncoder)
    return made


@pytest.mark.parametrize("name", ["vatt", "vatt-agnostic"])
def test_modalities_do_not_touch_each_other_and_the_first_given_one_is_the_result(name: str) -> None:
    model, x = encoder(config(name)), example(config(name))
    whole = model(x)
    assert list(whole.parts) == ["video", "audio", "text"]
    assert torch.equal(whole.pooled, whole.parts["video"].pooled)
    for key, part in whole.parts.items():
        alone = model({key: x[key]})
        torch.testing.assert_close(alone.parts[key].pooled, part.pooled)
        assert list(alone.parts) == [key]
        assert part.pooled.shape[-1] == model.widths[key]
    heard = model({"text": x["text"], "audio": x["audio"], "audio_mask": torch.ones(2), "text_mask": torch.zeros(2)})
    assert torch.equal(heard.pooled, heard.parts["audio"].pooled)
    assert model.width == model.widths["video"]


def test_every_caption_has_features_and_the_first_stands_for_captions_alone() -> None:
    model, x = encoder(config()), example(config())["text"]
    features = model({"text": x})
    part = features.parts["text"]
    assert part.pooled.shape == (2, 3, 24)
    assert part.tokens.shape == (2, 3, 5, 24)
    assert torch.equal(features.pooled, part.pooled[:, 0])
    one = model({"text": x[:, 1:2]})
    torch.testing.assert_close(one.pooled, part.pooled[:, 1])


@pytest.mark.parametrize("name", ["vatt", "vatt-agnostic"])
def test_padding_changes_nothing(name: str) -> None:
    """What a padded place's vector is does not matter, and the maps have no weight there."""
    model = encoder(config(name))
    ids = torch.tensor([[[7, 3, 0, 0, 0], [0, 0, 0, 0, 0]]])
    with capture_attention(model) as maps:
        before = model({"text": ids}).parts["text"].pooled
    for weights in maps.values():
        assert not weights[0, :, :, 3:].any()
        assert not weights[1, :, :, 1:].any()
    with torch.no_grad():
        model.get_parameter("modalities.text.words.table")[0] += 5
    torch.testing.assert_close(model({"text": ids}).parts["text"].pooled, before)


def test_mmvs_captions_are_the_maximum_over_all_words() -> None:
    made = VattConfig(modalities={"text": LinearWords(spec=TEXT, width=6, vectors=4)})
    model = encoder(made)
    features = model(example(made))
    assert features.parts["text"].pooled.shape == (2, 3, 6)
    assert torch.equal(features.tokens.amax(1), features.pooled)


def test_drop_token_keeps_its_share_in_training_alone_with_one_order_for_the_minibatch() -> None:
    made = replace(config("vatt-video").without_regularizers(), kept=0.34)
    model, x = encoder(made), example(made)
    assert model(x).tokens.shape[1] == 18
    model.train()
    torch.manual_seed(0)
    kept = model(x)
    assert kept.tokens.shape[1] == int(0.34 * 18)
    assert kept.boxes is not None
    assert kept.boxes.shape == (6, 3, 2)
    torch.manual_seed(0)
    again = model({"video": x["video"][:1]})
    torch.testing.assert_close(again.pooled, kept.pooled[:1])
    assert torch.equal(again.boxes, kept.boxes)
    torch.manual_seed(1)
    assert not torch.equal(model(x).boxes, kept.boxes)


def test_captions_are_never_dropped() -> None:
    made = replace(config("vatt-agnostic"), kept=0.5)
    features = encoder(made).train()(example(made))
    assert {name: part.tokens.shape[-2] for name, part in features.parts.items()} == {"video": 9, "audio": 3, "text": 5}


def test_a_ragged_tail_is_left_out() -> None:
    model, x = encoder(config()), example(config())["audio"]
    changed = torch.cat([x[:, :96], x[:, 96:] + 1], 1)
    assert torch.equal(model({"audio": x}).pooled, model({"audio": changed}).pooled)
    assert model({"audio": x}).tokens.shape[1] == 6


def test_an_image_is_a_video_of_one_patch_that_stands_still() -> None:
    """As the released code fine-tunes on ImageNet: the image is repeated, and takes the first place in time."""
    video = config("vatt-video")
    model, other = encoder(video), encoder(video.for_images(IMAGE))
    state = {name.replace(".video.", ".image."): x for name, x in model.state_dict().items()}
    time = "modalities.image.positions.axes.time.table"
    state[time] = state[time][:1]
    other.load_state_dict(state)
    image = example(video.for_images(IMAGE))["image"]
    still = image[:, None].expand(-1, 2, -1, -1, -1)
    torch.testing.assert_close(other(image).pooled, model({"video": still}, interpolate=True).pooled)


def test_a_table_of_another_length_goes_through_its_rows() -> None:
    table = torch.randn(6, 3, dtype=torch.float64)
    torch.testing.assert_close(resize_table(table, 12)[::2], table)
    assert torch.equal(resize_table(table, 6), table)
    torch.testing.assert_close(resize_table(table, 1), table[:1])
    assert torch.equal(resize_table(table[:1], 4), table[:1].expand(4, -1))
    line = torch.arange(5.0, dtype=torch.float64)[:, None] / 5
    torch.testing.assert_close(resize_table(line, 8), torch.arange(8.0, dtype=torch.float64)[:, None] / 8)


def test_positions_are_sums_over_the_axes_and_a_spectrograms_are_in_the_released_order() -> None:
    plain = AxialPositions({"height": 2, "width": 3}, 8)
    height, width = (plain.get_parameter(f"axes.{name}.table") for name in ("height", "width"))
    rows: list[Tensor] = [plain.norm(height[i] + width[j]) for i in range(2) for j in range(3)]
    torch.testing.assert_close(plain([2, 3]), torch.stack(rows))
    turned = AxialPositions({"height": 2, "width": 3}, 8, by_column=True)
    turned.load_state_dict(plain.state_dict())
    columns = [plain.norm(height[i] + width[j]) for j in range(3) for i in range(2)]
    torch.testing.assert_close(turned([2, 3]), torch.stack(columns))


@pytest.mark.parametrize("name", ["vatt-video", "vatt-spectrogram", "vatt-sound-agnostic"])
def test_rollout_of_one_input_sums_to_one(name: str) -> None:
    made = config(name)
    model, x = encoder(made), example(made)
    with capture_attention(model) as maps:
        model(x)
    ((key, modality),) = made.modalities.items()
    assert isinstance(modality, Sense)
    shares = made.rollout(maps, key)
    assert shares.shape == (2, *modality.grid)
    torch.testing.assert_close(shares.flatten(1).sum(1), torch.ones(2))


@pytest.mark.parametrize("name", ["vatt", "vatt-agnostic"])
def test_rollout_of_several_inputs_belongs_to_the_first(name: str) -> None:
    made = config(name)
    model, x = encoder(made), example(made)
    with capture_attention(model) as maps:
        model(x)
    video, audio = (made.rollout(maps, key, tuple(x)) for key in ("video", "audio"))
    torch.testing.assert_close(video.flatten(1).sum(1), torch.ones(2))
    assert not audio.any()
    with pytest.raises(TypeError, match="captions"):
        made.rollout(maps, "text", tuple(x))


def test_word_vectors_stay_frozen_whatever_is_trained_unless_they_are_learned() -> None:
    table = "encoder.modalities.text.words.table"
    for made, learned in ((config("vatt-agnostic"), False), (config(), True)):
        model = build(made)
        choose_trainable(model, ["*"])
        assert model.get_parameter(table).requires_grad == learned


def test_names_say_the_papers_models_and_small_ones() -> None:
    made = model_config("vatt-mbs", frames=64, size=320)
    assert isinstance(made, VattConfig)
    assert made.inputs["video"].shape == (64, 3, 320, 320)
    assert made.name == "vatt-mbs"
    assert {name: made.width_of(name) for name in made.inputs} == {"video": 1024, "audio": 768, "text": 512}
    assert replace(made, kept=0.5).name == "vatt-mbs"
    assert made.with_only(["video"]).name is None
    agnostic = model_config("vatt-ma-medium")
    assert isinstance(agnostic, VattConfig)
    assert agnostic.shared
    assert model_config("vatt-tiny").may_miss


def test_other_inputs_take_the_place_of_the_papers() -> None:
    made = model_config("vatt-tiny")
    specs = {
        "video": VideoSpec(frames=8, size=(48, 40), short_side=48),
        "audio": WaveformSpec(samples=4000, rate=8000),
        "text": TextSpec(captions=1, words=8, ids=30),
    }
    other = made.with_inputs(specs)
    assert isinstance(other, VattConfig)
    assert other.inputs == specs
    assert encoder(other)(example(other)).tokens.shape == (2, 2 * 6 * 5, 192)
    assert other.name == "vatt-tiny"


def test_wrong_configs_are_named() -> None:
    audio = Sense(spec=AUDIO, patch=(1, 8, 8), backbone=SMALL)
    with pytest.raises(ValueError, match="'sound' must be called 'audio'"):
        VattConfig(modalities={"sound": audio})
    with pytest.raises(ValueError, match="share one transformer"):
        VattConfig(
            modalities={"audio": audio, "text": Words(spec=TEXT, backbone=replace(SMALL, depth=1))}, projection=8
        )
    with pytest.raises(ValueError, match="kept"):
        replace(config(), kept=0.0)
    with pytest.raises(ValueError, match="smaller than one tubelet"):
        Sense(spec=SpectrogramSpec(frames=4, bins=16), patch=(1, 8, 8), backbone=SMALL)
    with pytest.raises(ValueError, match="not a Sense"):
        Sense(spec=TEXT, backbone=SMALL)
    assert Sense(spec=ImageSpec(size=(32, 32), short_side=32), backbone=SMALL).grid == (1, 2, 2)


def test_common_spaces_take_what_is_there() -> None:
    model, x = encoder(config()), example(config())
    head = CommonSpace(model.widths, 8, 4)
    assert {name: tuple(v.shape) for name, v in head(model(x)).items()} == {
        "video_audio": (2, 8),
        "video_text": (2, 4),
        "audio_video": (2, 8),
        "text_video": (2, 3, 4),
    }
    assert list(head(model({"text": x["text"]}))) == ["text_video"]


def test_a_joint_space_brings_all_to_one_width() -> None:
    model, x = encoder(config()), example(config())
    vectors = JointSpace(model.widths, 8)(model(x))
    assert {name: v.shape[-1] for name, v in vectors.items()} == dict.fromkeys(
        ("video_audio", "video_text", "audio_video", "text_video"), 8
    )
    assert torch.equal(vectors["video_audio"], vectors["video_text"])
    torch.testing.assert_close(vectors["text_video"].mean((0, 1)), torch.zeros(8), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["vatt", "vatt-agnostic"])
def test_bfloat16_says_nearly_the_same(name: str) -> None:
    model, x = encoder(config(name)), example(config(name))
    expected = model(x).parts
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(x).parts
    narrow = {key: value.bfloat16() if value.is_floating_point() else value for key, value in x.items()}
    low = model.bfloat16()(narrow).parts
    for key, part in expected.items():
        for found in (mixed[key], low[key]):
            assert (found.pooled.float() - part.pooled).norm() < 0.04 * part.pooled.norm()


def test_rare_labels_count_more_when_balanced() -> None:
    """Two examples of the common label, one of the rare one, one of none: 1/2, 1/2, 1 and 0."""
    targets = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]])
    logits = torch.randn(4, 3)
    each = torch.stack([sigmoid_cross_entropy(x[None], t[None]) for x, t in zip(logits, targets, strict=True)])
    expected = (each * torch.tensor([0.5, 0.5, 1, 0])).mean()
    torch.testing.assert_close(balanced_cross_entropy(logits, targets), expected)
