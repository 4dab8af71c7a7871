"""Views of many videos in forwards of a bounded size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from senses import senses_model
from tubelet.data.readers import reader_of
from tubelet.inference.scoring import evaluation_mode, view_logits
from tubelet.models import Encoder, Model, ModelConfig
from tubelet.nn.features import Features
from tubelet.specs import ImageSpec, VideoSpec


class Pixels(ModelConfig):
    inputs = {"image": ImageSpec(size=(2, 2), short_side=2, mean=(0.0,) * 3, std=(1.0,) * 3)}  # noqa: RUF012

    def build(self):
        return Counting()


class Counting(Encoder):
    """Features are the mean pixel of each view; the sizes of the forwards are kept."""

    def __init__(self) -> None:
        super().__init__(Pixels(), 1)
        self.scale = nn.Parameter(torch.ones(()))
        self.forwards: list[int] = []

    def encode(self, inputs):
        pixels = inputs["image"].flatten(1).mean(1, keepdim=True) * self.scale
        self.forwards.append(len(pixels))
        return Features(pixels[:, None], pixels)


class TwoSets(nn.Module):
    def forward(self, features):
        return {"verb": features.pooled, "noun": -features.pooled.repeat(1, 2)}


@pytest.fixture
def model() -> Model:
    return Model(Counting(), {"one": nn.Identity(), "two": TwoSets()})


class Pooled(nn.Module):
    def forward(self, features):
        return features.pooled


def videos(count: int, views: int):
    return [{"image": torch.full((views, 3, 2, 2), 10 * i, dtype=torch.uint8)} for i in range(count)]


@pytest.mark.parametrize("views_per_forward", [1, 2, 3, 4, 5, 12, 100])
def test_every_video_gets_its_own_views_back(model, views_per_forward):
    model.heads["one"] = Pooled()
    with evaluation_mode(model, "float32"):
        results = list(view_logits(model, "one", videos(7, 3), views_per_forward=views_per_forward))
    assert [tuple(r["label"].shape) for r in results] == [(3, 1)] * 7
    for i, result in enumerate(results):
        torch.testing.assert_close(result["label"], torch.full((3, 1), 10 * i / 255))
    sizes = model.encoder.forwards
    assert max(sizes) <= views_per_forward
    assert all(size == views_per_forward for size in sizes[:-1])
    assert sum(sizes) == 21


def test_label_sets_stay_apart(model):
    with evaluation_mode(model, "float32"):
        result = list(view_logits(model, "two", videos(2, 2), views_per_forward=3))[1]
    assert result["verb"].shape == (2, 1)
    assert result["noun"].shape == (2, 2)


def test_blank_forwards_fill_up_and_are_thrown_away(model):
    model.heads["one"] = Pooled()
    with evaluation_mode(model, "float32"):
        results = list(view_logits(model, "one", videos(3, 1), views_per_forward=2, forwards=5))
    assert len(results) == 3
    assert len(model.encoder.forwards) == 5


def test_a_rank_without_any_video_still_runs_its_forwards(model):
    model.heads["one"] = Pooled()
    with evaluation_mode(model, "float32"):
        assert list(view_logits(model, "one", [], views_per_forward=2, forwards=2)) == []
    assert len(model.encoder.forwards) == 2


def test_blanks_are_of_the_tasks_own_inputs():
    model = senses_model().model
    seen: list[list[str]] = []
    model.encoder.register_forward_hook(lambda _, arguments, __: seen.append(list(arguments[0])))
    with evaluation_mode(model, "float32"):
        specs = {"audio": model.encoder.inputs["audio"]}
        assert list(view_logits(model, "pitch", [], views_per_forward=2, forwards=2, specs=specs)) == []
    assert seen == [["audio"], ["audio"]]


def test_evaluation_mode_gives_the_mode_back_and_needs_no_gradients(model):
    model.train()
    with evaluation_mode(model, "bfloat16"):
        assert not model.training
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert model.training


def test_blank_inputs_have_the_shape_of_the_spec():
    assert reader_of(VideoSpec(frames=4, size=(8, 6), short_side=8)).blank().shape == (1, 4, 3, 8, 6)
    assert reader_of(ImageSpec(size=(8, 6), short_side=8)).blank().shape == (1, 3, 8, 6)


def test_forwards_must_have_views(model):
    with pytest.raises(ValueError, match="views_per_forward=0"):
        list(view_logits(model, "one", [], views_per_forward=0))
